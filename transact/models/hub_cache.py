"""The hub client's cache: files in it that are no longer what the hub published, and what goes when it is too large.

The client names every file after its checksum but looks at no more than the name when it finds one there. A damaged
weight file may well load, and then computes something else without a word. And it keeps everything for good.
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
"""Length of a name in hexadecimal digits and what it is: of large files their SHA-256, of small ones git's blob id."""

_whole: set[tuple[str, int, int]] = set()
"""Path, size and time of change of those that were found whole; reading them again would only take time."""


def damaged(place: Path, progress: Progress = NO_PROGRESS) -> list[Path]:
    """Those of a snapshot's files (or that one file) whose content is not what their name in the cache says.

    Files that are not in such a cache count as whole. Reports "bytes", and raises what `progress` raises.
    """
    files = [place] if place.is_file() else sorted(file for file in place.iterdir() if file.is_file())
    unread = [file for file in files if _checksum(file) and _identity(file) not in _whole]
    total, read, found = sum(file.stat().st_size for file in unread), 0, []
    for file in unread:
        digest = _hasher(file)
        for block in _blocks(file):
            digest.update(block)
            read += len(block)
            progress(read, total, "bytes")
        if digest.hexdigest() == file.resolve().name:
            _whole.add(_identity(file))
        else:
            found.append(file)
    return found


def drop(file: Path) -> None:
    """Remove a file of a snapshot together with its content in the cache, so that it is fetched anew."""
    file.resolve().unlink(missing_ok=True)
    file.unlink(missing_ok=True)


def note_use(place: Path) -> None:
    """Take note that a file or a snapshot of the cache is used now; anything else is left as it is."""
    repository = next((parent for parent in place.parents if parent.parent == _cache()), None)
    if repository is not None:
        with suppress(OSError):  # a cache that may only be read is never made smaller either
            os.utime(repository)


def trim_hub_cache(at_most: int, *, keep: Collection[str] = ()) -> int:
    """Remove whole repositories from the hub client's cache until it has at most so many bytes, and return how many
    bytes went.

    The one that was used longest ago by this library goes first; those whose hub ids are in `keep` stay, also where
    the rest does not suffice.
    """
    kept = {f"models--{name.replace('/', '--')}" for name in keep}
    held = sorted((_used(folder), folder, _size(folder)) for folder in _cache().glob("*s--*") if folder.is_dir())
    total, gone = sum(size for *_, size in held), 0
    for _, folder, size in held:
        if total - gone <= at_most:
            break
        if folder.name in kept:
            continue
        away = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}.gone")
        try:
            folder.rename(away)  # at once, so that nobody finds a half of it
        except OSError:
            continue
        shutil.rmtree(away, ignore_errors=True)
        gone += size
    return gone


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
