"""An uploaded file becomes a checked `TextSource`: a stranger's file, so what it may hold is limited.

One file is read at a time and then kept for a while, as the page asks for the same one at every change of its form.
"""

import sys
import threading
from pathlib import Path

import transact as ta
from transact.text.file_limits import FileLimits
from transact.text.text_files import KINDS, read_prose, read_table
from transact.text.text_tables import Table
from ui.errors import WrongInput
from ui.server import limits
from ui.server.memory import LruCache
from ui.text_sources.text_source import TextSource, from_prose

_MAX_JSON_CHARACTERS = 4_000_000
"""Of one JSON value; as objects of Python it can take thirty times as much."""
_KEPT_BYTES, _KEPT_SECONDS = 60_000_000, 600.0

_kept = LruCache(max_items=8, max_bytes=_KEPT_BYTES, idle_seconds=_KEPT_SECONDS)
"""Files that were read, or the sentences that refuse them."""
_one_at_a_time = threading.Lock()


def text_columns(path: str | Path) -> tuple[str, ...]:
    """The columns of an upload that hold text or conversations, best guess first; empty for .txt, which has none."""
    return _columns(_read(_checked(path)))


def known_columns(path: str | Path | None) -> tuple[str, ...]:
    """As `text_columns`, at once: none for a file that was not read lately, or cannot be read."""
    try:
        content = _kept.get(_identity(Path(path))) if path else None
        return _columns(content) if isinstance(content, Table) else ()
    except (OSError, WrongInput):
        return ()


def uploaded(path: str | Path, column: str | None, seq_len: int) -> TextSource:
    """The text in an uploaded .txt, .jsonl, .json, .csv or .parquet file.

    Raises `WrongInput` when the file is too large, not UTF-8, empty, or has no such column of text.
    """
    file = _checked(path)
    read = _read(file)
    if isinstance(read, str):
        source = from_prose(read, file.name, "file", seq_len)
    else:
        try:
            texts = read.column(column)
        except ta.InvalidText as error:  # what the library refuses is the visitor's to mend
            raise WrongInput(str(error)) from None
        source = TextSource(file.name, texts.texts, "file", is_chat=texts.is_chat, skipped=texts.skipped)
    if len(source.texts) > limits.MAX_TEXTS:
        raise WrongInput(
            f"{file.name} has {len(source.texts):,} texts; at most {limits.MAX_TEXTS:,} are taken. Upload a part of it."
        )
    return source


def _columns(read: Table | str) -> tuple[str, ...]:
    if isinstance(read, str):
        return ()
    try:
        return read.names()
    except ta.InvalidText as error:
        raise WrongInput(str(error)) from None


def _read(file: Path) -> Table | str:
    """The file's texts by column, or its prose; raises `WrongInput`."""
    key = _identity(file)
    with _one_at_a_time:
        content = _kept.get(key)
        if content is None:
            try:
                content = _parsed(file)
            except ta.InvalidText as error:
                content = WrongInput(str(error))
            _kept.put(key, content, _held_bytes(content))
    if isinstance(content, WrongInput):
        raise WrongInput(str(content))
    return content


def _parsed(file: Path) -> Table | str:
    if file.suffix.lower() == ".txt":
        return read_prose(file, file.name).strip()
    # lists inside parquet say nothing of what they unpack to before they do
    most = FileLimits(
        _MAX_JSON_CHARACTERS, limits.MAX_COLUMNS, limits.MAX_UNPACKED_BYTES, limits.MAX_UPLOAD_BYTES, nested=False,
        alone=True,
    )  # fmt: skip
    return read_table(file, file.name, limits=most)


def _held_bytes(content: Table | str | WrongInput) -> int:
    return content.held_bytes if isinstance(content, Table) else sys.getsizeof(content)


def _identity(file: Path) -> tuple:
    """What tells a file from one that takes its place; and the limits that it was read under."""
    stat = file.stat()
    bounds = limits.MAX_COLUMNS, limits.MAX_UNPACKED_BYTES, limits.MAX_UPLOAD_BYTES
    return str(file), stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, bounds


def _checked(path: str | Path) -> Path:
    file = Path(path)
    if file.suffix.lower() not in KINDS:
        raise WrongInput(f"{file.name} is not a kind that is read here; upload one of {', '.join(KINDS)}.")
    try:
        length = file.stat().st_size
    except OSError:
        raise WrongInput(f"{file.name} is no longer here, as uploads go after some hours; upload it again.") from None
    if length > limits.MAX_UPLOAD_BYTES:
        raise WrongInput(
            f"{file.name} has {length / 1e6:.0f} MB; at most {limits.MAX_UPLOAD_BYTES / 1e6:.0f} MB are taken. "
            "A few hundred texts are enough: upload a part of it."
        )
    return file
