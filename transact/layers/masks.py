"""Functions that let one decoder layer compute as if heads, RoPE pairs or channels were removed, or the whole layer."""

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
    """For norms over all heads together: let them norm as if there were only the kept ones.

    A removed entry is set to the root of the kept ones' mean square, so that the mean square of all is that of the
    kept. Its value does not matter: the projection behind attention reads zeros in its place.
    """
    if not spec.own_head_norms or spec.layout.head_norms != "joint":
        return []
    functions = []
    for (path, heads), units in zip(spec.head_norm_sizes(shape), (kept.kept_heads, kept.kept_head_groups), strict=True):
        removed = _removed(units, heads).repeat_interleave(spec.head_dim)
        if removed.any():
            functions.append((layer.get_submodule(path), _of_kept(removed)))
    return functions


def pass_on(hidden: torch.Tensor, output: torch.Tensor | tuple) -> torch.Tensor | tuple:
    """For a layer that is removed: the residual stream as it came; what else the layer returns stays."""
    return hidden if isinstance(output, torch.Tensor) else (hidden, *output[1:])


def _of_kept(removed: torch.Tensor) -> InputFunction:
    mask_on_device = _device_mask(removed)

    def function(states: torch.Tensor) -> torch.Tensor:
        mask = mask_on_device(states)
        kept = states[..., ~mask]
        kept = kept if kept.dtype == torch.float64 else kept.float()
        size = kept.square().mean(dim=-1, keepdim=True).sqrt().to(states.dtype)
        return torch.where(mask, size, states)

    return function


def _removed(kept: tuple[int, ...], available: int) -> torch.Tensor:
    removed = torch.ones(available, dtype=torch.bool)
    removed[list(kept)] = False
    return removed


def set_to_zero(removed: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    mask_on_device = _device_mask(removed)
    return lambda activations: activations.masked_fill(mask_on_device(activations), 0)


def _device_mask(removed: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    """Returns the mask on the device of the activations, moved once: only a forward pass shows a layer's device."""
    held = [removed]

    def mask_on_device(activations: torch.Tensor) -> torch.Tensor:
        if held[0].device != activations.device:
            held[0] = removed.to(activations.device)
        return held[0]

    return mask_on_device
