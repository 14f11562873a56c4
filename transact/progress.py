"""How long work reports its progress and how it is stopped."""

from typing import Protocol


class Cancelled(Exception):
    """Raised by a `Progress` to stop the work; everything the work had changed is undone on the way out."""


class Progress(Protocol):
    """Told by long work how far it is, in the thread of the work; any function of these arguments will do."""

    def __call__(self, done: int, total: int, unit: str) -> None:
        """Take note that `done` of `total` units are finished; raise `Cancelled` to stop."""


def NO_PROGRESS(done: int, total: int, unit: str) -> None:
    """The null object: nobody watches and nobody stops the work."""


def part(progress: Progress, number: int, count: int) -> Progress:
    """Progress of one of `count` equal pieces of work, told as progress of the whole."""

    def watch(done: int, total: int, unit: str) -> None:
        progress(number * total + done, count * total, unit)

    return watch
