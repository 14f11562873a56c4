"""How long work reports its progress and how it is cancelled."""

from collections.abc import Callable
from typing import Protocol


class Cancelled(Exception):
    """Raised by a `Progress` to stop the work; everything the work had changed is undone."""


class StoppedEarly(Cancelled):
    """Raised inside work that keeps its results so far when it is stopped; such work catches it itself."""


class Progress(Protocol):
    """Called by long work with its progress, in the thread of the work; any function of these arguments will do.

    Between two figures it is called again with the last one, so that work can be cancelled within a second or two
    at any point: at every decoder layer, forward and backward, and in large solves at every block.
    """

    def __call__(self, done: int, total: int, unit: str) -> None:
        """Report that `done` of `total` units are finished; raise `Cancelled` to stop the work."""


Check = Callable[[], None]
"""Called regularly by work that has no figures of its own; raises `Cancelled` to stop it."""


def NO_PROGRESS(done: int, total: int, unit: str) -> None:
    """The null object of `Progress`: no report, no cancellation."""


def NO_CHECK() -> None:
    """The null object of `Check`."""


class Repeating:
    """A `Progress` that remembers its last figures: `check` reports them again, which checks for cancellation."""

    def __init__(self, progress: Progress, total: int, unit: str, done: int = 0):
        """Report at once that `done` of `total` are finished."""
        self._progress = progress
        self(done, total, unit)

    def __call__(self, done: int, total: int, unit: str) -> None:
        self._figures = done, total, unit
        self.check()

    def check(self) -> None:
        self._progress(*self._figures)


def until(progress: Progress, stop: Callable[[], bool]) -> Progress:
    """`progress` for work that may end early: raises `StoppedEarly` once `stop` says so."""

    def watch(done: int, total: int, unit: str) -> None:
        if stop():
            raise StoppedEarly
        progress(done, total, unit)

    return watch


def part(progress: Progress, number: int, count: int) -> Progress:
    """Progress of one of `count` equal pieces of work, reported as progress of the whole."""

    def watch(done: int, total: int, unit: str) -> None:
        progress(number * total + done, count * total, unit)

    return watch
