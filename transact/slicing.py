"""Narrower projections from those of a layer: the rows and columns that a plan keeps.

Where several roles are packed in one module, each of them has rows of its own there; kept rows stay in their order,
so that the smaller module is packed as the larger one was.
"""

import copy
from dataclasses import dataclass

import torch

from transact.layer_plan import LayerPlan
from transact.matrices import linear, matrix
from transact.spec import LayerShape, ModelSpec

Site = str
"""Which transitional activation: "attention" or "mlp"."""


@dataclass(frozen=True, eq=False)
class Reading:
    """A projection that reads a transitional activation: `weight` [hidden, channel], `bias` [hidden] or None."""

    weight: torch.Tensor
    bias: torch.Tensor | None


@dataclass(frozen=True, eq=False)
class Rows:
    """Where one role ("query", "key", "value", "gate", "up") writes in its module: `rows` int64 [unit · width]."""

    module: str
    role: str
    rows: torch.Tensor


def reading_role(spec: ModelSpec, site: Site) -> str:
    """The projection that reads the transitional activation."""
    return {"attention": spec.layout.output, "mlp": spec.layout.down}[site]


def kept_positions(kept: LayerPlan, spec: ModelSpec, site: Site, device: torch.device) -> torch.Tensor:
    """Channels of the transitional activation that stay, sorted: int64 [kept]."""
    if site == "attention":
        return positions(kept.kept_heads, spec.head_dim, device)
    return positions(kept.kept_channels, 1, device)


def written_rows(spec: ModelSpec, shape: LayerShape, site: Site) -> list[Rows]:
    """Where the roles that write the transitional activation stand, in the order in which they are packed."""
    layout = spec.layout
    if site == "mlp":
        return _stacked([(layout.gate, "gate", shape.intermediate_size), (layout.up, "up", shape.intermediate_size)])
    query, key = shape.num_attention_heads * spec.head_dim, shape.num_key_value_heads * spec.head_dim
    if layout.packed_by_head:
        # [head, role, head_dim]
        rows = torch.arange(3 * query).view(shape.num_attention_heads, 3, spec.head_dim)
        return [
            Rows(layout.query, role, rows[:, place].flatten()) for place, role in enumerate(("query", "key", "value"))
        ]
    return _stacked([(layout.query, "query", query), (layout.key, "key", key), (layout.value, "value", key)])


def kept_rows(spec: ModelSpec, shape: LayerShape, kept: LayerPlan, site: Site) -> dict[str, torch.Tensor]:
    """Per module the rows that stay, sorted: int64 [kept]."""
    found: dict[str, list[torch.Tensor]] = {}
    for written in written_rows(spec, shape, site):
        found.setdefault(written.module, []).append(written.rows[_kept_of(written.role, kept, spec)])
    return {module: torch.cat(rows).sort().values for module, rows in found.items()}


def writing_projections(
    layer: torch.nn.Module, shape: LayerShape, kept: LayerPlan, spec: ModelSpec, site: Site
) -> dict[int, torch.nn.Module]:
    """What writes the transitional activation, cut, under the identity of what it replaces; norms of heads too."""
    new: dict[int, torch.nn.Module] = {}
    for path, rows in kept_rows(spec, shape, kept, site).items():
        old = layer.get_submodule(path)
        weight = matrix(old)
        rows = rows.to(weight.device)
        new[id(old)] = linear(old, weight[rows], None if old.bias is None else old.bias[rows])
    if site == "attention":
        units = (kept.kept_heads, kept.kept_head_groups)
        for (path, _), heads in zip(spec.head_norm_sizes(shape), units, strict=False):
            old = layer.get_submodule(path)
            new[id(old)] = _joint_norm(old, heads, spec) if spec.layout.head_norms == "joint" else _norms(old, heads)
    return new


def reading_projection(old: torch.nn.Module, new: Reading) -> dict[int, torch.nn.Module]:
    """What reads the transitional activation, under the identity of the one that it replaces."""
    return {id(old): linear(old, new.weight, None if new.bias is None else new.bias.clone())}


def _stacked(roles: list[tuple[str | None, str, int]]) -> list[Rows]:
    found, used = [], {}
    for module, role, size in roles:
        if module is not None:
            start = used.get(module, 0)
            found.append(Rows(module, role, torch.arange(start, start + size)))
            used[module] = start + size
    return found


def _kept_of(role: str, kept: LayerPlan, spec: ModelSpec) -> torch.Tensor:
    units = {"query": kept.kept_heads, "key": kept.kept_head_groups, "value": kept.kept_head_groups}
    if role in units:
        return positions(units[role], spec.head_dim)
    return positions(kept.kept_channels, 1)


def _joint_norm(old: torch.nn.Module, heads: tuple[int, ...], spec: ModelSpec) -> torch.nn.Module:
    new = copy.deepcopy(old)
    rows = positions(heads, spec.head_dim, old.weight.device)
    new.weight = torch.nn.Parameter(old.weight[rows], requires_grad=old.weight.requires_grad)
    return new


def _norms(old: torch.nn.Module, heads: tuple[int, ...]) -> torch.nn.Module:
    new = copy.deepcopy(old)
    new.norms = torch.nn.ModuleList(new.norms[head] for head in heads)
    new.num_heads = len(heads)
    return new


def positions(units: tuple[int, ...], width: int, device: torch.device | None = None) -> torch.Tensor:
    """Rows or columns that the units fill: [unit] -> [unit · width]."""
    starts = torch.tensor(units, device=device, dtype=torch.int64) * width
    return (starts[:, None] + torch.arange(width, device=device)).flatten()
