"""Units that the user has decided about, whatever their score."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from transact.errors import InvalidTarget

if TYPE_CHECKING:
    from transact.spec.layer_plan import LayerPlan


@dataclass(frozen=True)
class Locks:
    """Units that are kept or removed whatever their score, as (layer, index) pairs."""

    keep_head_groups: frozenset[tuple[int, int]] = frozenset()
    remove_head_groups: frozenset[tuple[int, int]] = frozenset()
    keep_channels: frozenset[tuple[int, int]] = frozenset()
    remove_channels: frozenset[tuple[int, int]] = frozenset()

    def renumbered(self, layers: Sequence["LayerPlan"]) -> "Locks":
        """The locks of the units that `layers` kept, by their indices after that cut."""
        places = {
            kind: [{unit: place for place, unit in enumerate(units(layer))} for layer in layers]
            for kind, units in (
                ("head_groups", lambda layer: layer.kept_head_groups),
                ("channels", lambda layer: layer.kept_channels),
            )
        }

        def kept(name: str) -> frozenset[tuple[int, int]]:
            kept_places = places[name.partition("_")[2]]
            return frozenset(
                (layer, kept_places[layer][unit]) for layer, unit in getattr(self, name) if unit in kept_places[layer]
            )

        return Locks(**{name: kept(name) for name in self.__dataclass_fields__})

    @property
    def only_keeping(self) -> "Locks":
        """Only the locks of units that stay."""
        return replace(self, remove_head_groups=frozenset(), remove_channels=frozenset())

    def to_dict(self) -> dict[str, list[list[int]]]:
        """JSON-able: for each of the four names its [layer, index] pairs, sorted."""
        return {name: sorted(map(list, getattr(self, name))) for name in self.__dataclass_fields__}

    @classmethod
    def from_dict(cls, values: dict) -> "Locks":
        """The inverse of `to_dict`; a name that is left out locks nothing. Raises `InvalidTarget` for anything else."""
        names = tuple(cls.__dataclass_fields__)
        if not isinstance(values, dict) or not set(values) <= set(names):
            given = ", ".join(map(repr, values)) if isinstance(values, dict) else f"a {type(values).__name__}"
            raise InvalidTarget(f"Locks are an object with the names {', '.join(names)}; given was {given}.")
        for name, pairs in values.items():
            if not isinstance(pairs, list) or not all(map(_is_pair, pairs)):
                raise InvalidTarget(f"{name} must be a list of [layer, index] pairs of whole numbers, as [[0, 2]].")
        return cls(**{name: frozenset((layer, index) for layer, index in pairs) for name, pairs in values.items()})


NO_LOCKS = Locks()


def _is_pair(value) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(type(number) is int for number in value)
