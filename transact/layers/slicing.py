"""Narrower projections from those of a layer: the rows and columns that a plan keeps.

Where several roles are packed in one module, each of them has rows of its own there; kept rows stay in their order,
so that the smaller module is packed as the larger one was.
"""

from dataclasses import dataclass

import torch

from transact.layers.hooks import copy_without_hooks
from transact.layers.narrow_attention import narrow_attention
from transact.layers.weights import linear, matrix
from transact.spec.layer_plan import LayerPlan
from transact.spec.model_spec import SITES, LayerShape, ModelSpec

Site = str
"""Which transitional activation: "attention" or "mlp"."""


@dataclass(frozen=True, eq=False)
class NewProjection:
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


def kept_input_indices(
    kept: LayerPlan, spec: ModelSpec, site: Site, device: torch.device | None = None
) -> torch.Tensor:
    """Channels of the transitional activation that stay, sorted: int64 [kept]."""
    if site == "attention":
        return positions(kept.kept_heads, spec.value_dim, kept.of_each_head(kept.kept_value_channels), device)
    return positions(kept.kept_channels, 1, device=device)


def written_rows(spec: ModelSpec, shape: LayerShape, site: Site) -> list[Rows]:
    """The rows of the roles that write the transitional activation, in the order in which they are packed."""
    layout = spec.layout
    if site == "mlp":
        return _stacked([(layout.gate, "gate", shape.intermediate_size), (layout.up, "up", shape.intermediate_size)])
    query, key, value = (
        shape.num_attention_heads * spec.query_key_dim,
        shape.num_key_value_heads * spec.query_key_dim,
        shape.num_key_value_heads * spec.value_dim,
    )
    if layout.packed_by_head:
        # [head, role, head_dim]
        rows = torch.arange(3 * query).view(shape.num_attention_heads, 3, spec.head_dim)
        return [
            Rows(layout.query, role, rows[:, place].flatten()) for place, role in enumerate(("query", "key", "value"))
        ]
    return _stacked([(layout.query, "query", query), (layout.key, "key", key), (layout.value, "value", value)])


def kept_rows(spec: ModelSpec, shape: LayerShape, kept: LayerPlan, site: Site) -> dict[str, torch.Tensor]:
    """Per module the rows that stay, sorted: int64 [kept]."""
    result: dict[str, list[torch.Tensor]] = {}
    for written in written_rows(spec, shape, site):
        result.setdefault(written.module, []).append(written.rows[_kept_of(written.role, kept, spec)])
    return {module: torch.cat(rows).sort().values for module, rows in result.items()}


def writing_projections(
    layer: torch.nn.Module, shape: LayerShape, kept: LayerPlan, spec: ModelSpec, site: Site
) -> dict[int, torch.nn.Module]:
    """The cut modules that write the transitional activation, by the `id` of those they replace; norms of heads too."""
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
            new[id(old)] = _norms(old, heads) if spec.layout.head_norms == "each" else _norm(old, heads, spec)
    return new


def reading_projection(old: torch.nn.Module, new: NewProjection) -> dict[int, torch.nn.Module]:
    """The projection that reads the transitional activation, by the `id` of the one it replaces."""
    return {id(old): linear(old, new.weight, None if new.bias is None else new.bias.clone())}


def shrink(layer: torch.nn.Module, large: LayerShape, small: LayerShape, before: ModelSpec, after: ModelSpec) -> None:
    """Make a layer's modules as small as in a layer of `after`; their values are loaded later."""
    layout = before.layout
    kept = LayerPlan.first(small, large)
    if after.has_narrow_heads:
        kept = kept.with_heads((tuple(range(after.query_key_dim // 2)),) * small.num_key_value_heads, after.value_dim)
    paths = {id(module): path for path, module in layer.named_modules()}
    new: dict[int, torch.nn.Module] = {}
    for site in SITES:
        new |= writing_projections(layer, large, kept, before, site)
    for path, width in ((layout.output, after.attention_width(small)), (layout.down, small.intermediate_size)):
        old = layer.get_submodule(path)
        new[id(old)] = linear(old, matrix(old)[:, :width], old.bias)
    for identity, module in new.items():
        layer.set_submodule(paths[identity], module)
    if after.has_narrow_heads:
        narrow_attention(layer, kept, layout)


def _stacked(roles: list[tuple[str | None, str, int]]) -> list[Rows]:
    result = []
    used: dict[str, int] = {}
    for module, role, size in roles:
        if module is not None:
            start = used.get(module, 0)
            result.append(Rows(module, role, torch.arange(start, start + size)))
            used[module] = start + size
    return result


def _kept_of(role: str, kept: LayerPlan, spec: ModelSpec) -> torch.Tensor:
    if role == "value":
        return positions(kept.kept_head_groups, spec.value_dim, kept.kept_value_channels)
    if role in ("query", "key"):
        half = spec.query_key_dim // 2
        pair_channels = tuple((*pairs, *(pair + half for pair in pairs)) for pairs in kept.kept_pairs)
        if role == "key":
            return positions(kept.kept_head_groups, spec.query_key_dim, pair_channels)
        return positions(kept.kept_heads, spec.query_key_dim, kept.of_each_head(pair_channels))
    return positions(kept.kept_channels, 1)


def _norm(old: torch.nn.Module, heads: tuple[int, ...], spec: ModelSpec) -> torch.nn.Module:
    new = copy_without_hooks(old)
    rows = norm_rows(heads, spec).to(old.weight.device)
    new.weight = torch.nn.Parameter(old.weight[rows], requires_grad=old.weight.requires_grad)
    return new


def _norms(old: torch.nn.Module, heads: tuple[int, ...]) -> torch.nn.Module:
    new = copy_without_hooks(old)
    new.norms = torch.nn.ModuleList(new.norms[head] for head in heads)
    new.num_heads = len(heads)
    return new


def norm_rows(heads: tuple[int, ...], spec: ModelSpec) -> torch.Tensor:
    """Where in the one weight of a norm these heads have theirs."""
    return positions(heads, 1 if spec.layout.head_norms == "stacked" else spec.head_dim)


def positions(
    units: tuple[int, ...],
    width: int,
    inside: tuple[tuple[int, ...], ...] = (),
    device: torch.device | None = None,
) -> torch.Tensor:
    """Rows or columns that the units fill, all `width` of each or those that `inside` names for it.

    [unit] -> [unit · width] or, with `inside` [unit, kept], [unit · kept].
    """
    starts = torch.tensor(units, device=device, dtype=torch.int64) * width
    within = torch.tensor(inside, device=device) if inside else torch.arange(width, device=device)
    return (starts[:, None] + within).flatten()
