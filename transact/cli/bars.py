"""Progress bars on standard error, where that is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO

from huggingface_hub.utils import disable_progress_bars
from tqdm import tqdm

from transact.progress import NO_PROGRESS, Progress

Meter = Callable[[str], Progress]
"""Gives the `Progress` of a step that has a label."""


@contextmanager
def progress_bars(*, quiet: bool) -> Iterator[Meter]:
    """Bars that vanish when their step is over; none at all when `quiet` or where standard error is no terminal."""
    if quiet or not sys.stderr.isatty():
        with disable_progress_bars():  # the hub draws its own while it downloads
            yield lambda label: NO_PROGRESS
        return
    bars = _Bars()
    try:
        yield bars.labelled
    finally:
        bars.close()


@contextmanager
def alone(progress: Progress) -> Iterator[Progress]:
    """Show only `progress` and suppress all other output meanwhile: for packages that cannot be silenced."""
    shown = sys.stderr

    def report_progress(done: int, total: int, unit: str) -> None:
        with redirect_stderr(shown):
            progress(done, total, unit)

    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        yield report_progress


class _Bars:
    """One bar at a time: a step that counts something new gets a new one."""

    def __init__(self):
        self._bar: tqdm | None = None
        self._counted: tuple[str, int, str] | None = None

    def labelled(self, label: str) -> Progress:
        def show(done: int, total: int, unit: str) -> None:
            bar = self._bar
            if bar is None or self._counted != (label, total, unit):
                self.close()
                bar = self._bar = tqdm(desc=label, total=total, unit=f" {unit}", unit_scale=True, leave=False)
                self._counted = (label, total, unit)
            bar.update(done - bar.n)

        return show

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
        self._bar = self._counted = None
