"""An uploaded file becomes a checked `TextSource`: a stranger's file, so what it may hold is limited."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import transact as ta
from transact.text_files import KINDS, FileLimits, read_prose, read_table
from transact.text_tables import Table
from ui import limits
from ui.errors import WrongInput
from ui.texts import TextSource, from_prose

_MAX_JSON_CHARACTERS = 4_000_000
"""Of one JSON value; as objects of Python it can take thirty times as much."""


def text_columns(path: str | Path) -> tuple[str, ...]:
    """The columns of an upload that hold text or conversations, best guess first; empty for .txt, which has none."""
    file = _checked(path)
    with _told():
        if _is_prose(file):
            read_prose(file, file.name)
            return ()
        return _table(file).names()


def uploaded(path: str | Path, column: str | None, seq_len: int) -> TextSource:
    """The text in an uploaded .txt, .jsonl, .json, .csv or .parquet file.

    Raises `WrongInput` when the file is too large, not UTF-8, empty, or has no such column of text.
    """
    file = _checked(path)
    with _told():
        if _is_prose(file):
            return from_prose(read_prose(file, file.name).strip(), file.name, "file", seq_len)
        found = _table(file).column(column)
    return TextSource(file.name, found.texts, "file", is_chat=found.is_chat, skipped=found.skipped)


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


def _is_prose(file: Path) -> bool:
    return file.suffix.lower() == ".txt"


def _table(file: Path) -> Table:
    # lists inside parquet say nothing of what they unpack to before they do
    most = FileLimits(_MAX_JSON_CHARACTERS, limits.MAX_COLUMNS, limits.MAX_UNPACKED_BYTES, nested=False)
    return read_table(file, file.name, limits=most)


@contextmanager
def _told() -> Iterator[None]:
    """What the library refuses is the visitor's to mend."""
    try:
        yield
    except ta.InvalidText as error:
        raise WrongInput(str(error)) from None
