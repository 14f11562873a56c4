"""The plan as smaller weights. The result is a stock `transformers` model with narrower projections."""

import copy
from dataclasses import replace

import torch

from transact.compensation import COMPENSATIONS, Refit, refit_for
from transact.errors import choice
from transact.loading import LoadedModel
from transact.observe import ActivationStatistics
from transact.plan import Cut, LayerPlan, PruningPlan
from transact.spec import ModelSpec


def prune(
    loaded: LoadedModel,
    plan: PruningPlan,
    *,
    compensation: str = "none",
    statistics: ActivationStatistics | None = None,
) -> LoadedModel:
    """Cut the plan into a copy of the model; `loaded` is untouched and shares no weight with the result.

    Removing a head group removes its rows of the query, key and value projections (and biases) and its
    columns of the output projection; removing a channel removes its rows of gate and up and its column of
    down. `compensation="least_squares"` refits what stays of the two reading projections, from `statistics`
    observed with `gram=True`. Raises `InvalidPlan` for the plan or statistics of another model,
    `InvalidOption` for an unknown compensation or statistics that it cannot work from.
    """
    choice(compensation, COMPENSATIONS, "compensation")
    plan.check_fits(loaded.fingerprint)
    refit = refit_for(compensation, loaded, statistics)
    # deepcopy asks its memo first: a projection found there is taken as it is, so that the full-size
    # weights are never copied, and everything else (norms, embeddings, ties, buffers) is
    memo: dict[int, object] = {}
    with torch.no_grad():
        for index, (layer, kept) in enumerate(zip(loaded.decoder_layers, plan.layers, strict=True)):
            memo.update(_sliced_projections(layer, kept, loaded.spec, index, refit))
        model = copy.deepcopy(loaded.model, memo)
    _write_sizes(model, plan.spec)
    return replace(loaded, model=model.eval(), spec=plan.spec, cuts=(*loaded.cuts, Cut(plan, compensation)))


def _sliced_projections(
    layer: torch.nn.Module, kept: LayerPlan, spec: ModelSpec, index: int, refit: Refit
) -> dict[int, torch.nn.Linear]:
    """New projections of one layer, under the identity of those that they replace."""
    layout = spec.layout
    device = next(layer.parameters()).device
    groups = _positions(kept.kept_head_groups, spec.head_dim, device)
    heads = _positions(kept.kept_heads, spec.head_dim, device)
    channels = _positions(kept.kept_channels, 1, device)
    new = {}
    for roles, indices in (
        ((layout.query,), heads),
        ((layout.key, layout.value), groups),
        ((layout.gate, layout.up), channels),
    ):
        for role in roles:
            old = layer.get_submodule(role)
            bias = None if old.bias is None else old.bias[indices]
            new[id(old)] = _linear(old, old.weight[indices], bias)
    for site, role, indices in (("attention", layout.output, heads), ("mlp", layout.down, channels)):
        old = layer.get_submodule(role)
        bias = None if old.bias is None else old.bias.clone()
        new[id(old)] = _linear(old, refit(site, index, old.weight, indices), bias)
    return new


def _positions(units: tuple[int, ...], width: int, device: torch.device) -> torch.Tensor:
    """Rows or columns that the units fill: [unit] -> [unit · width]."""
    starts = torch.tensor(units, device=device) * width
    return (starts[:, None] + torch.arange(width, device=device)).flatten()


def _linear(old: torch.nn.Linear, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.nn.Linear:
    new = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    new.weight = torch.nn.Parameter(weight.contiguous(), requires_grad=old.weight.requires_grad)
    if bias is not None:
        new.bias = torch.nn.Parameter(bias, requires_grad=old.bias.requires_grad)
    return new


def _write_sizes(model: torch.nn.Module, spec: ModelSpec) -> None:
    """Let the configuration say what is there; for layers of different sizes it names the widest.

    The modules read these numbers at construction only, so a head count that the configuration class would
    refuse in a file does no harm in memory.
    """
    widest = spec.widest.layers[0]
    model.config.head_dim = spec.head_dim
    model.config.num_attention_heads = widest.num_attention_heads
    model.config.num_key_value_heads = widest.num_key_value_heads
    model.config.intermediate_size = widest.intermediate_size
    layout = spec.layout
    layers = model.get_submodule(layout.layers)
    for layer, shape in zip(layers, spec.layers, strict=True):
        mlp = layer.get_submodule(layout.down.rpartition(".")[0])
        mlp.intermediate_size = shape.intermediate_size
