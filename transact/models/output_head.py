"""From a decoder's final hidden states to predictions, a block of rows at a time.

The logits of a whole batch are its largest tensor by far where the vocabulary is large (half a gigabyte for 512
positions of 262,144 words), and losses need several of that size. Hidden states are small, and every row's loss is its
own, so hidden states are kept whole and logits are made, used and dropped block by block.

Whatever stands between the two (the output matrix, scaling, soft capping) is the stock class's own code: its forward
pass is run with something in the decoder's place that hands on the hidden states it is given.
"""

from collections.abc import Callable, Iterator

import torch
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

from transact.layers.stand_in import with_module_at
from transact.models.loaded_model import LoadedModel
from transact.spec.families import Family
from transact.spec.memory_estimates import BLOCK_BYTES

Head = Callable[[torch.Tensor], torch.Tensor]
"""Final hidden states [row, hidden] -> logits [row, vocabulary]."""


class _HandedOn(torch.nn.Module):
    """Stands where the decoder stood: returns what it is given as if that had been its result."""

    def forward(self, *positional, inputs_embeds: torch.Tensor, **named) -> BaseModelOutputWithPastAndCrossAttentions:
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=inputs_embeds)


def without_decoder(model: torch.nn.Module, layout: Family) -> torch.nn.Module:
    """A second face of a causal language model that has nothing but what follows the decoder."""
    face = with_module_at(model, layout.decoder, _HandedOn())
    face.__dict__.pop("forward", None)  # accelerate sets one on the instance, which runs the model it was set on
    return face


def output_head(loaded: LoadedModel) -> Head:
    """What the model's own code makes of its decoder's final hidden states."""
    return head_of(without_decoder(loaded.model, loaded.layout))


def head_of(face: torch.nn.Module) -> Head:
    """The same of a face that `without_decoder` made."""

    def logits(hidden: torch.Tensor) -> torch.Tensor:
        return face(inputs_embeds=hidden[None], use_cache=False).logits[0]  # a batch of one sample

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


def summed_divergence(wanted: torch.Tensor, own: torch.Tensor) -> float:
    """Σ KL(wanted ‖ own) in nats over rows of log-probabilities [row, vocabulary]."""
    return float(wanted.exp().mul_(wanted - own).sum(dtype=torch.float64))


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
    face: torch.nn.Module,
    hidden: torch.Tensor,
    vocab_size: int,
    loss: Callable[[torch.Tensor, slice], torch.Tensor],
) -> torch.Tensor:
    """A loss that is a sum over rows, for training: its gradient reaches `hidden` and what is trained of `face`.

    `face` is one that `without_decoder` made; `loss(logits, block)` [row of the block, vocabulary] gives a scalar. The
    gradients are taken on the way forward, so that no block's logits are kept, or made again, for the way back.
    """
    trained = [parameter for parameter in _parameters(face) if parameter.requires_grad]
    return _SummedLoss.apply(head_of(face), vocab_size, loss, hidden, *trained)


def _parameters(face: torch.nn.Module) -> list[torch.Tensor]:
    """All of them, each once; the replicas of `torch.nn.DataParallel` keep theirs under another name."""
    found = [
        parameter
        for module in face.modules()
        for parameter in (*module._parameters.values(), *getattr(module, "_former_parameters", {}).values())
    ]
    return list({id(parameter): parameter for parameter in found if parameter is not None}.values())


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
