"""What this process grows by while something is done."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psutil

_SECONDS = 0.005


@dataclass
class Growth:
    """`bytes`: the most that was resident beyond what was at the beginning."""

    bytes: int = 0


@contextmanager
def growth() -> Iterator[Growth]:
    """Watch until the block ends."""
    process, ended, grown = psutil.Process(), threading.Event(), Growth()
    before = process.memory_info().rss

    def look() -> None:
        grown.bytes = max(grown.bytes, process.memory_info().rss - before)

    def watch() -> None:
        while not ended.wait(_SECONDS):
            look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield grown
    finally:
        look()
        ended.set()
        watcher.join()
