"""Published ways to prune without training, each from its formula, and ours, as `benchmarks.real_model` compares them.

- TransAct (Shen et al. 2024, arXiv 2407.05690), Wanda-sp (Sun et al. 2023, arXiv 2306.11695; structured as in An et
  al. 2023) and LLM-Pruner's Taylor score (Ma et al. 2023, arXiv 2305.11627): scores alone, nothing is refitted. See
  `transact.scoring.metrics`.
- FLAP as published (An et al. 2023, arXiv 2312.11983): its own allocation AL-AM and the bias.
- TransAct + least squares: the refit of `transact.repair.least_squares`, with three ridges.
- GRAIL (Tang et al. 2026, arXiv 2602.23795): of FLAP's metric, as it takes any; see `ReconstructionRefit`.
- OBS: channels and head groups by optimal brain surgery with exact refit, as OSSCAR (Meng et al. 2024, arXiv
  2403.12983) and ZipLM (Kurtic et al. 2023, arXiv 2302.04089) do; see `obs`.
- SlimGPT (Ling et al. 2024, arXiv 2412.18110): the same with its schedule of ratios; see `slim_channels`.
- ShortGPT (Men et al. 2024, arXiv 2403.03853): whole layers; see `short_gpt`.

Left out: Týr-the-Pruner (arXiv 2503.09657), an evolutionary search over many pruned candidates of every layer, which
takes hours on a GPU, so that it is no peer in time.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType

import torch

import transact as ta
from transact.cutting.prune import cut
from transact.layers.slicing import NewProjection
from transact.layers.weights import matrix
from transact.progress import NO_PROGRESS, Check
from transact.repair import ridge, sequential
from transact.repair.refit_base import Refit
from transact.repair.repairs import REPAIRS
from transact.repair.ridge import NormalEquations
from transact.spec.layer_plan import LayerPlan
from transact.spec.model_spec import ModelSpec
from transact.spec.plan import PruningPlan

BATCH = 8
RIDGES = (0.001, 0.01, 0.1)
"""Shares of the Gram matrix's mean diagonal; the best on the text that is measured counts, to the peer's advantage."""
FIRST_OF_LAST = 0.2
"""SlimGPT's ratio of the first layer as a share of the last one's: 0.06 of 0.3, the defaults of its released code."""


@dataclass(frozen=True, eq=False)
class Request:
    """A model with finished statistics (they hold the calibration tokens) and the size it is to have.

    `target`: the same counts in every layer. `parameters`: the most in all, which `target` fills to less than one
    channel a layer. `removed`: the share of the prunable parameters that is to go.
    """

    loaded: ta.LoadedModel
    statistics: ta.ActivationStatistics
    target: ta.PruningTarget
    parameters: int
    removed: float


@dataclass(frozen=True)
class Method:
    """One way to prune. `key` names it on the command line and in the record.

    - `version`: kept by hand; change it when the method gives other models, and its cells are measured again.
    - `family`: what the table calls it; of several methods of one family, `variant` tells them apart, and the best
      at each size counts. `role`: "scores" (no refit), "refits" or "ours".
    - `splits`: it takes the request's split between head groups and channels as it is.
    - `gradients`: it works from statistics observed with `taylor=True`; all others get Gram matrices.
    """

    key: str
    family: str
    make: Callable[[Request], ta.LoadedModel]
    role: str = "scores"
    variant: str = ""
    version: str = "1"
    splits: bool = True
    gradients: bool = False


@contextmanager
def constants(module: ModuleType, **values: object) -> Iterator[None]:
    """Names of a module that hold other values within the block: what is fixed in the library and varied here."""
    before = {name: getattr(module, name) for name in values}
    try:
        for name, value in values.items():
            setattr(module, name, value)
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


def plan_by(request: Request, metric: str, allocation: str = "uniform") -> PruningPlan:
    scores = ta.score(request.loaded, request.statistics, metric=metric)
    return ta.make_plan(scores, request.loaded.spec, request.target, allocation=allocation)


def by_metric(
    metric: str, *, compensation: str = "none", allocation: str = "uniform"
) -> Callable[[Request], ta.LoadedModel]:
    def make(request: Request) -> ta.LoadedModel:
        plan = plan_by(request, metric, allocation)
        return ta.prune(request.loaded, plan, compensation=compensation, statistics=request.statistics)

    return make


def least_squares(share: float) -> Callable[[Request], ta.LoadedModel]:
    def make(request: Request) -> ta.LoadedModel:
        with constants(ridge, RIDGE=share):
            return by_metric("transact", compensation="least_squares")(request)

    return make


class ReconstructionRefit(Refit):
    """GRAIL's compensation: a linear map that reconstructs the whole activation from what is left of it.

    B = argmin ‖X − X_S B^T‖² + λ‖B‖² = G[:, S] (G[S, S] + λ I)^-1,   W' = W B,   λ = share · mean diagonal of G[S, S]

    So the ridge pulls towards zero, and not towards the weights as that of `transact.repair.ridge` does. Statistics
    are those of the dense model.
    """

    def __init__(self, loaded: ta.LoadedModel, statistics: ta.ActivationStatistics, share: float):
        super().__init__(loaded, statistics)
        self.share = share

    def __call__(self, site: str, layer: int, old: torch.nn.Linear, kept: torch.Tensor) -> NewProjection:
        weight = matrix(old)
        if len(kept) == weight.shape[1]:
            return super().__call__(site, layer, old, kept)
        gram = getattr(self.statistics, site)[layer].gram.to(weight.device)
        inner = gram[kept][:, kept]
        inner.diagonal().add_(self.share * inner.diagonal().mean().clamp_min(1e-30))
        outer = gram[kept] @ weight.double().T  # [kept, hidden]: G is symmetric
        new = torch.cholesky_solve(outer, torch.linalg.cholesky(inner)).T
        return NewProjection(self.rounded(new, weight), old.bias)


def grail(share: float) -> Callable[[Request], ta.LoadedModel]:
    def make(request: Request) -> ta.LoadedModel:
        refit = ReconstructionRefit(request.loaded, request.statistics, share)
        return cut(request.loaded, plan_by(request, "fluctuation"), REPAIRS["none"], refit)

    return make


def obs_groups(normal: NormalEquations, keep: int, width: int) -> tuple[int, ...]:
    """Which `keep` blocks of `width` channels to keep, by removing again and again the one that costs least.

    With Ŵ the solution for the channels that are left and P the inverse of `inner` for them, removing block u and
    solving again raises the minimum by tr(Ŵ_u (P_uu)^-1 Ŵ_u^T); ties: the higher index goes.
    """
    left = list(range(len(normal.inner) // width))
    while len(left) > keep:
        positions = torch.cat([torch.arange(width) + block * width for block in left]).to(normal.inner.device)
        inverted = torch.cholesky_inverse(torch.linalg.cholesky(normal.inner[positions][:, positions]))
        solution = normal.outer[:, positions] @ inverted
        costs = []
        for start in range(0, len(positions), width):
            block = slice(start, start + width)
            part = solution[:, block]
            costs.append(float((part.T * torch.linalg.solve(inverted[block, block], part.T)).sum()))
        left.pop(len(left) - 1 - costs[::-1].index(min(costs)))
    return tuple(left)


class ObsSelector:
    """A selector of `transact.repair.sequential`: both kinds of units by the module's own regression.

    `normal` is that of the attention which is selected next; `shapes` says how many units each layer keeps.
    """

    def __init__(self, spec: ModelSpec, shapes: tuple):
        self.spec = spec
        self.shapes = shapes
        self.normal: NormalEquations | None = None

    def attention(self, layer: int) -> LayerPlan:
        first = LayerPlan.first(self.shapes[layer], self.spec.layers[layer])
        if self.normal is None:  # all activations are zero
            return first
        size = self.spec.group_size
        groups = obs_groups(self.normal, len(first.kept_head_groups), size * self.spec.value_dim)
        heads = tuple(group * size + place for group in groups for place in range(size))
        return LayerPlan(groups, heads, first.kept_channels)

    def channels(self, layer: int, normal: NormalEquations | None, check: Check) -> tuple[int, ...]:
        keep = self.shapes[layer].intermediate_size
        return tuple(range(keep)) if normal is None else normal.obs_select(keep, check=check)


class _PassForObs(sequential._SequentialPass):
    """Shows the selector the regression of the attention before it is asked which head groups to keep."""

    def _normal(self, layer, site, inputs, targets):
        normal = super()._normal(layer, site, inputs, targets)
        if site == "attention":
            self.selector.normal = normal
        return normal


def obs(request: Request, target: ta.PruningTarget | None = None) -> ta.LoadedModel:
    """Module by module on the already pruned prefix, min ‖X' W^T − X'_S W'^T‖²: the module's own output is kept.

    That is what OSSCAR, ZipLM and SlimGPT minimise; nothing undoes the error of the prefix (our repair's target does).
    Ridge 0.001 of the Gram matrix's mean diagonal. Channels go in 64 rounds, head groups one by one.
    """
    loaded, target = request.loaded, target or request.target
    selector = ObsSelector(loaded.spec, target.per_layer(loaded.spec))
    with constants(sequential, _FEEDBACK=0.0, _SequentialPass=_PassForObs):
        refitted = sequential.refit(loaded, request.statistics.tokens, selector, batch_size=BATCH, progress=NO_PROGRESS)
    plan = PruningPlan(
        layers=refitted.layers,
        dense_spec=loaded.spec,
        fingerprint=loaded.fingerprint,
        metric="obs",
        calibration=request.statistics.calibration.name,
        allocation="manual" if target.is_by_layer else "uniform",
        requested=target.requested,
    )

    def found(site: str, layer: int, old: torch.nn.Linear, kept: torch.Tensor) -> NewProjection:
        new = refitted.projections[id(old)]
        return NewProjection(matrix(new), new.bias)

    return cut(loaded, plan, REPAIRS["none"], found)


def log_schedule(first: float, last: float, layers: int) -> list[float]:
    """r_i = r_0 + (r_last − r_0) · ln(1 + i) / ln(layers): SlimGPT's incremental pruning ratio, steep at first."""
    if layers == 1:
        return [last]
    return [first + (last - first) * math.log(1 + index) / math.log(layers) for index in range(layers)]


def slim_channels(spec: ModelSpec, groups: tuple[int, ...], parameters: int) -> tuple[int, ...]:
    """Channels of each layer so that it loses the schedule's share of its parameters, `parameters` in all at most.

    r_0 = r_last / 5, and r_last such that the budget is met. SlimGPT takes one ratio for heads and channels of a
    layer; where there are three head groups no such ratio exists, so each layer keeps `groups` of them and its
    channels take up the rest. What rounding leaves goes to the first layers, a channel each.
    """
    budget = (
        parameters - spec.fixed_parameters - sum(groups) * spec.parameters_per_head_group
    ) // spec.parameters_per_channel

    def counts(last: float) -> list[int]:
        ratios = log_schedule(FIRST_OF_LAST * last, last, spec.num_hidden_layers)
        kept = []
        for shape, ratio, heads in zip(spec.layers, ratios, groups, strict=True):
            left = (1 - ratio) * spec.layer_parameters(shape) - heads * spec.parameters_per_head_group
            kept.append(min(max(int(left / spec.parameters_per_channel), 1), shape.intermediate_size))
        return kept

    low, high = 0.0, 1 / FIRST_OF_LAST  # too many channels, and one in each layer
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sum(counts(middle)) > budget else (low, middle)
    kept = counts(high)
    for index, shape in enumerate(spec.layers):
        if sum(kept) < budget and kept[index] < shape.intermediate_size:
            kept[index] += 1
    return tuple(kept)


def slim_gpt(request: Request) -> ta.LoadedModel:
    spec = request.loaded.spec
    groups = tuple(shape.num_key_value_heads for shape in request.target.per_layer(spec))
    channels = slim_channels(spec, groups, request.parameters)
    return obs(request, ta.PruningTarget(groups, channels, request.target.requested))


def short_gpt(request: Request) -> ta.LoadedModel:
    """The layers of least influence go, as many as come nearest to the size; of two as near, the fewer."""
    spec = request.loaded.spec
    kept = spec.num_hidden_layers - math.ceil(request.removed * spec.num_hidden_layers - 0.5)
    target = replace(ta.PruningTarget.from_sparsity(spec), keep_layers=kept)
    plan = ta.make_plan(ta.score(request.loaded, request.statistics), spec, target)
    return ta.prune(request.loaded, plan)


def searched_widths(request: Request) -> ta.LoadedModel:
    target = ta.search_widths(request.loaded, request.statistics, request.target)
    plan = ta.search_plan(request.loaded, request.statistics, target)
    return ta.prune(request.loaded, plan, compensation="least_squares", statistics=request.statistics)


def search_and_best(request: Request) -> ta.LoadedModel:
    plan = ta.search_plan(request.loaded, request.statistics, request.target)
    return ta.prune(request.loaded, plan, compensation="best", statistics=request.statistics)


def compressed(minutes: float) -> Callable[[Request], ta.LoadedModel]:
    """All of it in that time, observing included, on the same text."""

    def make(request: Request) -> ta.LoadedModel:
        spec, text = request.loaded.spec, request.statistics.tokens
        assert text is not None, "observed in this process"
        return ta.compress(request.loaded, text, size=request.parameters / spec.num_parameters, minutes=minutes)

    return make


FLAP = "flap"
MINUTES = (1, 3, 10, 30)
SPLIT_BY = least_squares(RIDGES[0])
"""What the split of all uniform methods is chosen by."""
METHODS = (
    Method("transact", "TransAct", by_metric("transact")),
    Method("wanda", "Wanda-sp", by_metric("wanda")),
    Method("taylor", "LLM-Pruner's Taylor", by_metric("taylor"), gradients=True),
    Method(
        FLAP, "FLAP as published (AL-AM) + bias",
        by_metric("flap", compensation="bias", allocation="flap"), splits=False,
    ),
    Method("shortgpt", "ShortGPT (whole layers)", short_gpt, splits=False),
    *(
        Method(f"transact-ls-{share}", "TransAct + least squares", least_squares(share), "refits", f"ridge {share}")
        for share in RIDGES
    ),
    *(
        Method(f"grail-{share}", "FLAP metric + ridge refit (GRAIL)", grail(share), "refits", f"ridge {share}")
        for share in RIDGES
    ),
    Method("obs", "OBS + exact refit (OSSCAR, ZipLM)", obs, "refits"),
    Method("slimgpt", "OBS, logarithmic ratios (SlimGPT)", slim_gpt, "refits"),
    Method("search-best", "ours: search + best", search_and_best, "ours"),
    Method("widths-ls", "ours: searched widths + least squares", searched_widths, "ours"),
    *(
        Method(f"compress-{minutes}", f"ours: compress, {minutes} min", compressed(minutes), "ours", splits=False)
        for minutes in MINUTES
    ),
)  # fmt: skip
