"""Gradients of a loss in the outputs of projections, taken during the backward pass.

No parameter's `requires_grad` or `grad` is touched, and no gradient of a parameter is computed, so that other
threads can use the model meanwhile.
"""

from collections.abc import Callable, Iterator, Sequence

import torch

from transact.layers.hooks import by_sample, checking, on_calls
from transact.models.chunked_logits import hidden_gradients, output_head
from transact.models.loaded_model import Batch, LoadedModel
from transact.progress import Progress, Repeating
from transact.runtime.distributed import share
from transact.runtime.random_numbers import drawn_at
from transact.spec.memory_estimates import block_bytes
from transact.spec.model_spec import ModelSpec
from transact.text.tokens import TokenSet

Key = tuple[int, str]
"""Layer, and what the projection is called there."""
BlockLosses = Callable[[torch.Tensor, slice], tuple[torch.Tensor, ...]]
"""Log-probabilities [row of the block, vocabulary] and which rows of its batch those are: one scalar for each loss,
which add up over the blocks of a batch."""
_BATCH_LOGITS = 1 << 24
"""Positions times words of one batch; with a large vocabulary a batch holds fewer samples. Scores by gradients depend
on how the text was batched, so this stays as it is."""
_MAX_BATCH = 16
_BACKWARD_BYTES = 1 << 31
"""What a forward pass may keep for its backward pass; one sample is always taken."""


def output_gradients(
    loaded: LoadedModel,
    modules: dict[Key, torch.nn.Linear],
    tokens: TokenSet,
    losses: Callable[[torch.Tensor], BlockLosses],
    add: Callable[[int, Key, torch.Tensor, torch.Tensor, torch.Tensor], None],
    progress: Progress,
    *,
    batch_size: int = _MAX_BATCH,
    shared: bool = False,
) -> None:
    """One forward pass over the text and one backward pass per loss. Progress is in tokens, reported at every module.

    Cancellation is checked at every layer, in the backward passes too.

    `shared`: each of several processes takes only its share of the batches.

    `losses(targets)` is called once a batch, with the next tokens int64 [row] of all its predictions, and what it
    returns once for every block of them. For each loss, counted from 0, and each module
    `add(number, key, input, gradient, real)` gets the module's input [sample, seq, channel], the gradient in its output
    [sample, seq, hidden] and which positions are real, bool [sample, seq].
    """
    pass_ = _Pass(loaded, losses, add, progress, tokens.num_tokens)
    functions = [(module, pass_.recorder(key)) for key, module in modules.items()]
    checked = checking(loaded.stages, pass_.watch.check)
    with torch.inference_mode(False), torch.enable_grad(), on_calls(functions), checked:
        batches = predictions(loaded, tokens, batch_size=batch_size)
        for batch, rows in share(batches) if shared else batches:
            pass_.run(batch, rows)


class _Pass:
    """A pass over the text, and its current batch."""

    def __init__(
        self,
        loaded: LoadedModel,
        losses: Callable[[torch.Tensor], BlockLosses],
        add: Callable[[int, Key, torch.Tensor, torch.Tensor, torch.Tensor], None],
        progress: Progress,
        num_tokens: int,
    ):
        self.loaded, self.losses, self.add = loaded, losses, add
        self.head = output_head(loaded)
        self.embeddings = loaded.model.get_submodule(loaded.layout.embeddings)
        self.watch, self.done, self.total = Repeating(progress, num_tokens, "tokens"), 0, num_tokens
        self.batch_tokens = 0
        self.loss = 0
        self.real = torch.empty(0, dtype=torch.bool)

    def recorder(self, key: Key) -> Callable[[torch.Tensor, torch.Tensor], None]:
        """The function to call at each call of the module."""

        def record(activations: torch.Tensor, output: torch.Tensor) -> None:
            if output.requires_grad:  # a copy of the model may carry these hooks along; its passes take no gradient
                real = self.real
                inputs = by_sample(activations.detach(), real.shape)
                output.register_hook(
                    lambda gradient: self.add(self.loss, key, inputs, by_sample(gradient, real.shape), real)
                )
                # the forward pass is about a third of the work
                self._report(self.done + self.batch_tokens * key[0] // (3 * len(self.loaded.decoder_layers)))

        return record

    def run(self, batch: Batch, rows: torch.Tensor) -> None:
        """One forward pass, and one backward pass per loss; nothing of them stays in memory."""
        ids = batch.input_ids.to(self.loaded.device)
        self.batch_tokens, self.real = int(batch.mask.sum()), batch.mask.to(ids.device)
        # the backward pass ends at this leaf, so that no gradient of a parameter is computed
        start = self.embeddings(ids).detach().requires_grad_()
        hidden = self.loaded.decoder(inputs_embeds=start, use_cache=False).last_hidden_state[rows]
        of_block = self.losses(ids[:, 1:][rows[:, :-1]])
        gradients = hidden_gradients(self.head, hidden, self.loaded.spec.vocab_size, of_block)
        for self.loss, gradient in enumerate(gradients):
            self.watch.check()
            torch.autograd.grad(hidden, start, gradient, retain_graph=self.loss < len(gradients) - 1)
        self.done += self.batch_tokens
        self._report(self.done)

    def _report(self, done: int) -> None:
        self.watch(done, self.total, "tokens")


def drawn_losses(log_probabilities: torch.Tensor, numbers: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    """−Σ log q of next tokens drawn from q itself: its gradients' second moment is the Fisher information.

    One loss for each of `numbers`, random ones [row, 1] of which tokens are drawn.
    """
    drawn = drawn_at(log_probabilities.detach(), numbers)
    return tuple(-log_probabilities.gather(1, each).sum() for each in drawn)


def predictions(
    loaded: LoadedModel, tokens: TokenSet, *, batch_size: int = _MAX_BATCH
) -> Iterator[tuple[Batch, torch.Tensor]]:
    """Batches with `rows` bool [sample, seq], the positions that predict a real token."""
    for batch in _batches(loaded.spec, loaded.dtype.itemsize, tokens, batch_size):
        rows = batch.predicting
        if rows.any():
            yield batch, rows.to(loaded.device)


def pass_bytes(
    spec: ModelSpec, tokens: TokenSet, bytes_per_element: int = 4, *, batch_size: int = _MAX_BATCH
) -> tuple[int, int]:
    """About what `output_gradients` holds at its peak, and the positions of its largest batch, padding included."""
    positions = max(batch.mask.numel() for batch in _batches(spec, bytes_per_element, tokens, batch_size))
    return backward_bytes(spec, positions, bytes_per_element), positions


def _batches(spec: ModelSpec, bytes_per_element: int, tokens: TokenSet, batch_size: int) -> Iterator[Batch]:
    kept = _BACKWARD_BYTES // token_bytes(spec, bytes_per_element)
    budget = max(min(_BATCH_LOGITS // spec.vocab_size, kept), 1)
    return tokens.batches(batch_size=batch_size, max_tokens=budget)


def backward_bytes(spec: ModelSpec, num_positions: int, bytes_per_element: int = 4) -> int:
    """About what a forward pass over `num_positions` positions keeps for its backward pass, including the loss."""
    return num_positions * token_bytes(spec, bytes_per_element) + block_bytes(spec, num_positions, bytes_per_element)


def token_bytes(spec: ModelSpec, bytes_per_element: int) -> int:
    """What the layers keep of one token for the backward pass; norms are kept in float32."""
    elements = sum(
        6 * spec.hidden_size
        + (layer.num_attention_heads + 2 * layer.num_key_value_heads) * (spec.query_key_dim + spec.value_dim)
        + 4 * layer.intermediate_size
        for layer in spec.layers
    )
    return max(bytes_per_element, 4) * elements
