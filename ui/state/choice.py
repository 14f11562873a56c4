"""What the controls of a plan say: how much goes of what, by which scores."""

from dataclasses import dataclass, field

import transact as ta


@dataclass(frozen=True)
class Budget:
    """One limit that sets both sparsities: at most `share` of what the dense model takes of `kind`."""

    kind: str
    share: float


@dataclass(frozen=True)
class Choice:
    """Everything a plan depends on besides the scores; what undo brings back.

    `attention` and `mlp` are what the sliders show, `allocation` how they are shared among the layers. A `budget`,
    or counts set by hand for every layer, come before them; whichever was touched last holds. `granularity`: whether
    the attention slider removes head groups, or query heads inside all of them, or dimensions of every head; to these
    two counts by hand are added.
    """

    metric: str = "transact"
    attention: float = 0.25
    mlp: float = 0.5
    allocation: str = "uniform"
    granularity: str = "head_groups"
    budget: Budget | None = None
    keep_head_groups: tuple[int, ...] | None = None
    keep_channels: tuple[int, ...] | None = None
    locks: ta.Locks = field(default_factory=ta.Locks)

    @property
    def by_hand(self) -> bool:
        return self.keep_head_groups is not None
