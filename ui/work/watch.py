"""How far a job is, what it has so far, and whether it is to stop: what the work and its page exchange."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import transact as ta
from ui.work.forecast import Forecast, Step

T = TypeVar("T")


@dataclass(frozen=True)
class Tick:
    """How far a job is: `done` of `total` `unit`s of the step at work, which is the `number`-th of `steps`.

    `share`: of all of the job, by time, and `seconds_left` until it ends; None where that is not known. `before`: how
    many jobs come first, the one at work included, and `wait` the seconds that they should take; 0 once this one is at
    work.
    """

    title: str
    done: int = 0
    total: int = 0
    unit: str = ""
    seconds_left: float | None = None
    share: float | None = None
    number: int = 0
    steps: tuple[str, ...] = ()
    before: int = 0
    wait: float | None = None
    stopping: bool = False

    @property
    def waiting(self) -> bool:
        return self.before > 0


@dataclass(frozen=True)
class Finished(Generic[T]):
    """The last thing a job yields."""

    value: T


@dataclass(frozen=True)
class Partial(Generic[T]):
    """What a job has so far, to be shown while it goes on."""

    value: T


class Watch:
    """The `Progress` that a job hands to the library: keeps the latest figures, and stops the work on request.

    `parameters`: of the dense model that the work is about, noted by whoever fetches it.
    """

    def __init__(self, title: str, steps: Sequence[Step] = ()):
        """`steps`: what the job is expected to consist of."""
        self.title = title
        self.forecast = Forecast(steps)
        self.stop = threading.Event()
        self.parameters: int | None = None
        self.found: Partial | None = None
        self._figures = (0, 0, "")

    def raise_if_cancelled(self, done: int = 0, total: int = 0, unit: str = "") -> None:
        """A `Progress` that shows nothing, but stops the work on request."""
        if self.stop.is_set():
            raise ta.Cancelled

    def note(self, done: int, total: int, unit: str) -> None:
        """A `Progress` that only shows, for work that looks at `stop` by itself; repeated figures change nothing."""
        if (done, total, unit) != self._figures:
            self._figures = done, total, unit
            self.forecast.note(done, total, unit)

    def __call__(self, done: int, total: int, unit: str) -> None:
        self.raise_if_cancelled()
        self.note(done, total, unit)

    def says(self, title: str) -> None:
        """Begin the next step of the same job, unless it is to stop."""
        self.title, self._figures = title, (0, 0, "")
        self.forecast.begin(title)
        self.raise_if_cancelled()

    def shows(self, title: str) -> None:
        """Another title for the step at work; for work that looks at `stop` by itself."""
        self.title = title

    def finds(self, value) -> None:
        """Show what the job has so far; only the latest is sure to be seen."""
        self.found = Partial(value)

    @property
    def latest(self) -> Tick:
        """How far it is now; the time in steps, so that what looks the same is equal."""
        forecast, left, share = self.forecast, self.forecast.seconds_left(), self.forecast.share()
        return Tick(
            self.title, *self._figures, None if left is None else float(round(left)),
            None if share is None else round(share, 3), forecast.number, forecast.names,
        )  # fmt: skip
