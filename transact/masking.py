"""The plan as a reversible mask: what would be cut is set to zero on its way into `o_proj` and `down_proj`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from transact.hooks import on_inputs
from transact.loading import LoadedModel
from transact.plan import PruningPlan


@contextmanager
def masked(loaded: LoadedModel, plan: PruningPlan) -> Iterator[LoadedModel]:
    """Let `loaded` compute what the pruned model would, without cutting; undone however the block ends.

    A removed head or channel feeds zeros to the projection that reads it, which is exactly its absence. Only
    forward passes of the calling thread are masked. Raises `InvalidPlan` for the plan of another model.
    """
    plan.check_fits(loaded.fingerprint)
    layout, head_dim = loaded.layout, loaded.spec.head_dim
    functions = []
    for layer, kept, shape in zip(loaded.decoder_layers, plan.layers, loaded.spec.layers, strict=True):
        heads = _removed(kept.kept_heads, shape.num_attention_heads).repeat_interleave(head_dim)
        channels = _removed(kept.kept_channels, shape.intermediate_size)
        for role, removed in ((layout.output, heads), (layout.down, channels)):
            if removed.any():
                functions.append((layer.get_submodule(role), _zeroing(removed.to(loaded.device))))
    with on_inputs(functions):
        yield loaded


def _removed(kept: tuple[int, ...], available: int) -> torch.Tensor:
    removed = torch.ones(available, dtype=torch.bool)
    removed[list(kept)] = False
    return removed


def _zeroing(removed: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda activations: activations.masked_fill(removed, 0)
