"""The progress bars of `transformers`: not drawn, as callers of this library have a `Progress`, which hears of them."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from functools import cache
from typing import Any

from transformers.utils import logging

Told = Callable[[int, int], None]
"""Takes how many items of how many are done; may raise."""


class _Here(threading.local):
    """Who hears of the bars of this thread."""

    told: Told | None = None


_here = _Here()


@contextmanager
def no_progress_bars(told: Told | None = None) -> Iterator[None]:
    """No bars in this block; `told` hears before each item of those that this thread would have drawn, and may raise.

    So can loading weights be stopped, which is a single call otherwise.
    """
    shown, before = logging.is_progress_bar_enabled(), _here.told
    logging.disable_progress_bar()
    _listen()
    _here.told = told
    try:
        yield
    finally:
        _here.told = before
        if shown:
            logging.enable_progress_bar()


@cache
def _listen() -> None:
    """Have every bar from now on made by `_bar`, once for all threads."""
    before: Callable = logging.set_tqdm_hook(lambda *bar: _bar(before, *bar))


def _bar(before: Callable | None, factory: Callable, arguments: tuple, named: dict[str, Any]) -> Any:
    """A bar as `before` makes it, or else `transformers` itself, over items that this thread's `told` hears of."""
    if _here.told is not None and arguments and isinstance(arguments[0], Iterable):
        arguments = _counted(arguments[0], _here.told), *arguments[1:]
    return factory(*arguments, **named) if before is None else before(factory, arguments, named)


def _counted(items: Iterable, told: Told) -> Iterator:
    total = len(items) if isinstance(items, Sized) else 0
    for done, item in enumerate(items):
        told(done, total)
        yield item
