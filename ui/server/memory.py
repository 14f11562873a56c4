"""A budget of bytes, what counts towards it, and shelves that keep within bounds."""

import math
import os
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields, is_dataclass

from transact.runtime.memory import limit_bytes

BUDGET_VARIABLE = "TRANSACT_MEMORY_BUDGET"
_BUDGET_SHARE = 0.7
"""Of the memory that this machine or container has; the rest is for computing, and for everything else."""
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}


def memory_budget() -> int:
    """Bytes that models and scores may fill: TRANSACT_MEMORY_BUDGET ("6GB", "500 MB", bytes), or 70 % of the memory.

    Raises `ValueError` where the variable holds anything else.
    """
    setting = bytes_set(BUDGET_VARIABLE)
    return int(_BUDGET_SHARE * limit_bytes()) if setting is None else setting


def bytes_set(variable: str) -> int | None:
    """The bytes that a host has set, None where nothing is; raises `ValueError` for what is no size above 0."""
    setting = os.environ.get(variable, "").strip()
    if not setting:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", setting.lower())
    if not match or float(match[1]) == 0:
        raise ValueError(f"{variable} is {setting!r}; give bytes above 0, as 6000000000, 500MB or 6GB.")
    return int(float(match[1]) * _UNITS[match[2]])


def nbytes(value) -> int:
    """Bytes of all arrays and tensors within a value, however deep in dataclasses, sequences and mappings."""
    size = getattr(value, "nbytes", None)
    if isinstance(size, int):
        return size
    if is_dataclass(value):
        return sum(nbytes(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, Mapping):
        return sum(map(nbytes, value.values()))
    return sum(map(nbytes, value)) if isinstance(value, list | tuple) else 0


class LruCache:
    """Values by key, least recently used first."""

    def __init__(
        self,
        *,
        max_items: int,
        max_bytes: float = math.inf,
        idle_seconds: float = math.inf,
        dropped: Callable[[int, str], None] = lambda size, why: None,
    ):
        """`dropped` is called with the bytes of what makes room or expires, and why: "number", "memory" or "idle"."""
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._idle_seconds = idle_seconds
        self._dropped = dropped
        self._lock = threading.RLock()
        self._items: OrderedDict[Hashable, tuple[float, int, object]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def keys(self) -> list[Hashable]:
        with self._lock:
            return list(self._items)

    @property
    def held_bytes(self) -> int:
        with self._lock:
            return sum(size for _, size, _ in self._items.values())

    @property
    def oldest(self) -> float:
        """When the value that was used longest ago was used; infinity where there is none."""
        with self._lock:
            return next((used for used, _, _ in self._items.values()), math.inf)

    def get(self, key: Hashable):
        """The value, now the most recently used; None where it has gone."""
        with self._lock:
            self.expire()
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
            self.expire()
            while len(self._items) > max(1, self._max_items):
                self.drop_oldest("number")
            while len(self._items) > 1 and self.held_bytes > self._max_bytes:
                self.drop_oldest()

    def drop_oldest(self, why: str = "memory") -> bool:
        """Make room; False where there is nothing left to drop."""
        with self._lock:
            if not self._items:
                return False
            _, (_, size, _) = self._items.popitem(last=False)
            self._dropped(size, why)
            return True

    def drop(self, chosen: Callable[[Hashable], bool]) -> None:
        """Drop every key that `chosen` says yes to."""
        with self._lock:
            for key in [key for key in self._items if chosen(key)]:
                del self._items[key]

    def expire(self) -> None:
        """Drop what was not used for too long."""
        with self._lock:
            while time.monotonic() - self.oldest > self._idle_seconds:
                self.drop_oldest("idle")
