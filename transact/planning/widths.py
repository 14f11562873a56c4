"""How many MLP channels each layer keeps, where only their number in all layers together is given.

The price of a channel is what the model loses by its absence *after* the others have been refitted. Within a layer the
channels go in the order of `transact.repair.ridge.NormalEquations.removal_path`; with Ŵ, P as there and B the mean of
ĝ ĝ^T in the module's output (`transact.observing.output_fisher`), the next one, u, costs

    Ŵ_u^T B Ŵ_u / P_uu,    proportional to the rise of the loss, to second order,

so that prices of different layers are in one unit; the error of the residual stream, in which every direction of every
layer counts alike, is not such a unit, and with it the first layers were ruined (measured). The cheapest go, whichever
layer they are in. To second order a channel gets dearer the fewer are left, so that the curve of a layer's prices is
made to rise.
"""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch

from transact.errors import InvalidOption, NotEnoughMemory
from transact.layers.hooks import hooks_suspended
from transact.layers.slicing import reading_role
from transact.layers.weights import matrix
from transact.models import tasks_by_placement
from transact.models.loaded_model import LoadedModel
from transact.observing.output_fisher import fisher_bytes, output_fishers
from transact.observing.statistics import ActivationStatistics
from transact.planning.make_plan import make_plan
from transact.progress import NO_PROGRESS, Check, Progress, Repeating, part
from transact.repair.layer_grams import GramPass
from transact.repair.least_squares import check_grams, gathers_grams
from transact.repair.refit_base import calibration_tokens
from transact.repair.ridge import NormalEquations, RemovalPath
from transact.runtime.blockwise_algebra import cholesky, product
from transact.runtime.devices import free_bytes
from transact.scoring.scores import ImportanceScores, score
from transact.spec.kept_counts import collapse
from transact.spec.locks import NO_LOCKS, Locks
from transact.spec.model_spec import SITES, ModelSpec
from transact.spec.target import PruningTarget
from transact.text.calibration import CalibrationSet, evenly_spread
from transact.text.tokens import TokenSet

_STEPS = 64
"""Steps in which a layer's channels are shared out: single ones would follow rounding errors."""
_FLOOR = 16
"""Every layer keeps at least one of so many of its channels."""
_DAMPING = 1e-6
"""Of B's mean diagonal: with less text than dimensions, B is singular."""
PRICED_TOKENS = 16_384
"""Text that B is taken from: it is a mean, so more of it changes little."""


@dataclass(frozen=True, eq=False)
class PricedWidths:
    """`target`: how many channels every layer keeps. `scores`: those of the metric transact, but channels by how late
    they go, so that `make_plan` keeps what costs most to lose after refitting.
    """

    target: PruningTarget
    scores: ImportanceScores


@hooks_suspended()
def priced_widths(
    loaded: LoadedModel,
    statistics: ActivationStatistics,
    target: PruningTarget,
    *,
    locks: Locks | None = None,
    num_tokens: int = PRICED_TOKENS,
    progress: Progress = NO_PROGRESS,
) -> PricedWidths:
    """The target with its MLP channels shared out among the layers by their prices, the cheapest to go.

    As many channels in all, so that the parameters are the same, and in every layer a multiple of the target's
    `multiple_of`; head groups and layers are left as they are. Layers of different widths have no stock configuration:
    see `save`. Takes the Gram matrices of `observe(gram=True)`, or gathers them layer by layer where the statistics say
    so, and one backward pass over about `num_tokens` of the text. The model is unchanged. Deterministic.

    Raises `InvalidTarget` for counts that a layer does not have or locks that contradict them, `InvalidPlan` for
    the statistics of another model, `InvalidOption` for statistics without their tokens (read from a file) or without
    Gram matrices, `NotEnoughMemory` before the work and `NonFiniteActivations`.
    """
    loaded.check_can(tasks_by_placement.SEARCH)
    check_grams(loaded, statistics)
    tokens = evenly_spread(calibration_tokens(loaded, statistics), num_tokens)
    scores = score(loaded, statistics)
    layers = _layers(loaded.spec, target, scores, locks)
    _check_fits(loaded, tokens)
    if all(layer.asked == layer.available for layer in layers):
        return PricedWidths(target, scores)
    priced = _priced(loaded, statistics, tokens, layers, progress)
    return PricedWidths(
        _shared_out(loaded.spec, target, layers, [each.rises for each in priced]),
        _by_removal(scores, {layer.index: path.order for layer, path in zip(layers, priced, strict=True)}),
    )


def scored_widths(
    loaded: LoadedModel, statistics: ActivationStatistics, target: PruningTarget, *, locks: Locks | None = None
) -> PruningTarget:
    """The same from scores alone, with no pass over the text: by how much each channel turns the residual stream.

    With s_j the norm of a channel's activations and W_j its column, a channel costs s_j² |W_j|² as a share of what all
    channels of its layer's attention and MLP add, times the layer's own score, 1 − cos between what goes into it and
    what comes out. That knows neither what later layers make of it nor what a refit can make up for, so that half of
    the way there did better than all of it (measured). Deterministic.

    Raises as `priced_widths` does, and `InvalidOption` for statistics of an earlier version, which lack these scores.
    """
    scores = score(loaded, statistics)
    layers = _layers(loaded.spec, target, scores, locks)
    if scores.layers is None:
        raise InvalidOption(
            "These statistics do not know how much each layer changes the residual stream. Observe the model again."
        )
    prices = []
    for layer in layers:
        attention, added = (_added(loaded, statistics, site, layer.index) for site in SITES)
        in_all = (attention.sum() + added.sum()).clamp_min(torch.finfo(added.dtype).tiny)
        cost = added / in_all * scores.layers[layer.index]
        cost[list(layer.going)], cost[list(layer.staying)] = 0, torch.inf
        prices.append(cost.sort().values[: layer.available - layer.least].numpy())
    return _shared_out(loaded.spec, target, layers, prices)


def _added(loaded: LoadedModel, statistics: ActivationStatistics, site: str, layer: int) -> torch.Tensor:
    """Σ_tokens |x_j W_j|² of every channel j of the site: float64 [channel]."""
    weight = matrix(loaded.decoder_layers[layer].get_submodule(reading_role(loaded.spec, site))).detach()
    return getattr(statistics, site)[layer].square_sums * weight.double().square().sum(dim=0).cpu()


def _layers(spec: ModelSpec, target: PruningTarget, scores: ImportanceScores, locks: Locks | None) -> list["_Layer"]:
    """Those that stay; raises where the target cannot be planned."""
    kept_layers = make_plan(scores, spec, target, locks=locks).kept_layers
    counts = [shape.intermediate_size for shape in target.per_layer(spec)]
    multiple = common_multiple(spec, target)
    return [
        _Layer.of(index, spec.layers[index].intermediate_size, counts[index], multiple, locks or NO_LOCKS)
        for index in kept_layers
    ]


def _shared_out(
    spec: ModelSpec, target: PruningTarget, layers: list["_Layer"], prices: list[np.ndarray]
) -> PruningTarget:
    """The target with as many channels in all, of which the cheapest go."""
    counts = [shape.intermediate_size for shape in target.per_layer(spec)]
    to_go = sum(layer.available - layer.asked for layer in layers)
    for layer, going in zip(layers, _cheapest(prices, layers, to_go), strict=True):
        counts[layer.index] = layer.available - going
    return replace(target, keep_channels=collapse(tuple(counts)))


def widths_bytes(spec: ModelSpec, calibration: CalibrationSet, bytes_per_element: int = 4) -> int:
    """About what `priced_widths` takes at its peak beside the model and the statistics."""
    widest = max(layer.intermediate_size for layer in spec.layers)
    # a layer's matrix, its inverse, its factor and a copy in the making; the solution, before and after
    of_layer = 8 * (4 * widest**2 + 3 * spec.hidden_size * widest)
    return fisher_bytes(spec, evenly_spread(calibration, PRICED_TOKENS), bytes_per_element) + of_layer


def _check_fits(loaded: LoadedModel, tokens: CalibrationSet) -> None:
    needed, free = widths_bytes(loaded.spec, tokens, loaded.dtype.itemsize), free_bytes(loaded.device)
    if needed > free:
        raise NotEnoughMemory(
            f"Searching for the layers' widths needs about {needed / 1e9:.1f} GB beside the model and "
            f"{free / 1e9:.1f} GB are free. Give every layer the same width."
        )


def common_multiple(spec: ModelSpec, target: PruningTarget) -> int:
    """What the channels that stay are to be multiples of: the target's own, where all of its layers already are."""
    multiple = int(dict(target.requested).get("multiple_of", 1))
    counts = [layer.intermediate_size for layer in (*spec.layers, *target.per_layer(spec))]
    return multiple if all(count % multiple == 0 for count in counts) else 1


@dataclass(frozen=True)
class _Layer:
    """A layer that channels may go from: how many it has, and is asked to keep, which are locked, and how many stay at
    least. What stays is a multiple of `multiple`.
    """

    index: int
    available: int
    asked: int
    staying: tuple[int, ...]
    going: tuple[int, ...]
    least: int
    multiple: int

    @classmethod
    def of(cls, index: int, available: int, asked: int, multiple: int, locks: Locks) -> "_Layer":
        staying, going = (
            tuple(channel for layer, channel in pairs if layer == index)
            for pairs in (locks.keep_channels, locks.remove_channels)
        )
        least = max(min(available // _FLOOR, asked), len(staying), 1)
        return cls(index, available, asked, staying, going, -(-least // multiple) * multiple, multiple)

    @property
    def step(self) -> int:
        """Channels that are shared out together."""
        return -(-max(1, self.available // _STEPS) // self.multiple) * self.multiple

    @property
    def going_first(self) -> int:
        """Channels that go whatever they cost."""
        return -(-len(self.going) // self.multiple) * self.multiple


def _priced(
    loaded: LoadedModel,
    statistics: ActivationStatistics,
    tokens: TokenSet,
    layers: list[_Layer],
    progress: Progress,
) -> list[RemovalPath]:
    """Of every layer its channels in the order in which they go, and their prices, which rise.

    Those that are locked to go come first and cost nothing. Where all activations are zero, there is no order.
    """
    fishers = output_fishers(loaded, tokens, "mlp", part(progress, 0, 2))
    watch = Repeating(part(progress, 1, 2), len(layers), "layers")
    grams = _grams(loaded, statistics, watch)
    paths = []
    for number, layer in enumerate(layers):
        watch(number, len(layers), "layers")
        weight = matrix(loaded.decoder_layers[layer.index].get_submodule(reading_role(loaded.spec, "mlp"))).detach()
        gram = grams(layer.index).to(weight.device)
        normal = _weighed(gram, weight, fishers[layer.index], watch.check)
        if normal is None:
            paths.append(RemovalPath((), np.zeros(layer.available - layer.least)))
            continue
        path = normal.removal_path(layer.least, layer.staying, layer.going, watch.check)
        rises = path.rises.copy()
        rises[: len(layer.going)] = 0
        paths.append(RemovalPath(path.order, np.maximum.accumulate(rises)))
    watch(len(layers), len(layers), "layers")
    return paths


def _by_removal(scores: ImportanceScores, orders: dict[int, tuple[int, ...]]) -> ImportanceScores:
    """The scores with channels that count by how late they go; those that never go count most, by their own scores."""
    channels = list(scores.mlp_channels)
    for layer, order in orders.items():
        own = channels[layer]
        late = len(own) + own / own.max().clamp_min(torch.finfo(own.dtype).tiny)
        late[list(order)] = torch.arange(len(order), dtype=own.dtype)
        channels[layer] = late
    return replace(scores, mlp_channels=tuple(channels))


def _grams(loaded: LoadedModel, statistics: ActivationStatistics, progress: Progress) -> Callable[[int], torch.Tensor]:
    """X^T X of a layer's channels, from the statistics or gathered as asked for, in rising order."""
    if gathers_grams(statistics):
        gathered = GramPass(loaded, calibration_tokens(loaded, statistics), progress)
        return lambda layer: gathered.gram("mlp", layer)
    held = [moments.gram for moments in statistics.mlp]
    return lambda layer: held[layer]


def _weighed(gram: torch.Tensor, weight: torch.Tensor, fisher: torch.Tensor, check: Check) -> NormalEquations | None:
    """The regression of the module's own output, whose errors are measured by B = `fisher`; None where it is zero."""
    weight = weight.double()
    normal = NormalEquations.of(gram.clone(), product(weight, gram, check), weight)
    if normal is None:
        return None
    damped = fisher.clone()
    size = float(damped.diagonal().mean())
    damped.diagonal().add_(_DAMPING * size if size else 1.0)
    root = cholesky(damped, check)  # |root^T w|² = w^T B w
    return NormalEquations(normal.inner, product(root.T, normal.outer, check))


def _cheapest(prices: list[np.ndarray], layers: list[_Layer], to_go: int) -> list[int]:
    """How many channels of every layer go, so that `to_go` of all do, or a few more where multiples are to stay.

    The cheapest step of any layer goes next, of equal ones that of the lower layer; the last may be a part of one.
    """
    going = [layer.going_first for layer in layers]
    offers: list[tuple[float, int, int]] = []

    def offer(number: int) -> None:
        """The layer's next step, at its mean price."""
        layer = layers[number]
        size = min(layer.step, layer.available - layer.least - going[number])
        if size > 0:
            ahead = prices[number][going[number] : going[number] + size]
            heapq.heappush(offers, (float(ahead.mean()), number, size))

    for number in range(len(layers)):
        offer(number)
    while (left := to_go - sum(going)) > 0 and offers:
        _, number, size = heapq.heappop(offers)
        multiple = layers[number].multiple
        going[number] += min(size, -(-left // multiple) * multiple)
        offer(number)
    return going
