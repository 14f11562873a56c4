"""Functions that let one decoder layer compute as if heads, RoPE pairs or channels were gone."""

from collections.abc import Callable

import torch

from transact.layers.hooks import CallFunction, InputFunction
from transact.layers.slicing import kept_rows
from transact.spec.layer_plan import LayerPlan
from transact.spec.model_spec import LayerShape, ModelSpec


def removed_pairs(
    layer: torch.nn.Module, kept: LayerPlan, shape: LayerShape, spec: ModelSpec
) -> list[tuple[torch.nn.Module, CallFunction]]:
    """Zeros for the RoPE pairs that queries lose: without theirs, those of the keys add nothing to a logit."""
    if not kept.kept_pairs:
        return []
    query = layer.get_submodule(spec.layout.query)
    removed = torch.ones(shape.num_attention_heads * spec.query_key_dim, dtype=torch.bool)
    removed[kept_rows(spec, shape, kept, "attention")[spec.layout.query]] = False
    zeroing = set_to_zero(removed)
    return [(query, lambda _, output: zeroing(output))]


def joint_norms(
    layer: torch.nn.Module, kept: LayerPlan, shape: LayerShape, spec: ModelSpec
) -> list[tuple[torch.nn.Module, InputFunction]]:
    """For norms that go over all heads together: let them norm as if there were only the kept ones.

    A removed entry takes the root of the kept ones' mean square, which leaves the mean square of all at that of the
    kept. What it holds plays no part: the projection behind attention reads zeros in its place.
    """
    if not spec.own_head_norms or spec.layout.head_norms != "joint":
        return []
    functions = []
    for (path, heads), units in zip(spec.head_norm_sizes(shape), (kept.kept_heads, kept.kept_head_groups), strict=True):
        removed = _removed(units, heads).repeat_interleave(spec.head_dim)
        if removed.any():
            functions.append((layer.get_submodule(path), _of_kept(removed)))
    return functions


def _of_kept(removed: torch.Tensor) -> InputFunction:
    here = _beside(removed)

    def function(states: torch.Tensor) -> torch.Tensor:
        gone = here(states)
        kept = states[..., ~gone]
        kept = kept if kept.dtype == torch.float64 else kept.float()
        size = kept.square().mean(dim=-1, keepdim=True).sqrt().to(states.dtype)
        return torch.where(gone, size, states)

    return function


def _removed(kept: tuple[int, ...], available: int) -> torch.Tensor:
    removed = torch.ones(available, dtype=torch.bool)
    removed[list(kept)] = False
    return removed


def set_to_zero(removed: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    here = _beside(removed)
    return lambda activations: activations.masked_fill(here(activations), 0)


def _beside(removed: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """The mask on the device of what it is for, moved there once: only a forward pass tells where a layer computes."""
    held = [removed]

    def here(activations: torch.Tensor) -> torch.Tensor:
        if held[0].device != activations.device:
            held[0] = removed.to(activations.device)
        return held[0]

    return here
