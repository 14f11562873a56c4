"""Narrower projections from those of a layer: the rows and columns that a plan keeps."""

from dataclasses import dataclass

import torch

from transact.plan import LayerPlan
from transact.spec import ModelSpec

Site = str
"""Which transitional activation: "attention" or "mlp"."""


@dataclass(frozen=True, eq=False)
class Reading:
    """A projection that reads a transitional activation: `weight` [hidden, channel], `bias` [hidden] or None."""

    weight: torch.Tensor
    bias: torch.Tensor | None


def reading_role(spec: ModelSpec, site: Site) -> str:
    """The projection that reads the transitional activation."""
    return {"attention": spec.layout.output, "mlp": spec.layout.down}[site]


def kept_positions(kept: LayerPlan, spec: ModelSpec, site: Site, device: torch.device) -> torch.Tensor:
    """Channels of the transitional activation that stay, sorted: int64 [kept]."""
    if site == "attention":
        return _positions(kept.kept_heads, spec.head_dim, device)
    return _positions(kept.kept_channels, 1, device)


def writing_projections(
    layer: torch.nn.Module, kept: LayerPlan, spec: ModelSpec, site: Site
) -> dict[int, torch.nn.Linear]:
    """What writes the transitional activation, cut, under the identity of what it replaces."""
    layout = spec.layout
    device = next(layer.parameters()).device
    positions = kept_positions(kept, spec, site, device)
    if site == "attention":
        groups = _positions(kept.kept_head_groups, spec.head_dim, device)
        rows = {layout.query: positions, layout.key: groups, layout.value: groups}
    else:
        rows = {layout.gate: positions, layout.up: positions}
    new = {}
    for role, indices in rows.items():
        old = layer.get_submodule(role)
        bias = None if old.bias is None else old.bias[indices]
        new[id(old)] = linear(old, old.weight[indices], bias)
    return new


def reading_projection(old: torch.nn.Linear, new: Reading) -> dict[int, torch.nn.Linear]:
    """What reads the transitional activation, under the identity of the one that it replaces."""
    return {id(old): linear(old, new.weight, None if new.bias is None else new.bias.clone())}


def linear(old: torch.nn.Linear, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.nn.Linear:
    """`weight` [out, in] and `bias` [out] as a module that is to be trained if `old` was."""
    new = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    new.weight = torch.nn.Parameter(weight.contiguous(), requires_grad=old.weight.requires_grad)
    if bias is not None:
        new.bias = torch.nn.Parameter(bias.contiguous(), requires_grad=old.weight.requires_grad)
    return new


def _positions(units: tuple[int, ...], width: int, device: torch.device) -> torch.Tensor:
    """Rows or columns that the units fill: [unit] -> [unit · width]."""
    starts = torch.tensor(units, device=device) * width
    return (starts[:, None] + torch.arange(width, device=device)).flatten()
