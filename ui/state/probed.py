"""What a probe of the model found for the goal, and for which scores."""

from dataclasses import dataclass

import transact as ta


@dataclass(frozen=True, eq=False)
class Probed:
    """A frontier, and `more_in`: the layers that can lose more of their channels than the mean, by their scores.

    `fingerprint` of the calibration text that it belongs to.
    """

    frontier: ta.Frontier
    more_in: tuple[int, ...]
    fingerprint: str

    def is_of(self, scored) -> bool:
        """Whether it was found on the text of those scores."""
        return scored is not None and scored.calibration.fingerprint == self.fingerprint
