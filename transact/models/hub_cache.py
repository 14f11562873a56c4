"""The hub client's cache: damaged files in it, and what is removed when it is too large.

The client names every file after its checksum but checks no more than the name of a cached one. A damaged weight file
may load without an error and compute something else. And the client never removes a file.
"""

import hashlib
import os
import secrets
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from huggingface_hub import constants

from transact.progress import NO_PROGRESS, Progress

_BLOCK_BYTES = 16 << 20
_CHECKSUMS = {64: "sha256", 40: "git"}
"""Kind of checksum by its number of hexadecimal digits: SHA-256 for large files, git's blob id for small ones."""

_whole: set[tuple[str, int, int]] = set()
"""Path, size and time of change of the files that were found undamaged, so that each is read once."""


def damaged(place: Path, progress: Progress = NO_PROGRESS) -> list[Path]:
    """The files of a snapshot (or that one file) whose content does not match the checksum in their name.

    Files outside such a cache count as undamaged. Reports "bytes", and raises what `progress` raises.
    """
    files = [place] if place.is_file() else sorted(file for file in place.iterdir() if file.is_file())
    unread = [file for file in files if _checksum(file) and _identity(file) not in _whole]
    total, read, damaged_files = sum(file.stat().st_size for file in unread), 0, []
    for file in unread:
        digest = _hasher(file)
        for block in _blocks(file):
            digest.update(block)
            read += len(block)
            progress(read, total, "bytes")
        if digest.hexdigest() == file.resolve().name:
            _whole.add(_identity(file))
        else:
            damaged_files.append(file)
    return damaged_files


def drop(file: Path) -> None:
    """Remove a file of a snapshot together with its content in the cache, so that it is fetched anew."""
    file.resolve().unlink(missing_ok=True)
    file.unlink(missing_ok=True)


def note_use(place: Path) -> None:
    """Record that a file or a snapshot of the cache is used now; other files are left as they are."""
    repository = next((parent for parent in place.parents if parent.parent == _cache()), None)
    if repository is not None:
        with suppress(OSError):  # a read-only cache is never trimmed either
            os.utime(repository)


def trim_hub_cache(at_most: int, *, keep: Collection[str] = ()) -> int:
    """Remove whole repositories from the hub client's cache until it has at most `at_most` bytes; returns how many
    bytes were removed.

    The one that was used longest ago by this library goes first; those whose hub ids are in `keep` stay, even if
    the rest does not suffice.
    """
    kept = {f"models--{name.replace('/', '--')}" for name in keep}
    held = sorted((_used(folder), folder, _size(folder)) for folder in _cache().glob("*s--*") if folder.is_dir())
    total, removed = sum(size for *_, size in held), 0
    for _, folder, size in held:
        if total - removed <= at_most:
            break
        if folder.name in kept:
            continue
        away = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.gone")
        try:
            folder.rename(away)  # in one step, so that no reader finds a part of it
        except OSError:
            continue
        shutil.rmtree(away, ignore_errors=True)
        removed += size
    return removed


def _cache() -> Path:
    return Path(constants.HF_HUB_CACHE)


def _used(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def _size(folder: Path) -> int:
    """Bytes on the disk of all files below a folder; links count as nothing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_blocks * 512
    return total


def _checksum(file: Path) -> str | None:
    name = file.resolve().name
    in_cache = file.is_symlink() and all(letter in "0123456789abcdef" for letter in name)
    return _CHECKSUMS.get(len(name)) if in_cache else None


def _hasher(file: Path):
    if _checksum(file) == "sha256":
        return hashlib.sha256()
    return hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)


def _identity(file: Path) -> tuple[str, int, int]:
    blob = file.resolve()
    status = blob.stat()
    return str(blob), status.st_size, status.st_mtime_ns


def _blocks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK_BYTES):
            yield block
