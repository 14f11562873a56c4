"""Which units every layer keeps: those with the highest scores, after the locked ones."""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from transact.errors import InvalidPlan, InvalidTarget

Pairs = Iterable[tuple[int, int]]
Kept = list[tuple[int, ...]]
"""Per layer, the sorted indices of what stays."""

GLOBAL_FLOOR = 0.5
"""Share of its uniform count that a layer keeps under global allocation: single layers starved without it."""
_FLAP_FLOOR = 1
"""Head groups, and channels, that a layer keeps at least under the allocation of FLAP; its authors have no floor."""


@dataclass(frozen=True, eq=False)
class Units:
    """Units of one kind, head groups or channels, that compete for a place.

    `scores` has one array [unit] per layer, `counts` how many of them each layer is to keep (0 for a layer that
    goes whole), `keep` and `remove` the locked units as (layer, index), and `kind` names the units in errors. The
    allocation of FLAP alone also reads `parameters`, which a unit holds, `channels`, the scores [channel] of each
    layer's activation that the units are made of, and `score_of_ones`, what a unit scores whose channels all score 1.
    """

    scores: list[np.ndarray]
    counts: list[int]
    keep: Pairs
    remove: Pairs
    kind: str
    parameters: int = 1
    channels: list[np.ndarray] = field(default_factory=list)
    score_of_ones: float = 1.0

    def standardised(self) -> list[np.ndarray]:
        """(s / score_of_ones − mean) / standard deviation, both over the channels of the layer; 0 where all are equal.

        Of a unit that scores the sum or the mean over its channels this is the mean of their standardised scores.
        """
        standard = []
        for scores, channels in zip(self.scores, self.channels, strict=True):
            deviation = channels.std(ddof=1) if len(channels) > 1 else 0.0
            standard.append((scores / self.score_of_ones - channels.mean()) / (deviation or 1.0))
        return standard


def keep_in_each(units: Units) -> Kept:
    """Per layer as many of the highest scores as `counts` says."""
    kept = []
    for layer, (values, count) in enumerate(zip(_locked(units, units.scores), units.counts, strict=True)):
        staying, going = _num_locked(values)
        if not staying <= count <= len(values) - going:
            raise InvalidTarget(
                f"Layer {layer} is to keep {count} of {len(values)} {units.kind}, but {staying} are locked to stay "
                f"and {going} to go. Change the number or free some locks."
            )
        kept.append(_highest(values, count))
    return kept


def keep_in_all(units: Units) -> Kept:
    """As many highest shares over all layers as `counts` has together, each layer's floor first."""
    shares = _locked(units, [values / (values.sum() or 1.0) for values in units.scores])
    floors = [math.ceil(GLOBAL_FLOOR * count) for count in units.counts]
    all_scores, total = _with_floors(units, shares, floors, "global"), sum(units.counts)
    staying, going = _num_locked(all_scores)
    if not staying <= total <= len(all_scores) - going:
        raise InvalidTarget(
            f"The model is to keep {total} of {len(all_scores)} {units.kind}, but {staying} must stay (locked, or the "
            f"least that each layer keeps) and {going} are locked to go. Change the number or free some locks."
        )
    return _highest_by_layer(units, all_scores, total)


def keep_above_threshold(groups: Units, channels: Units) -> tuple[Kept, Kept]:
    """Head groups and channels of all layers against each other, the highest standardised scores first.

    FLAP's adaptive structure (AL-AM; An et al. 2023, arXiv 2312.11983, and the authors' `lib/prune.py`): scores are
    standardised per layer (see `Units.standardised`), and units of either kind stay that score above one threshold. The
    threshold is where the units that stay hold as many parameters as the counts of the target together: a head
    counts its share of q, k, v and o, a channel its share of the MLP (the authors: 512 / 3 channels to a head of
    128). It is met to less than one channel: a head group that would exceed it goes, and channels fill the rest; where
    there are no more channels, that head group stays and the lowest channels go.

    Ours: a unit is a head group, as grouped-query attention needs; each layer keeps one head group and one channel.
    """
    kinds = (groups, channels)
    floors = [[min(_FLAP_FLOOR, count) for count in units.counts] for units in kinds]
    scores = [
        _with_floors(units, _locked(units, units.standardised()), least, "flap")
        for units, least in zip(kinds, floors, strict=True)
    ]
    locked = [_num_locked(values) for values in scores]
    budget = sum(units.parameters * sum(units.counts) for units in kinds)
    least = sum(units.parameters * staying for units, (staying, _) in zip(kinds, locked, strict=True))
    most = [len(values) - going for values, (_, going) in zip(scores, locked, strict=True)]
    available = sum(units.parameters * count for units, count in zip(kinds, most, strict=True))
    if not least <= budget < available + channels.parameters:
        raise InvalidTarget(
            f"Head groups and channels are to keep {budget:,} parameters together, but {least:,} must stay (locked, or "
            f"the last of a layer) and no more than {available:,} are not locked to go. Change the number or free some "
            "locks."
        )
    count = _num_above(groups, channels, scores[0], scores[1], budget)
    missing = math.ceil((budget - count * groups.parameters - most[1] * channels.parameters) / groups.parameters)
    room = (budget - locked[1][0] * channels.parameters) // groups.parameters
    count = min(max(count, count + missing), most[0], room)
    num_channels = min((budget - count * groups.parameters) // channels.parameters, most[1])
    return _highest_by_layer(groups, scores[0], count), _highest_by_layer(channels, scores[1], num_channels)


def _num_above(groups: Units, channels: Units, of_groups: np.ndarray, of_channels: np.ndarray, budget: int) -> int:
    """How many head groups are above the threshold: the most that fit in `budget` with all channels above them."""
    descending = np.sort(of_groups)[::-1]

    def exceeds(count: int) -> bool:
        above = int(np.count_nonzero(of_channels > descending[count - 1]))
        return count * groups.parameters + above * channels.parameters > budget

    return bisect_left(range(1, len(descending) + 1), True, key=exceeds)


def heads_in_groups(scores: np.ndarray, groups: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Sorted indices of the `count` highest heads of each of those groups; `scores` [group, head in it]."""
    size, highest = scores.shape[1], highest_in_groups(scores, groups, count)
    return tuple(group * size + head for group, heads in zip(groups, highest, strict=True) for head in heads)


def highest_in_groups(scores: np.ndarray, groups: tuple[int, ...], count: int) -> tuple[tuple[int, ...], ...]:
    """Of each of those groups the sorted indices of the `count` highest; `scores` [group, index in it]."""
    return tuple(_highest(scores[group], count) for group in groups)


def _locked(units: Units, scores: list[np.ndarray]) -> list[np.ndarray]:
    """Those scores of the units, infinite for what is locked to stay and minus infinite for what is to go: also for all
    units of a layer that goes whole.
    """
    locked: dict[int, dict[int, float]] = {}
    for pairs, value in ((units.keep, np.inf), (units.remove, -np.inf)):
        for layer, index in pairs:
            if not (0 <= layer < len(scores) and 0 <= index < len(scores[layer])):
                raise InvalidTarget(f"A lock names layer {layer}, {units.kind} {index}, which the model does not have.")
            if locked.setdefault(layer, {}).setdefault(index, value) != value:
                raise InvalidTarget(f"Layer {layer}, {units.kind} {index} is locked both to stay and to go. Free it.")
    ready = []
    for layer, values in enumerate(scores):
        if not np.isfinite(values).all():
            raise InvalidPlan(f"Layer {layer} has scores that are NaN or infinite. Score the model again.")
        if not units.counts[layer]:
            values = np.full_like(values, -np.inf)
        elif layer in locked:
            values = values.copy()
            values[list(locked[layer])] = list(locked[layer].values())
        ready.append(values)
    return ready


def _num_locked(values: np.ndarray) -> tuple[int, int]:
    """How many must stay, and how many must go."""
    return int(np.count_nonzero(values == np.inf)), int(np.count_nonzero(values == -np.inf))


def _with_floors(units: Units, scores: list[np.ndarray], floors: list[int], allocation: str) -> np.ndarray:
    """The scores of all layers in a row, infinite for the highest of each layer up to its floor."""
    for layer, (values, floor) in enumerate(zip(scores, floors, strict=True)):
        _, going = _num_locked(values)
        if len(values) - going < floor:
            raise InvalidTarget(
                f"Layer {layer} must keep at least {floor} of {len(values)} {units.kind} under {allocation} "
                f"allocation, but {going} are locked to go. Change the number or free some locks."
            )
    return np.concatenate(
        [np.where(_flags(values, floor), np.inf, values) for values, floor in zip(scores, floors, strict=True)]
    )


def _highest_by_layer(units: Units, all_scores: np.ndarray, count: int) -> Kept:
    """Per layer, which of its units are among the `count` highest of all layers."""
    ends = np.cumsum([len(values) for values in units.scores])[:-1]
    return [tuple(np.flatnonzero(flags).tolist()) for flags in np.split(_flags(all_scores, count), ends)]


def filled(kept: Kept, units: Units) -> Kept:
    """The same with, for layers that keep nothing, their highest scores: as many as the counts of `units` say."""
    return [
        each or _highest(values, count) for each, values, count in zip(kept, units.scores, units.counts, strict=True)
    ]


def layers_to_keep(scores: np.ndarray, count: int, locked: Pairs) -> tuple[int, ...]:
    """Sorted indices of the `count` layers with the highest scores; those with units locked to stay come first."""
    with_locks = sorted({layer for layer, _ in locked})
    if len(with_locks) > count:
        raise InvalidTarget(
            f"The model is to keep {count} layers, but units of {len(with_locks)} are locked to stay. Keep more layers "
            "or free some locks."
        )
    values = scores.copy()
    values[[layer for layer in with_locks if 0 <= layer < len(values)]] = np.inf
    return _highest(values, count)


def _highest(values: np.ndarray, count: int) -> tuple[int, ...]:
    """Sorted indices of the `count` highest values, of equals those of lower index."""
    return tuple(np.flatnonzero(_flags(values, count)).tolist())


def _flags(values: np.ndarray, count: int) -> np.ndarray:
    """Which are the `count` highest values: bool [unit]; partitioning finds the threshold in linear time."""
    if count in (0, len(values)):
        return np.full(len(values), count > 0)
    threshold = np.partition(values, len(values) - count)[len(values) - count]
    chosen = values > threshold
    ties = np.flatnonzero(values == threshold)
    chosen[ties[: count - int(chosen.sum())]] = True
    return chosen


def _each_kind(keep, groups: Units, channels: Units) -> tuple[Kept, Kept]:
    return keep(groups), keep(channels)


KEEP_HIGHEST: dict[str, Callable[[Units, Units], tuple[Kept, Kept]]] = {
    "uniform": partial(_each_kind, keep_in_each),
    "global": partial(_each_kind, keep_in_all),
    "flap": keep_above_threshold,
}
"""How a target is shared among layers; with "uniform", tuples in the target are manual allocation."""
ALLOCATIONS = tuple(KEEP_HIGHEST)
"""Names of the ways to share a target among layers; see `make_plan`."""
