"""How many head groups and channels a layer keeps: shares rounded down, and the most that a budget allows."""

from collections.abc import Iterator
from dataclasses import dataclass

from transact.errors import InvalidTarget
from transact.spec.model_spec import ModelSpec

Counts = int | tuple[int, ...]
"""One number for all layers, or one for each."""
MULTIPLES = ("multiple_of", "groups_multiple_of")
"""Names of the targets' parameters that round kept channels and head groups down."""
_ROUNDING = 1e-9
"""Keeps 10 · (1 − 0.9) from falling below 1, as 0.9 has no exact binary form."""


def kept_count(count: int, share: float, multiple_of: int = 1) -> int:
    """floor(count · share), at least one, rounded down to `multiple_of` where the layer has as many."""
    kept = int(count * share + _ROUNDING)
    return max(kept - kept % multiple_of, min(multiple_of, count), 1)


@dataclass(frozen=True)
class Costs:
    """What pruning leaves alone, one head group of each layer and one channel cost, in one unit (parameters, bytes)."""

    fixed: float
    head_groups: tuple[float, ...]
    channel: float

    def of(self, groups: tuple[int, ...], channels: tuple[int, ...]) -> float:
        """The cost of these counts in each layer."""
        attention = sum(count * cost for count, cost in zip(groups, self.head_groups, strict=True))
        return self.fixed + attention + sum(channels) * self.channel


@dataclass(frozen=True)
class Multiples:
    """What the kept head groups, and channels, of a layer are multiples of where it has as many."""

    channels: int = 1
    groups: int = 1

    @classmethod
    def of(cls, multiple_of: int, groups_multiple_of: int) -> "Multiples":
        for name, value in zip(MULTIPLES, (multiple_of, groups_multiple_of), strict=True):
            # a plan's file holds requested numbers as 64.0
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 1 or value % 1:
                raise InvalidTarget(f"{name} is {value!r}; give a whole number from 1.")
        return cls(int(multiple_of), int(groups_multiple_of))

    def least(self, spec: ModelSpec) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The fewest head groups and channels, layer by layer."""
        groups = tuple(min(self.groups, layer.num_key_value_heads) for layer in spec.layers)
        return groups, tuple(min(self.channels, layer.intermediate_size) for layer in spec.layers)

    @property
    def requested(self) -> tuple[tuple[str, float], ...]:
        """The entries of a plan's `requested`, for multiples above 1."""
        pairs = zip(MULTIPLES, (self.channels, self.groups), strict=True)
        return tuple((name, value) for name, value in pairs if value > 1)

    def __str__(self) -> str:
        groups, channels = (f"{count} " if count > 1 else "one " for count in (self.groups, self.channels))
        return f"{groups}head group{'s' * (self.groups > 1)} and {channels}channel{'s' * (self.channels > 1)}"


def largest_within(spec: ModelSpec, budget: float, costs: Costs, multiples: Multiples) -> tuple[Counts, Counts] | None:
    """Head groups and channels to keep that cost at most `budget`; None where even the least costs more.

    Of all head-group counts, the one whose attention and MLP sparsity come closest to each other, with as many
    channels as fit beside it.
    """
    all_groups = sum(layer.num_key_value_heads for layer in spec.layers)
    all_channels = sum(layer.intermediate_size for layer in spec.layers)
    candidates = [
        (abs(sum(groups) / all_groups - sum(channels) / all_channels), -total, groups, channels)
        for total, groups, channels in all_within(spec, budget, costs, multiples)
    ]
    if candidates:
        _, _, groups, channels = min(candidates)
        return collapse(groups), collapse(channels)
    # layers of very different sizes can leave no candidate where one of each still fits
    groups, channels = multiples.least(spec)
    return (collapse(groups), collapse(channels)) if costs.of(groups, channels) <= budget else None


def all_within(
    spec: ModelSpec, budget: float, costs: Costs, multiples: Multiples
) -> Iterator[tuple[float, tuple[int, ...], tuple[int, ...]]]:
    """For each number of head groups with room for channels: the total cost, and both counts layer by layer."""
    all_channels = [layer.intermediate_size for layer in spec.layers]
    none = (0,) * len(all_channels)
    for groups in group_counts(spec, multiples.groups):
        share = (budget - costs.of(groups, none)) / (sum(all_channels) * costs.channel)
        channels = tuple(kept_count(count, min(share, 1.0), multiples.channels) for count in all_channels)
        total = costs.of(groups, channels)
        if share > 0 and total <= budget:
            yield total, groups, channels


def group_counts(spec: ModelSpec, multiple_of: int) -> list[tuple[int, ...]]:
    """Head groups to keep, one number a layer, from the fewest to all: the same share in every layer."""
    available = [layer.num_key_value_heads for layer in spec.layers]
    most = max(available)
    counts = [tuple(kept_count(count, step / most, multiple_of) for count in available) for step in range(1, most + 1)]
    return list(dict.fromkeys(counts))


def collapse(counts: tuple[int, ...]) -> Counts:
    """One number where all layers agree."""
    return counts[0] if len(set(counts)) == 1 else counts
