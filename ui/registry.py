"""Models in memory: dense ones shared by all visitors and never changed, pruned ones per visitor.

Both shelves are bounded in bytes and number and drop what was used longest ago. Nothing is lost by that:
a dense model is loaded again from its source, a pruned one is cut again from its plan, and one that was trained is
read again from its folder.
"""

import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path

import psutil

import transact as ta
from ui import host
from ui.errors import WrongInput
from ui.folders import folder_name
from ui.session import BUNDLED, ModelKey, Sampling, Scored
from ui.texts import TextSource

_DENSE_SHARE, _PRUNED_SHARE, _GRAM_SHARE = 0.5, 0.25, 0.1
"""Shares of this machine's memory that the shelves may fill."""
_MAX_DENSE, _MAX_PRUNED, _MAX_SCORED, _MAX_PROBED, _MAX_GRAM = 4, 16, 32, 8, 4
_PRUNED_SECONDS = 30 * 60


class Shelf:
    """Values by key, least recently used first."""

    def __init__(self, *, max_items: int, max_bytes: float = float("inf"), idle_seconds: float = float("inf")):
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._idle_seconds = idle_seconds
        self._lock = threading.Lock()
        self._items: OrderedDict[Hashable, tuple[float, int, object]] = OrderedDict()

    def get(self, key: Hashable):
        """The value, now the most recently used; None where it has gone."""
        with self._lock:
            self._expire()
            if key not in self._items:
                return None
            _, size, value = self._items.pop(key)
            self._items[key] = (time.monotonic(), size, value)
            return value

    def put(self, key: Hashable, value, size: int = 0) -> None:
        """Add a value and drop the oldest others until the shelf is within its bounds."""
        with self._lock:
            self._items.pop(key, None)
            self._items[key] = (time.monotonic(), size, value)
            self._expire()
            while len(self._items) > 1 and self._is_over():
                self._items.popitem(last=False)

    def drop_oldest(self) -> bool:
        """Make room; False where there is nothing left to drop."""
        with self._lock:
            if not self._items:
                return False
            self._items.popitem(last=False)
            return True

    def drop(self, wanted: Callable[[Hashable], bool]) -> None:
        """Drop every key that `wanted` says yes to."""
        with self._lock:
            for key in [key for key in self._items if wanted(key)]:
                del self._items[key]

    def _is_over(self) -> bool:
        held = sum(size for _, size, _ in self._items.values())
        return len(self._items) > self._max_items or held > self._max_bytes

    def _expire(self) -> None:
        now = time.monotonic()
        for key in [key for key, (used, _, _) in self._items.items() if now - used > self._idle_seconds]:
            del self._items[key]


class Registry:
    """The models and calibration runs that are in memory. Who computes with a model holds the model lock."""

    def __init__(self):
        memory = psutil.virtual_memory().total
        self._bundled: ta.LoadedModel | None = None
        self._flops_per_second: float | None = None
        self._dense = Shelf(max_items=_MAX_DENSE, max_bytes=_DENSE_SHARE * memory)
        self._pruned = Shelf(max_items=_MAX_PRUNED, max_bytes=_PRUNED_SHARE * memory, idle_seconds=_PRUNED_SECONDS)
        self._scored = Shelf(max_items=_MAX_SCORED)
        self._probed = Shelf(max_items=_MAX_PROBED)
        self._gram = Shelf(max_items=_MAX_GRAM, max_bytes=_GRAM_SHARE * memory)
        self._trainings = tempfile.TemporaryDirectory(prefix="transact-trainings-")

    def dense(self, key: ModelKey, progress: ta.Progress = ta.NO_PROGRESS) -> ta.LoadedModel:
        """The model as published, loaded if it is not in memory; the bundled one stays for good.

        Other visitors' models make room where memory is short. Raises what `transact.load` raises.
        """
        _check_place(key)
        if key == BUNDLED:
            self._bundled = self._bundled or ta.load(key.source, progress=progress)
            return self._bundled
        held = self._dense.get(key)
        if held is not None:
            return held
        while not self.preflight(key).fits and (self._pruned.drop_oldest() or self._dense.drop_oldest()):
            pass
        loaded = ta.load(key.source, dtype=key.dtype, revision=key.revision, progress=progress)
        self._dense.put(key, loaded, _bytes(loaded))
        return loaded

    def in_memory(self, key: ModelKey) -> ta.LoadedModel | None:
        """The model if it is there now; nothing is loaded."""
        return self._bundled if key == BUNDLED else self._dense.get(key)

    def preflight(self, key: ModelKey) -> ta.Preflight:
        """What loading `key` would need."""
        _check_place(key)
        return ta.preflight(key.source, dtype=key.dtype, revision=key.revision)

    def keep_pruned(self, owner: str, number: int, pruned: ta.LoadedModel) -> None:
        self._pruned.put((owner, number), pruned, _bytes(pruned))

    def pruned(self, owner: str, number: int) -> ta.LoadedModel | None:
        """The visitor's pruned model, or None where it had to make room."""
        return self._pruned.get((owner, number))

    def keep_scored(self, scored: Scored) -> None:
        self._scored.put((scored.key, scored.text, scored.sampling), scored)

    def scored(self, key: ModelKey, text: TextSource, sampling: Sampling) -> Scored | None:
        """An earlier run over the same text with the same settings, whoever made it."""
        return self._scored.get((key, text, sampling))

    def gram_statistics(
        self, scored: Scored, observe: Callable[[], ta.ActivationStatistics]
    ) -> ta.ActivationStatistics:
        """Statistics with Gram matrices for a calibration run; they are large, so only the latest few stay."""
        key = (scored.key, scored.text, scored.sampling)
        statistics = self._gram.get(key) or observe()
        self._gram.put(key, statistics, _gram_bytes(statistics))
        return statistics

    def dense_probes(self, key: ModelKey, run: Callable[[], list[ta.ProbeResult]]) -> list[ta.ProbeResult]:
        """How the dense model does in the probes; run once, since it never changes."""
        results = self._probed.get(key) or run()
        self._probed.put(key, results)
        return results

    def note_speed(self, flops: float, seconds: float) -> None:
        """Remember how fast this machine was last, to say how long the next run will take."""
        self._flops_per_second = flops / max(seconds, 1e-3)

    def seconds_for(self, flops: float) -> float | None:
        """How long that much work should take; None before anything was timed."""
        return None if self._flops_per_second is None else flops / self._flops_per_second

    def training_folder(self, owner: str) -> Path:
        """A new folder for a trained model: unlike one that was only cut, it can't be made again in a moment."""
        own = self._trainings_of(owner)
        own.mkdir(exist_ok=True)
        return Path(tempfile.mkdtemp(dir=own))

    def _trainings_of(self, owner: str) -> Path:
        return Path(self._trainings.name) / folder_name(owner)

    def forget(self, owner: str) -> None:
        """Drop what belongs to a visitor who left."""
        self._pruned.drop(lambda key: key[0] == owner)
        shutil.rmtree(self._trainings_of(owner), ignore_errors=True)


def _check_place(key: ModelKey) -> None:
    """Raise `WrongInput` for a folder that visitors of this machine may not name."""
    if key.source != BUNDLED.source and not host.may_name(key.source):
        raise WrongInput(host.refusal(key.source))


def _bytes(loaded: ta.LoadedModel) -> int:
    return loaded.spec.num_parameters * loaded.dtype.itemsize


def _gram_bytes(statistics: ta.ActivationStatistics) -> int:
    return sum(moments.gram.nbytes for moments in (*statistics.attention, *statistics.mlp))
