"""Zeros around smaller projections, so that a stock configuration can name their size and nothing else changes.

A head whose queries, keys and values are zero attends evenly to zeros, and its columns of the output projection are
zero as well; a RoPE pair of zeros adds nothing to a logit; a channel of zeros activates to what a zero column reads.
Norms that go over all heads together (OLMo 2) would divide by the larger number: with k of n entries real, x is scaled
by sqrt(n / k) before the norm and its weight by sqrt(k / n), and x · w / rms(x) is what it was.
"""

import torch

from transact.layers.slicing import kept_input_indices, kept_rows, norm_rows, reading_role
from transact.layers.weights import matrix
from transact.spec.layer_plan import LayerPlan
from transact.spec.model_spec import SITES, LayerShape, ModelSpec


def is_padded(now: ModelSpec, spec: ModelSpec, index: int) -> bool:
    """Whether that layer of `now` is smaller than it is in `spec`."""
    return now.layers[index] != spec.layers[index] or (now.has_narrow_heads and not spec.has_narrow_heads)


def padded_layer(
    layer: torch.nn.Module, small: LayerShape, large: LayerShape, now: ModelSpec, spec: ModelSpec
) -> dict[str, torch.Tensor]:
    """The tensors of a layer of `now` that are larger in `spec`, padded to that size, by their names in the layer."""
    layout = spec.layout
    first = LayerPlan.first(small, large)
    if now.has_narrow_heads and not spec.has_narrow_heads:  # pairs return to the places of their own angles
        pairs = layer.get_submodule(layout.attention).pairs.tolist()
        first = first.with_heads(tuple(map(tuple, pairs)), now.value_dim)
    device = layer.get_submodule(layout.output).weight.device
    scales = _norm_scales(small, large, spec)
    sizes = {path: rows for path, rows, _, _ in spec.projection_sizes(large)}
    tensors: dict[str, torch.Tensor] = {}

    def put(path: str, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        tensors[f"{path}.weight"] = weight.T.contiguous() if layout.transposed else weight
        if bias is not None:
            tensors[f"{path}.bias"] = bias

    for site in SITES:
        for path, rows in kept_rows(spec, large, first, site).items():
            old = layer.get_submodule(path)
            size = sizes[path]
            scale = scales.get(path, 1.0)
            put(path, _spread(matrix(old), rows, size, scale), _spread(old.bias, rows, size, scale))
    widths = (spec.attention_width(large), large.intermediate_size)
    for site, width in zip(SITES, widths, strict=True):
        path = reading_role(spec, site)
        old = layer.get_submodule(path)
        weight = matrix(old)
        whole = weight.new_zeros(len(weight), width)
        whole[:, kept_input_indices(first, spec, site, device)] = weight.detach()
        put(path, whole, old.bias)
    units = (first.kept_heads, first.kept_head_groups)
    for (path, heads), kept in zip(spec.head_norm_sizes(large), units, strict=False):
        norm = layer.get_submodule(path)
        if layout.head_norms == "each":
            placed = dict(zip(kept, norm.norms, strict=True))
            for head in range(heads):
                own = placed[head].weight if head in placed else torch.ones_like(norm.norms[0].weight)
                tensors[f"{path}.norms.{head}.weight"] = own.detach()
        else:
            size = heads if layout.head_norms == "stacked" else heads * spec.head_dim
            tensors[f"{path}.weight"] = _spread(norm.weight, norm_rows(kept, spec), size, 1 / scales.get(path, 1.0))
    return tensors


def _norm_scales(small: LayerShape, large: LayerShape, spec: ModelSpec) -> dict[str, float]:
    """sqrt(n / k) for projections whose outputs are normed over all heads together, and for those norms."""
    if not spec.own_head_norms or spec.layout.head_norms != "joint":
        return {}
    layout = spec.layout
    scales = {}
    for projection, (path, now), (_, then) in zip(
        (layout.query, layout.key), spec.head_norm_sizes(small), spec.head_norm_sizes(large), strict=True
    ):
        scales[projection] = scales[path] = (then / now) ** 0.5
    return scales


def _spread(tensor: torch.Tensor | None, rows: torch.Tensor, size: int, scale: float) -> torch.Tensor | None:
    """`tensor` in those rows of `size` rows of zeros, times `scale`."""
    if tensor is None:
        return None
    tensor = tensor.detach()
    whole = tensor.new_zeros(size, *tensor.shape[1:])
    whole[rows.to(tensor.device)] = tensor if scale == 1 else (tensor.double() * scale).to(tensor.dtype)
    return whole
