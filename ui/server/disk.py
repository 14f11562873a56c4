"""How much of the disk visitors may fill, each and all together, and what goes when it is too old or too much.

What counts is what they bring (uploads), what they make (trained and streamed models) and what they take away
(downloads). Models fetched from the hub have what these leave of the budget.
"""

import asyncio
import logging
import math
import os
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

import anyio
from gradio.utils import get_upload_folder
from starlette.types import Scope

import transact as ta
from ui.server import environment, limits
from ui.server.audience import address
from ui.server.error_messages import DiskFull
from ui.server.lifespan import running_beside
from ui.server.memory import bytes_set

logger = logging.getLogger(__name__)

BUDGET_VARIABLE = "TRANSACT_DISK_BUDGET"
EXPORTS = "transact-exports-"
"""What the name of the folder of downloads begins with; it lies beside the uploads."""
_SHARE = 0.7
"""Of what is free at the start, where others reach the page and nothing else is said."""
_EACH, _UPLOADS = 0.25, 0.25
"""Of the budget: what one visitor's files may take, and all uploads together."""
UPLOADED_EACH = 20 * limits.MAX_UPLOAD_BYTES
"""Bytes from one address of the internet within the time that uploads are kept."""
UPLOAD_SECONDS = 6 * 3600
BROKEN_OFF_SECONDS = 15 * 60
"""Without a further byte, an upload's file is one that was broken off."""
_SPARED_SECONDS = 10 * 60
"""How long a download stays for certain, for whoever is fetching it."""
_SWEEP_SECONDS = 60.0


def disk_budget() -> float:
    """Bytes that visitors' files and fetched models may fill: TRANSACT_DISK_BUDGET, else 70 % of what is free now.

    Infinity where nothing is said on one's own machine. Raises `ValueError` where the variable is no size above 0.
    """
    setting = bytes_set(BUDGET_VARIABLE)
    if setting is not None:
        return setting
    return _SHARE * shutil.disk_usage(tempfile.gettempdir()).free if environment.is_public() else math.inf


class Disk:
    """Keeps visitors' files within `budget` bytes. `results`: the folder of what they made, a folder in it for each."""

    def __init__(self, budget: float = math.inf, results: Path | None = None):
        self.budget = budget
        self._results = results
        self._lock = threading.Lock()
        self._announced: deque[tuple[float, str | None, int]] = deque()

    @property
    def used_bytes(self) -> int:
        """What visitors' files take, uploads that were only announced not included."""
        return sum(map(size_of, (self._uploads, self._results)))

    def need(self, *own: Path) -> None:
        """Raise `DiskFull` unless the visitor whose folders those are may write more; old downloads make room."""
        if math.isinf(self.budget):
            return
        if sum(map(size_of, own)) > _EACH * self.budget:
            raise DiskFull(
                f"What you made here fills {_EACH * self.budget / 1e9:,.1f} GB of the disk, which is all that one "
                "visitor may. Reload the page in a new tab to begin anew, or wait until it is cleared away."
            )
        if self.used_bytes <= self.budget:
            return
        for folder in self._old_downloads(spared=own):
            shutil.rmtree(folder, ignore_errors=True)
            if self.used_bytes <= self.budget:
                return
        raise DiskFull(
            f"Visitors' files fill all of the {self.budget / 1e9:,.1f} GB that this page may take on the disk. Try "
            f"again later; who runs the page sets {BUDGET_VARIABLE}."
        )

    def make_room_for_model(self, size: int, keep: Collection[str]) -> None:
        """Let models that were fetched earlier go, but for those in `keep`, where one of `size` bytes is to come."""
        if math.isfinite(self.budget):
            ta.trim_hub_cache(max(0, int(self.budget) - self.used_bytes - size), keep=keep)

    def upload_refused(self, scope: Scope, size: int) -> str | None:
        """Why an upload of so many bytes is not taken now, None where it is; counts it then."""
        now, own = time.monotonic(), address(scope)
        with self._lock:
            while self._announced and now - self._announced[0][0] > UPLOAD_SECONDS:
                self._announced.popleft()
            from_there = sum(other for _, place, other in self._announced if place == own)
            if own is not None and from_there + size > UPLOADED_EACH:
                return (
                    f"{from_there / 1e6:,.0f} MB were uploaded from your address within six hours; at most "
                    f"{UPLOADED_EACH / 1e6:,.0f} MB are taken. Try again later."
                )
            if sum(other for *_, other in self._announced) + size > _UPLOADS * self.budget:
                return "So much was uploaded lately that the disk has no room for more. Try again in some hours."
            self._announced.append((now, own, size))
        return None

    def watching(self, app) -> AbstractAsyncContextManager[None]:
        """Sweep for as long as the server runs: its lifespan."""
        return running_beside(self._sweep_on)

    def sweep(self, now: float) -> None:
        """Remove uploads that are too old, or were broken off, at the time `now` (in seconds since 1970)."""
        for file in _files(self._uploads):
            if any(part.startswith(EXPORTS) for part in file.relative_to(self._uploads).parts):
                continue
            kept = BROKEN_OFF_SECONDS if file.parent == self._uploads else UPLOAD_SECONDS
            with suppress(OSError):
                if now - file.lstat().st_mtime > kept:
                    file.unlink()
                    if file.parent != self._uploads:
                        file.parent.rmdir()  # fails where another file is left in it

    async def _sweep_on(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            try:
                await anyio.to_thread.run_sync(lambda: self.sweep(_files_clock()))
            except OSError:  # what comes and goes meanwhile; the next sweep looks again
                logger.exception("a sweep of the disk failed")

    def _old_downloads(self, spared: Collection[Path]) -> list[Path]:
        """Visitors' sets of downloads that nobody can be fetching any more, the oldest first."""
        sets = [folder for folder in self._uploads.glob(f"{EXPORTS}*/*") if folder.is_dir() and folder not in spared]
        dated = sorted((folder.stat().st_mtime, folder) for folder in sets)
        now = _files_clock() if dated else 0.0
        return [folder for made, folder in dated if now - made > _SPARED_SECONDS]

    @property
    def _uploads(self) -> Path:
        return Path(get_upload_folder())


def _files_clock() -> float:
    """The time as the file system writes it on a file: a file's age is measured by the clock that dated it."""
    with tempfile.TemporaryFile() as new:
        return os.fstat(new.fileno()).st_mtime


def size_of(folder: Path | None) -> int:
    """Bytes on the disk of all files below a folder; none where there is no such folder."""
    total = 0
    for file in _files(folder) if folder is not None else ():
        with suppress(OSError):
            total += file.lstat().st_blocks * 512
    return total


def _files(folder: Path) -> Iterator[Path]:
    for place, _, names in os.walk(folder):
        for name in names:
            yield Path(place, name)
