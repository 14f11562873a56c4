"""How much memory there is (the machine's, or a container's share of it), whether it ran out, and how freed memory is
returned to the system."""

import contextlib
import ctypes
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import psutil
import torch

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUP = Path("/proc/self/cgroup")
_VERSION_2 = ("memory.max", "memory.current", "inactive_file")
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
"""Files of limit and use, and the entry of memory.stat for the file cache that can be reclaimed at once."""
_M_MMAP_THRESHOLD, _LARGE_BYTES = -3, 1 << 20


def limit_bytes() -> int:
    """The most that this process can ever have."""
    return min([psutil.virtual_memory().total, *(limit for limit, _ in _control_groups())])


def available_bytes() -> int:
    """What can still be taken without swapping, or without the container being killed."""
    left = [limit - used for limit, used in _control_groups()]
    return max(0, min([psutil.virtual_memory().available, *left]))


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: Python's, torch's for a GPU, or what its CPU allocator says."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    message = str(error).lower()
    return isinstance(error, (RuntimeError, OSError)) and ("allocate memory" in message or "alloc_cpu" in message)


def _control_groups() -> Iterator[tuple[int, int]]:
    """Limit and use of every control group that bounds this process: its own and those above."""
    try:
        own = next(line[3:] for line in _OWN_CGROUP.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        own = "/"
    path = PurePosixPath(own.lstrip("/"))
    folders = [(_CGROUPS / group, _VERSION_2) for group in (path, *path.parents)]
    for folder, (limit, usage, reclaimable) in [*folders, (_CGROUPS / "memory", _VERSION_1)]:
        try:
            most, used = int((folder / limit).read_text()), int((folder / usage).read_text())
            statistics = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):  # not there, or "max", which is no limit
            continue
        yield most, used - int(statistics.get(reclaimable, 0))


def return_large_blocks() -> None:
    """Have the C library return blocks from 1 MB on as soon as they are freed, in this process from now on.

    glibc by default keeps freed blocks of up to 32 MB, such as the activations of a layer, and they added to the
    matrices made later (hundreds of megabytes, measured). Where the library can't, nothing happens.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library, or another system
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def return_freed() -> None:
    """Return the freed memory that the C library keeps to the system: for the end of a piece of work.

    glibc keeps freed pages between other blocks for good, so that a process that serves many users grows without
    holding anything. Takes milliseconds. Where the library can't, nothing happens.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
