"""Gradients of a loss in the outputs of projections, as the backward pass comes by them.

No parameter's `requires_grad` or `grad` is touched, and no gradient of a parameter is computed, so that other
threads may use the model meanwhile.
"""

from collections.abc import Callable, Iterator

import torch

from transact.calibration import Batch, TokenSet
from transact.hooks import by_sample, checking, on_calls
from transact.loading import LoadedModel
from transact.processes import share
from transact.progress import Progress, Repeating
from transact.sampling import draw
from transact.spec import ModelSpec

Key = tuple[int, str]
"""Layer, and what the projection is called there."""
_LOGIT_ELEMENTS = 1 << 24
"""Logits of one batch (64 MiB in float32); with a large vocabulary a batch holds fewer samples."""
_MAX_BATCH = 16
_LOGIT_COPIES = 4
"""The logits, their float32 form, their probabilities and their gradient."""
_BACKWARD_BYTES = 1 << 31
"""What a forward pass may keep for its backward pass; one sample is always taken."""


def output_gradients(
    loaded: LoadedModel,
    modules: dict[Key, torch.nn.Linear],
    tokens: TokenSet,
    losses: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], tuple[torch.Tensor, ...]],
    add: Callable[[int, Key, torch.Tensor, torch.Tensor, torch.Tensor], None],
    progress: Progress,
    *,
    batch_size: int = _MAX_BATCH,
    shared: bool = False,
) -> None:
    """One forward pass over the text and one backward pass per loss. Progress is in tokens, told at every module.

    It may raise `Cancelled` at every layer, in the backward passes too.

    `shared`: of several processes each takes its share of the batches alone.

    `losses(log_probabilities, input_ids, rows)` [prediction, vocabulary], [sample, seq], bool [sample, seq] (the
    positions that predict) gives scalars. For each of them, counted from 0, and each module
    `add(number, key, input, gradient, real)` is told the module's input [sample, seq, channel], the gradient in its
    output [sample, seq, hidden] and which positions are real, bool [sample, seq].
    """
    device = loaded.device
    under_way: dict = {}

    def watcher(key: Key):
        def record(activations: torch.Tensor, output: torch.Tensor) -> None:
            if output.requires_grad:  # a copy of the model may carry these hooks along; its passes take no gradient
                real = under_way["real"]
                read = by_sample(activations.detach(), real.shape)
                output.register_hook(
                    lambda gradient: add(under_way["loss"], key, read, by_sample(gradient, real.shape), real)
                )
                # the forward pass is about a third of the work
                watch(done + under_way["tokens"] * key[0] // (3 * len(loaded.decoder_layers)), total, "tokens")

        return record

    embeddings = loaded.model.get_submodule(loaded.layout.embeddings)
    done, total = 0, tokens.num_tokens
    watch = Repeating(progress, total, "tokens")
    functions = [(module, watcher(key)) for key, module in modules.items()]
    checked = checking(loaded.stages, watch.check)
    with torch.inference_mode(False), torch.enable_grad(), on_calls(functions), checked:
        batches = predictions(loaded, tokens, batch_size=batch_size)
        for batch, rows in share(batches) if shared else batches:
            ids = batch.input_ids.to(device)
            under_way["tokens"] = int(batch.mask.sum())
            under_way["real"] = batch.mask.to(device)
            # the gradient's way ends here, so that none is computed for a parameter
            start = embeddings(ids).detach().requires_grad_()
            own = log_probabilities(loaded.model(inputs_embeds=start, use_cache=False).logits[rows])
            scalars = losses(own, ids, rows)
            for number, loss in enumerate(scalars):
                watch.check()
                under_way["loss"] = number
                torch.autograd.grad(loss, start, retain_graph=number < len(scalars) - 1)
            done += under_way["tokens"]
            watch(done, total, "tokens")


def drawn_loss(log_probabilities: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """−Σ log q of next tokens drawn from q itself: its gradients' second moment is the Fisher information."""
    return -log_probabilities.gather(1, draw(log_probabilities.detach(), generator)).sum()


def predictions(
    loaded: LoadedModel, tokens: TokenSet, *, batch_size: int = _MAX_BATCH
) -> Iterator[tuple[Batch, torch.Tensor]]:
    """Batches with `rows` bool [sample, seq], the positions that predict a real token."""
    for batch in _batches(loaded, tokens, batch_size):
        rows = torch.zeros_like(batch.mask)
        rows[:, :-1] = batch.mask[:, 1:]
        if rows.any():
            yield batch, rows.to(loaded.device)


def largest_batch(loaded: LoadedModel, tokens: TokenSet, *, batch_size: int = _MAX_BATCH) -> int:
    """Positions of the largest batch, padding included."""
    return max(batch.mask.numel() for batch in _batches(loaded, tokens, batch_size))


def _batches(loaded: LoadedModel, tokens: TokenSet, batch_size: int) -> Iterator[Batch]:
    spec = loaded.spec
    kept = _BACKWARD_BYTES // backward_bytes(spec, loaded.dtype.itemsize)
    budget = max(min(_LOGIT_ELEMENTS // spec.vocab_size, kept), 1)
    return tokens.batches(batch_size=batch_size, max_tokens=budget)


def log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """At least float32."""
    precise = logits if logits.dtype == torch.float64 else logits.float()
    return precise.log_softmax(dim=-1)


def backward_bytes(spec: ModelSpec, itemsize: int) -> int:
    """About what a forward pass keeps for its backward pass, per token; norms are kept in float32."""
    elements = sum(
        6 * spec.hidden_size
        + (layer.num_attention_heads + 2 * layer.num_key_value_heads) * (spec.query_key_dim + spec.value_dim)
        + 4 * layer.intermediate_size
        for layer in spec.layers
    )
    return max(itemsize, 4) * (elements + _LOGIT_COPIES * spec.vocab_size)
