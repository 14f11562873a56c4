"""How things are looked at: which unit every view points at, and the scale of the maps."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Selection:
    """What every view points at: a layer, and in it a head, or channels (those of a bin, best first), or neither."""

    layer: int = 0
    head: int | None = None
    channels: tuple[int, ...] = ()


@dataclass(frozen=True)
class View:
    """How things are looked at; nothing of it changes a plan."""

    selection: Selection = field(default_factory=Selection)
    normalisation: str = "layer"
