"""How long work reports its progress and how it is stopped."""

from collections.abc import Callable
from typing import Protocol


class Cancelled(Exception):
    """Raised by a `Progress` to stop the work; everything the work had changed is undone on the way out."""


class StoppedEarly(Cancelled):
    """Raised inside work that keeps what it has so far when it is told to stop; such work catches it itself."""


class Progress(Protocol):
    """Told by long work how far it is, in the thread of the work; any function of these arguments will do.

    Between two figures the last one is told again and again, so that work can be stopped within a second or two
    wherever it is: at every decoder layer, forward and backward, and in large solves at every block.
    """

    def __call__(self, done: int, total: int, unit: str) -> None:
        """Take note that `done` of `total` units are finished; raise `Cancelled` to stop."""


Check = Callable[[], None]
"""Called now and then by work that has no figures of its own; raises `Cancelled` to stop it."""


def NO_PROGRESS(done: int, total: int, unit: str) -> None:
    """The null object: nobody watches and nobody stops the work."""


def NO_CHECK() -> None:
    """The null object of `Check`."""


class Repeating:
    """A `Progress` that can be told the same again: `check` asks, between two figures, whether the work is to stop."""

    def __init__(self, progress: Progress, total: int, unit: str, done: int = 0):
        """Tell at once that so many of `total` are done."""
        self._progress = progress
        self(done, total, unit)

    def __call__(self, done: int, total: int, unit: str) -> None:
        self._figures = done, total, unit
        self.check()

    def check(self) -> None:
        self._progress(*self._figures)


def part(progress: Progress, number: int, count: int) -> Progress:
    """Progress of one of `count` equal pieces of work, told as progress of the whole."""

    def watch(done: int, total: int, unit: str) -> None:
        progress(number * total + done, count * total, unit)

    return watch
