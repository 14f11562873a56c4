"""Which units every layer keeps: of the scores of all layers the highest, locks first.

Everywhere `scores` has one array [unit] per layer, `counts` how many of them each layer is to keep, `keep` and
`remove` the locked units as (layer, index), and `what` says in errors what a unit is.
"""

import math
from collections.abc import Iterable

import numpy as np

from transact.errors import InvalidPlan, InvalidTarget

Pairs = Iterable[tuple[int, int]]

GLOBAL_FLOOR = 0.5
"""Share of its uniform count that a layer keeps under global allocation: single layers starved without it."""


def keep_in_each(
    scores: list[np.ndarray],
    counts: list[int],
    keep: Pairs,
    remove: Pairs,
    what: str,
) -> list[tuple[int, ...]]:
    """Per layer, the sorted indices of the `count` highest scores, locks first."""
    kept = []
    for layer, (values, count) in enumerate(zip(_locked(scores, keep, remove, what), counts, strict=True)):
        staying, going = int(np.sum(values == np.inf)), int(np.sum(values == -np.inf))
        if not staying <= count <= len(values) - going:
            raise InvalidTarget(
                f"Layer {layer} is to keep {count} of {len(values)} {what}, but {staying} are locked to stay "
                f"and {going} to go. Change the number or free some locks."
            )
        kept.append(_highest(values, count))
    return kept


def keep_in_all(
    scores: list[np.ndarray],
    counts: list[int],
    keep: Pairs,
    remove: Pairs,
    what: str,
) -> list[tuple[int, ...]]:
    """As many highest shares over all layers as `counts` has together, each layer's floor and locks first."""
    shares = _locked([values / (values.sum() or 1.0) for values in scores], keep, remove, what)
    staying = going = 0
    for layer, (values, count) in enumerate(zip(shares, counts, strict=True)):
        floor, locked_to_go = math.ceil(GLOBAL_FLOOR * count), int(np.count_nonzero(values == -np.inf))
        if len(values) - locked_to_go < floor:
            raise InvalidTarget(
                f"Layer {layer} must keep at least {floor} of {len(values)} {what} under global allocation, but "
                f"{locked_to_go} are locked to go. Change the number or free some locks."
            )
        values[_flags(values, floor)] = np.inf
        staying, going = staying + int(np.count_nonzero(values == np.inf)), going + locked_to_go
    everything, total = np.concatenate(shares), sum(counts)
    if not staying <= total <= len(everything) - going:
        raise InvalidTarget(
            f"The model is to keep {total} of {len(everything)} {what}, but {staying} must stay (locked, or the least "
            f"that each layer keeps) and {going} are locked to go. Change the number or free some locks."
        )
    ends = np.cumsum([len(values) for values in shares])[:-1]
    return [tuple(np.flatnonzero(flags).tolist()) for flags in np.split(_flags(everything, total), ends)]


def heads_in_groups(scores: np.ndarray, groups: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Sorted indices of the `count` highest heads of each of those groups; `scores` [group, head in it]."""
    size, highest = scores.shape[1], highest_in_groups(scores, groups, count)
    return tuple(group * size + head for group, heads in zip(groups, highest, strict=True) for head in heads)


def highest_in_groups(scores: np.ndarray, groups: tuple[int, ...], count: int) -> tuple[tuple[int, ...], ...]:
    """Of each of those groups the sorted indices of the `count` highest; `scores` [group, index in it]."""
    return tuple(_highest(scores[group], count) for group in groups)


def _locked(scores: list[np.ndarray], keep: Pairs, remove: Pairs, what: str) -> list[np.ndarray]:
    """The scores of each layer, infinite for what is locked to stay and minus infinite for what is to go."""
    locked: dict[int, dict[int, float]] = {}
    for pairs, value in ((keep, np.inf), (remove, -np.inf)):
        for layer, index in pairs:
            if not (0 <= layer < len(scores) and 0 <= index < len(scores[layer])):
                raise InvalidTarget(f"A lock names layer {layer}, {what} {index}, which the model does not have.")
            if locked.setdefault(layer, {}).setdefault(index, value) != value:
                raise InvalidTarget(f"Layer {layer}, {what} {index} is locked both to stay and to go. Free it.")
    ready = []
    for layer, values in enumerate(scores):
        if not np.isfinite(values).all():
            raise InvalidPlan(f"Layer {layer} has scores that are NaN or infinite. Score the model again.")
        if layer in locked:
            values = values.copy()
            values[list(locked[layer])] = list(locked[layer].values())
        ready.append(values)
    return ready


def _highest(values: np.ndarray, count: int) -> tuple[int, ...]:
    """Sorted indices of the `count` highest values, of equals those of lower index."""
    return tuple(np.flatnonzero(_flags(values, count)).tolist())


def _flags(values: np.ndarray, count: int) -> np.ndarray:
    """Which are the `count` highest values: bool [unit]; partitioning finds the threshold in linear time."""
    if count == len(values):
        return np.ones(len(values), dtype=bool)
    threshold = np.partition(values, len(values) - count)[len(values) - count]
    chosen = values > threshold
    ties = np.flatnonzero(values == threshold)
    chosen[ties[: count - int(chosen.sum())]] = True
    return chosen


KEEP_HIGHEST = {"uniform": keep_in_each, "global": keep_in_all}
"""How a target is shared among layers; with "uniform", tuples in the target are manual allocation."""
ALLOCATIONS = tuple(KEEP_HIGHEST)
"""Names of the ways to share a target among layers; see `make_plan`."""
