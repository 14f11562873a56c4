"""From a decoder's final hidden states to predictions, a block of rows at a time.

The logits of a whole batch are its largest tensor by far where the vocabulary is large (half a gigabyte for 512
positions of 262,144 words), and losses need several of that size. Hidden states are small, and the rows' losses are
independent, so hidden states are kept whole and logits are made, used and dropped block by block.

What is between the two (the output matrix, scaling, soft capping) is the stock class's own code: its forward pass is
run with a module in place of the decoder that returns the hidden states it is given.
"""

from collections.abc import Callable, Iterator

import torch
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from transact.layers.stand_in import with_module_at
from transact.models.loaded_model import LoadedModel
from transact.spec.family import Family
from transact.spec.memory_estimates import BLOCK_BYTES

Head = Callable[[torch.Tensor], torch.Tensor]
"""Final hidden states [row, hidden] -> logits [row, vocabulary]."""


class _PassThrough(torch.nn.Module):
    """Replaces the decoder: returns its input as the result."""

    def forward(self, *positional, inputs_embeds: torch.Tensor, **named) -> BaseModelOutputWithPastAndCrossAttentions:
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=inputs_embeds)


def without_decoder(model: torch.nn.Module, layout: Family) -> torch.nn.Module:
    """A shallow copy of a causal language model with only what follows the decoder."""
    head_model = with_module_at(model, layout.decoder, _PassThrough())
    head_model.__dict__.pop("forward", None)  # accelerate sets one on the instance, which runs the model it was set on
    return head_model


def output_head(loaded: LoadedModel) -> Head:
    """The model's own code from its decoder's final hidden states to logits."""
    return head_of(without_decoder(loaded.model, loaded.layout))


def head_of(head_model: torch.nn.Module) -> Head:
    """The same for a model that `without_decoder` returned."""

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        return head_model(inputs_embeds=hidden[None], use_cache=False).logits[0]  # a batch of one sample

    return logits


def row_blocks(num_rows: int, vocab_size: int, dtype: torch.dtype) -> Iterator[slice]:
    """Slices of rows whose logits, at least float32, take `BLOCK_BYTES` at most; a single row always fits."""
    size = max(1, BLOCK_BYTES // (vocab_size * max(dtype.itemsize, 4)))
    return (slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size))


def log_probabilities(logits: torch.Tensor) -> torch.Tensor:
    """At least float32."""
    return at_least_float32(logits).log_softmax(dim=-1)


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """Half precisions are too coarse to sum over a vocabulary in."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def summed_divergence(reference: torch.Tensor, own: torch.Tensor) -> float:
    """Σ KL(reference ‖ own) in nats over rows of log-probabilities [row, vocabulary]."""
    return float(reference.exp().mul_(reference - own).sum(dtype=torch.float64))


def hidden_gradients(
    head: Head,
    hidden: torch.Tensor,
    vocab_size: int,
    losses: Callable[[torch.Tensor, slice], tuple[torch.Tensor, ...]],
) -> tuple[torch.Tensor, ...]:
    """Gradients of losses in `hidden` [row, hidden], one of that shape for each loss.

    `losses(log_probabilities, block)` [row of the block, vocabulary] gives scalars that add up over the blocks. No
    gradient of a parameter is computed.
    """
    parts: list[tuple[torch.Tensor, ...]] = []
    for block in row_blocks(len(hidden), vocab_size, hidden.dtype):
        parts.append(_block_gradients(head, hidden[block].detach().requires_grad_(), block, losses))
    return tuple(torch.cat(of_loss) for of_loss in zip(*parts, strict=True))


def _block_gradients(
    head: Head,
    rows: torch.Tensor,
    block: slice,
    losses: Callable[[torch.Tensor, slice], tuple[torch.Tensor, ...]],
) -> tuple[torch.Tensor, ...]:
    scalars = losses(log_probabilities(head(rows)), block)
    last = len(scalars) - 1
    return tuple(
        torch.autograd.grad(scalar, rows, retain_graph=number < last)[0] for number, scalar in enumerate(scalars)
    )


def summed_loss(
    head_model: torch.nn.Module,
    hidden: torch.Tensor,
    vocab_size: int,
    loss: Callable[[torch.Tensor, slice], torch.Tensor],
) -> torch.Tensor:
    """A loss that is a sum over rows, for training: its gradient reaches `hidden` and the trained parameters.

    `head_model` is from `without_decoder`; `loss(logits, block)` [row of the block, vocabulary] gives a scalar. The
    gradients are computed in the forward pass, so that no block's logits are kept, or made again, for the backward one.
    """
    trained = [parameter for parameter in _parameters(head_model) if parameter.requires_grad]
    return _SummedLoss.apply(head_of(head_model), vocab_size, loss, hidden, *trained)


def _parameters(head_model: torch.nn.Module) -> list[torch.Tensor]:
    """All parameters, each once; the replicas of `torch.nn.DataParallel` keep theirs under another name."""
    parameters = [
        parameter
        for module in head_model.modules()
        for parameter in (*module._parameters.values(), *getattr(module, "_former_parameters", {}).values())
    ]
    return list({id(parameter): parameter for parameter in parameters if parameter is not None}.values())


class _SummedLoss(torch.autograd.Function):
    """`summed_loss` as an operation that autograd knows."""

    @staticmethod
    def forward(
        context,
        head: Head,
        vocab_size: int,
        loss: Callable[[torch.Tensor, slice], torch.Tensor],
        hidden: torch.Tensor,
        *trained: torch.Tensor,
    ) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.promote_types(hidden.dtype, torch.float32), device=hidden.device)
        sums = [torch.zeros_like(parameter) for parameter in trained]
        parts = [hidden.new_empty(0, hidden.shape[1])]
        for block in row_blocks(len(hidden), vocab_size, hidden.dtype):
            with torch.enable_grad():
                rows = hidden[block].detach().requires_grad_()
                value = loss(head(rows), block)
            of_rows, *of_trained = torch.autograd.grad(value, (rows, *trained))
            parts.append(of_rows)
            for number in range(len(sums)):  # as large as the output matrix each: none is kept beside the next block
                sums[number].add_(of_trained.pop(0))
            total += value.detach()
        context.save_for_backward(torch.cat(parts), *sums)
        return total

    @staticmethod
    def backward(context, gradient: torch.Tensor):
        return (None, None, None, *(gradient * each for each in context.saved_tensors))
