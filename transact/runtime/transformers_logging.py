"""The progress bars of `transformers`: reported to a callback instead of drawn, as this library has a `Progress`."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from functools import cache
from typing import Any

from transformers.utils import logging

ItemCallback = Callable[[int, int], None]
"""Takes how many items of how many are done; may raise."""


class _OfThread(threading.local):
    """The callback for the bars of this thread."""

    report_progress: ItemCallback | None = None


_of_thread = _OfThread()


@contextmanager
def no_progress_bars(report_progress: ItemCallback | None = None) -> Iterator[None]:
    """No bars in this block; `report_progress` is called before each item of a bar of this thread, and may raise.

    This makes the loading of weights, otherwise a single call, cancellable.
    """
    shown, before = logging.is_progress_bar_enabled(), _of_thread.report_progress
    logging.disable_progress_bar()
    _hook_bars()
    _of_thread.report_progress = report_progress
    try:
        yield
    finally:
        _of_thread.report_progress = before
        if shown:
            logging.enable_progress_bar()


@cache
def _hook_bars() -> None:
    """Have every bar from now on made by `_bar`, once for all threads."""
    before: Callable = logging.set_tqdm_hook(lambda *bar: _bar(before, *bar))


def _bar(before: Callable | None, factory: Callable, arguments: tuple, named: dict[str, Any]) -> Any:
    """A bar as `before`, or else `transformers`, makes it, over items that are reported to this thread's callback."""
    if _of_thread.report_progress is not None and arguments and isinstance(arguments[0], Iterable):
        arguments = _counted(arguments[0], _of_thread.report_progress), *arguments[1:]
    return factory(*arguments, **named) if before is None else before(factory, arguments, named)


def _counted(items: Iterable, report_progress: ItemCallback) -> Iterator:
    total = len(items) if isinstance(items, Sized) else 0
    for done, item in enumerate(items):
        report_progress(done, total)
        yield item
