"""The plan as smaller weights.

The result is a stock `transformers` model with narrower projections, and where heads were cut inside with attention of
our own (`transact.layers.narrow_attention`).
"""

from collections.abc import Callable
from dataclasses import replace

import torch

from transact.errors import choice
from transact.layers.config_sizes import update_config
from transact.layers.hooks import copy_without_hooks, hooks_suspended
from transact.layers.layer_removal import keep_layers
from transact.layers.narrow_attention import narrow_attention
from transact.layers.slicing import (
    NewProjection,
    kept_input_indices,
    reading_projection,
    reading_role,
    writing_projections,
)
from transact.layers.weights import origin, with_tensors
from transact.models.loaded_model import LoadedModel
from transact.models.stock_config import check_writable
from transact.observing.statistics import ActivationStatistics
from transact.progress import NO_PROGRESS, Progress
from transact.repair.bias import needs_bias
from transact.repair.refit_base import plain_refit
from transact.repair.repairs import COMPENSATIONS, REPAIRS, Repair
from transact.spec.kept_layers import only_layers
from transact.spec.layer_plan import LayerPlan
from transact.spec.model_spec import SITES, ModelSpec
from transact.spec.plan import Cut, PruningPlan

RefitFunction = Callable[[str, int, torch.nn.Linear, torch.Tensor], NewProjection]
"""As `transact.repair.refit.Refit` is called."""


@hooks_suspended()
def prune(
    loaded: LoadedModel,
    plan: PruningPlan,
    *,
    compensation: str = "none",
    statistics: ActivationStatistics | None = None,
    progress: Progress = NO_PROGRESS,
) -> LoadedModel:
    """Cut the plan into a copy of the model; `loaded` is untouched and shares no weight with the result.

    Removing a head group removes its rows of the query, key and value projections (and biases) and its columns of
    the output projection, removing a head those of the query and output projections; removing a channel removes its
    rows of gate and up and its column of down; removing dimensions inside heads removes pairs of rows of query and key,
    and rows of value with their columns of the output projection. The layers that the plan does not keep are left out.
    `compensation` makes up for it, without training (see `transact.repair`):

    - `"bias"`: from `statistics`; where the stock class has an output bias or, as Llama, can be configured to have one.
    - `"least_squares"`: from `statistics` observed with `gram=True`, or `gram="by_layer"` where the Gram matrices of
      all layers would not fit; that one runs the model on the calibration tokens once more.
    - `"best"`: runs the model on the calibration tokens that `statistics` keep in memory.

    `progress` is called where anything is solved, and may raise `Cancelled`.

    Inside `masked` too the unmasked model is run and cut.

    Raises `InvalidPlan` for the plan or statistics of another model and for sizes that no configuration of the family
    can hold (see `save`), `InvalidOption` for an unknown compensation,
    one that the model cannot hold, or statistics that it cannot work from; where it runs the model, also
    `NotEnoughMemory` and `NonFiniteActivations`.
    """
    choice(compensation, COMPENSATIONS, "compensation")
    plan.check_fits(loaded.fingerprint)
    check_writable(loaded, plan.spec, plan.kept_layers)
    repair = REPAIRS[compensation]
    repair.check(loaded, statistics)
    if repair.refit is not None:
        return cut(loaded, plan, repair, repair.refit(loaded, statistics, progress))
    assert repair.whole_model is not None, "a repair has refit or whole_model"
    repaired = repair.whole_model(loaded, plan, statistics, progress)
    pruned = _assembled(loaded, repaired.projections, plan.spec, Cut(plan, compensation))
    repaired.finish(pruned)
    return pruned


def cut(loaded: LoadedModel, plan: PruningPlan, repair: Repair, refit_one: RefitFunction) -> LoadedModel:
    """The plan cut into a copy of the model, with what reads the activations refitted by `refit_one`.

    Raises `InvalidOption` where the model cannot hold the repair.
    """
    spec = plan.spec
    if repair.adds_bias:
        attention, mlp = needs_bias(plan, loaded.layout)
        spec = _with_biases(spec, attention, mlp)
    new: dict[int, torch.nn.Module] = {}
    for index, kept in plan.kept_layer_plans.items():
        new |= cut_projections(loaded.spec, loaded.decoder_layers[index], index, kept, refit_one)
    return _assembled(loaded, new, spec, Cut(plan, repair.name))


@torch.no_grad()
def cut_projections(
    spec: ModelSpec, layer: torch.nn.Module, index: int, kept: LayerPlan, refit_one: RefitFunction
) -> dict[int, torch.nn.Module]:
    """The smaller projections of one layer of a model of `spec`, by the `id` of those that they replace."""
    new: dict[int, torch.nn.Module] = {}
    for site in SITES:
        old = layer.get_submodule(reading_role(spec, site))
        positions = kept_input_indices(kept, spec, site, old.weight.device)
        new |= writing_projections(layer, spec.layers[index], kept, spec, site)
        new |= reading_projection(old, refit_one(site, index, old, positions))
    return new


@torch.no_grad()
def cut_layer(
    spec: ModelSpec, layer: torch.nn.Module, index: int, kept: LayerPlan, refit_one: RefitFunction, after: ModelSpec
) -> torch.nn.Module:
    """One layer as `cut` would leave it in a model of the shape `after`."""
    smaller = copy_without_hooks(layer, dict(cut_projections(spec, layer, index, kept, refit_one)))
    _add_biases_to(smaller, after)
    return smaller


def _assembled(loaded: LoadedModel, new: dict[int, torch.nn.Module], spec: ModelSpec, cut: Cut) -> LoadedModel:
    """A copy of the model with the `new` projections by the `id` of those that they replace."""
    plan = cut.plan
    # copying takes a new projection from the memo as it is, so that no full-size projection is copied, and nothing of
    # a layer that goes; it copies everything else (norms, embeddings, ties, buffers)
    removed = {id(loaded.decoder_layers[index]): torch.nn.Identity() for index in plan.removed_layers}
    with torch.no_grad():
        model = copy_without_hooks(loaded.model, new | removed)
        keep_layers(model, spec.layout, plan.kept_layers)
        update_config(model, spec)
        if spec.has_narrow_heads:
            layers = model.get_submodule(spec.layout.layers)
            for layer, kept in zip(layers, plan.kept_layer_plans.values(), strict=True):
                narrow_attention(layer, kept, spec.layout)
        _add_zero_biases(model, spec)
    spec = spec.configured_as(only_layers(loaded.spec, plan.kept_layers))
    exceptions = _cut_exceptions(loaded, plan, spec)
    return replace(loaded, model=model.eval(), spec=spec, cuts=(*loaded.cuts, cut), stored_exceptions=exceptions)


def _cut_exceptions(loaded: LoadedModel, plan: PruningPlan, spec: ModelSpec) -> dict[str, torch.Tensor]:
    """What the files hold in another dtype than memory, cut as memory is."""
    layers, dense = loaded.layout.layers, loaded.stored_exceptions
    cut = {name: tensor for name, tensor in dense.items() if not name.startswith(f"{layers}.")}
    for number, (index, kept) in enumerate(plan.kept_layer_plans.items()):
        prefix = f"{layers}.{index}."
        of_layer = {name.removeprefix(prefix): each for name, each in dense.items() if name.startswith(prefix)}
        smaller = cut_exceptions(loaded.spec, loaded.decoder_layers[index], index, kept, spec, of_layer)
        cut |= {f"{layers}.{number}.{name}": tensor for name, tensor in smaller.items()}
    return cut


def cut_exceptions(
    spec: ModelSpec,
    layer: torch.nn.Module,
    index: int,
    kept: LayerPlan,
    after: ModelSpec,
    exceptions: dict[str, torch.Tensor],
) -> dict[str, torch.Tensor]:
    """Tensors `exceptions` of a layer, in dtypes of their own, as `cut` would leave them without a repair."""
    if not exceptions:
        return {}
    whole = with_tensors(layer, exceptions)
    smaller = cut_layer(spec, whole, index, kept, plain_refit, after).state_dict()
    origins = {origin(name, spec.layout) for name in exceptions}
    return {name: tensor for name, tensor in smaller.items() if origin(name, spec.layout) in origins}


def _with_biases(spec: ModelSpec, attention: bool, mlp: bool) -> ModelSpec:
    """The spec with the biases that the configuration switches on together with those behind attention and MLP."""
    family = spec.layout
    keys = {key for needed, key in ((attention, family.output_bias), (mlp, family.mlp_bias)) if needed}

    def has(flag: bool, key: str | bool) -> bool:
        return flag or (isinstance(key, str) and key in keys)

    return replace(
        spec,
        qkv_bias=has(spec.qkv_bias, family.qkv_bias),
        output_bias=has(spec.output_bias, family.output_bias),
        mlp_bias=has(spec.mlp_bias, family.mlp_bias),
    )


def _add_zero_biases(model: torch.nn.Module, spec: ModelSpec) -> None:
    """Add a bias of zeros where the spec has one and a projection does not, and set it in the configuration."""
    for key, _ in _biased(spec):
        if isinstance(key, str):
            setattr(model.config, key, True)
    for layer in model.get_submodule(spec.layout.layers):
        _add_biases_to(layer, spec)


def _add_biases_to(layer: torch.nn.Module, spec: ModelSpec) -> None:
    for _, roles in _biased(spec):
        for role in roles:
            projection = layer.get_submodule(role)
            if projection.bias is None:
                weight = projection.weight
                projection.bias = torch.nn.Parameter(weight.new_zeros(len(weight)), weight.requires_grad)


def _biased(spec: ModelSpec) -> list[tuple[bool | str, tuple[str, ...]]]:
    """The configuration's switches of those biases that the spec has, each with its projections."""
    layout = spec.layout
    all_of_them = (
        (spec.qkv_bias, layout.qkv_bias, (layout.query, layout.key, layout.value)),
        (spec.output_bias, layout.output_bias, (layout.output,)),
        (spec.mlp_bias, layout.mlp_bias, (layout.gate or layout.up, layout.up, layout.down)),
    )
    return [(key, roles) for present, key, roles in all_of_them if present]
