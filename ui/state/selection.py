"""What a click or a key in a figure points at, and what locking it means; pure functions of values."""

import re
from collections.abc import Mapping
from dataclasses import replace

import transact as ta
from ui.errors import NotYet
from ui.server import limits
from ui.state.score_bins import Landscape
from ui.state.view import Selection

KEEP, REMOVE, FREE = "keep", "remove", "free"
LOCK_KEYS = {"k": KEEP, "x": REMOVE, "l": FREE}
_HEAD_MAPS = ("heads-plot", "difference-heads")
_CHANNEL_MAPS = ("channels-plot", "difference-channels")


def pointed(plot: str, point: Mapping, landscape: Landscape, now: Selection) -> Selection:
    """The unit under a click. `point` as the browser tells it: `row` and `column` of a map's cell, or `x`.

    Raises `WrongInput` where these are no numbers.
    """
    layers = landscape.num_layers
    if plot in _HEAD_MAPS:
        return Selection(_within(point["row"], layers), head=_within(point["column"], landscape.heads.shape[1]))
    if plot in _CHANNEL_MAPS:
        layer = _within(point["row"], layers)
        return Selection(layer, channels=landscape.members(layer, _within(point["column"], landscape.bins.shape[1])))
    if plot == "layer-heads-plot":
        return replace(now, head=_within(point["x"], landscape.heads.shape[1]), channels=())
    if plot == "layer-channels-plot":
        ranked = landscape.order[now.layer]
        rank = max(1, _within(point["x"], len(ranked) + 1))
        return replace(now, head=None, channels=(int(ranked[rank - 1]),))
    return Selection(_within(point["x"], layers))


def moved(plot: str, key: str, landscape: Landscape, now: Selection) -> Selection:
    """The neighbour that an arrow key leads to, in the map that has the focus."""
    down = {"ArrowUp": -1, "ArrowDown": 1}.get(key, 0)
    right = {"ArrowLeft": -1, "ArrowRight": 1}.get(key, 0)
    layer = _within(now.layer + down, landscape.num_layers)
    if plot in _CHANNEL_MAPS:
        cells = landscape.bins.shape[1]
        cell = landscape.bin_of(now.layer, now.channels[0]) + right if now.channels else 0
        return Selection(layer, channels=landscape.members(layer, _within(cell, cells)))
    head = 0 if now.head is None else _within(now.head + right, landscape.heads.shape[1])
    return Selection(layer, head=head)


def locked(locks: ta.Locks, selection: Selection, how: str, group_size: int) -> ta.Locks:
    """The locks with the selected units kept, removed, or left to the score. A head takes its group with it.

    Raises `NotYet` where only a layer is selected.
    """
    if selection.head is not None:
        units, kind = {(selection.layer, selection.head // group_size)}, "head_groups"
    elif selection.channels:
        units, kind = {(selection.layer, channel) for channel in selection.channels}, "channels"
    else:
        raise NotYet("Only a layer is selected; click a head or a channel first, then lock it.")
    fields = {f"{name}_{kind}": getattr(locks, f"{name}_{kind}") - units for name in (KEEP, REMOVE)}
    if how != FREE:
        fields[f"{how}_{kind}"] |= units
    return replace(locks, **fields)


def lock_of(locks: ta.Locks, selection: Selection, group_size: int) -> str:
    """How the selected units are locked: `KEEP`, `REMOVE`, or `FREE`, also where they differ."""
    kind, units = "channels", {(selection.layer, channel) for channel in selection.channels}
    if selection.head is not None:
        kind, units = "head_groups", {(selection.layer, selection.head // group_size)}
    return next((name for name in (KEEP, REMOVE) if units and units <= getattr(locks, f"{name}_{kind}")), FREE)


def result_number(label) -> int | None:
    """The result that a point's label such as "#3" names."""
    digits = str(label).removeprefix("#")
    return int(digits) if re.fullmatch(r"[0-9]{1,9}", digits) else None


def count(locks: ta.Locks) -> int:
    """How many units are locked."""
    return sum(map(len, (locks.keep_head_groups, locks.remove_head_groups, locks.keep_channels, locks.remove_channels)))


def _within(index, count: int) -> int:
    """A whole number in [0, count), whatever number the browser sent."""
    return limits.place("The place of the click", index, count)
