"""How far a job of several steps is, and how long all of it will still take.

The time left is that of the step at work, by its own pace once it has one, and what the steps after it are expected to
take, longer or shorter as those before it were.
"""

import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import groupby

_DOUBT = 0.15
"""How much the expectation weighs against what was seen, as a share of the whole job."""
_OWN_PACE = 0.4
"""Of a step: from there on its own pace alone says when it ends."""


@dataclass(frozen=True)
class Step:
    """A part of a job: `name`, with which its titles begin, and the seconds that it should take, None where unknown.

    `work`: what it costs, in operations of a forward pass or in bytes; `kind`: what the times of earlier ones are
    remembered by; `group`: the name under which it is shown with those beside it, where there are many.
    """

    name: str
    seconds: float | None = None
    work: float = 0.0
    kind: Hashable = None
    group: str = ""

    @property
    def shown(self) -> str:
        return self.group or self.name


class Forecast:
    """The steps of one job as they pass; those that are not announced, or left out, do no harm."""

    def __init__(self, steps: Sequence[Step] = (), clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._coming = list(steps)
        self._expected = sum(step.seconds or 0.0 for step in steps)
        self._taken: list[tuple[Step, float]] = []
        self._begin(Step(""))
        self._share = 0.0

    @property
    def timings(self) -> list[tuple[Step, float]]:
        """The steps that are over, and the seconds that each took."""
        return [(step, seconds) for step, seconds in self._taken if step.work]

    @property
    def number(self) -> int:
        """Which of `names` is at work, counted from 1; 0 before the first."""
        return len(_names([*(step for step, _ in self._taken), self._step]))

    @property
    def names(self) -> tuple[str, ...]:
        """All steps, as far as is known, those that are over first."""
        return tuple(_names([*(step for step, _ in self._taken), self._step, *self._coming]))

    def start(self) -> None:
        """The job begins; until then it waits."""
        self._begin(Step(""))

    def begin(self, title: str) -> None:
        """The step of that title begins: an announced one, those before it being left out, or one of its own."""
        names = [step.name for step in self._coming]
        at = next((index for index, name in enumerate(names) if title.startswith(name)), None)
        if at is None:
            self._next(Step(title, group=self._step.group))
        else:
            step = self._coming[at]
            del self._coming[: at + 1]
            self._next(step)

    def end(self) -> None:
        """The job is over."""
        self._next(Step(""))

    def note(self, done: int, total: int, unit: str) -> None:
        """How far the step is. Figures that start anew, or in another unit, are of another part of the same step."""
        is_first = not self._total
        if not is_first and (unit != self._unit or total != self._total or done < self._done):
            self._part_began, self._done_at_first = self._clock(), done
        self._done, self._total, self._unit = done, total, unit

    def seconds_left(self) -> float | None:
        """Until the job ends; None where nothing is known of the step at work."""
        own = self._left_of_step()
        if own is None and (self._step.name or not self._expected):
            return None
        own = own or 0.0  # not begun
        return own + self._pace() * sum(step.seconds or 0.0 for step in self._coming)

    def share(self) -> float | None:
        """Of the whole job, by its time: never less than before; None where nothing is known."""
        left = self.seconds_left()
        if left is None:
            return None
        gone = self._gone() + sum(seconds for _, seconds in self._taken)
        self._share = max(self._share, gone / max(gone + left, 1e-9))
        return self._share

    def _begin(self, step: Step) -> None:
        self._step, self._began = step, self._clock()
        self._part_began, self._done, self._done_at_first, self._total, self._unit = self._began, 0, 0, 0, ""

    def _next(self, step: Step) -> None:
        self._taken.append((self._step, self._gone()))
        self._begin(step)

    def _gone(self) -> float:
        return self._clock() - self._began

    def _left_of_step(self) -> float | None:
        """By the pace of its figures, the more the further these are, and by what was expected."""
        gone, expected = self._gone(), self._step.seconds
        awaited = None if expected is None else max(self._pace() * expected - gone, 0.1 * gone)
        part = self._clock() - self._part_began
        moved, still = self._done - self._done_at_first, self._total - self._done
        if moved <= 0 or not self._total:
            return awaited
        by_pace = part / moved * still
        if awaited is None:
            return by_pace
        if self._part_began > self._began:  # a part of the step: what follows it is not known by its own figures
            return max(by_pace, awaited)
        weight = min(1.0, moved / self._total / _OWN_PACE)
        return weight * by_pace + (1 - weight) * awaited

    def _pace(self) -> float:
        """How much longer than expected the steps so far have taken, drawn towards 1 while little is over."""
        known = [(step.seconds, seconds) for step, seconds in self._taken if step.seconds]
        doubt = _DOUBT * self._expected
        expected = doubt + sum(asked for asked, _ in known)
        return (doubt + sum(seconds for _, seconds in known)) / expected if expected else 1.0


def _names(steps: Sequence[Step]) -> list[str]:
    """Each name once for steps that follow each other under it."""
    return [name for name, _ in groupby(step.shown for step in steps if step.name)]
