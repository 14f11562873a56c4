"""How far a job is, what it has so far, and whether it is to stop: what the work and its page exchange."""

import threading
import time
from dataclasses import dataclass
from typing import Generic, TypeVar

import transact as ta

T = TypeVar("T")


@dataclass(frozen=True)
class Tick:
    """How far a job is: `done` of `total` `unit`s, and the seconds left if they go on at this pace.

    `before`: how many jobs come first, the one at work included; 0 once this one is at work.
    """

    title: str
    done: int = 0
    total: int = 0
    unit: str = ""
    seconds_left: float | None = None
    before: int = 0
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

    def __init__(self, title: str):
        self.title = title
        self.stop = threading.Event()
        self.parameters: int | None = None
        self.found: Partial | None = None
        self._began = time.monotonic()
        self._latest = Tick(title)

    def raise_if_cancelled(self, done: int = 0, total: int = 0, unit: str = "") -> None:
        """A `Progress` that shows nothing, but stops the work on request."""
        if self.stop.is_set():
            raise ta.Cancelled

    def note(self, done: int, total: int, unit: str) -> None:
        """A `Progress` that only shows, for work that looks at `stop` by itself; repeated figures change nothing."""
        latest = self._latest
        if (done, total, unit) == (latest.done, latest.total, latest.unit):
            return
        now = time.monotonic()
        if unit != latest.unit or done < latest.done or done == 0:
            self._began = now
        left = (now - self._began) / done * (total - done) if done else None
        self._latest = Tick(self.title, done, total, unit, left)

    def __call__(self, done: int, total: int, unit: str) -> None:
        self.raise_if_cancelled()
        self.note(done, total, unit)

    def says(self, title: str) -> None:
        """Begin the next stage of the same job, unless it is to stop."""
        self.shows(title)
        self.raise_if_cancelled()

    def shows(self, title: str) -> None:
        """As `says`, for work that looks at `stop` by itself."""
        self.title = title
        self._latest = Tick(title)

    def finds(self, value) -> None:
        """Show what the job has so far; only the latest is sure to be seen."""
        self.found = Partial(value)

    @property
    def latest(self) -> Tick:
        return self._latest
