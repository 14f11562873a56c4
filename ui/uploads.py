"""An uploaded file becomes a checked `TextSource`."""

import json
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pyarrow
from pyarrow import parquet

from ui import texts
from ui.errors import WrongInput
from ui.texts import TextSource, from_prose, is_text, likeliest_first

_MAX_UNPACKED_BYTES = 200_000_000
_ROWS_AT_ONCE = 64
"""A few kilobytes of parquet can stand for gigabytes, so it is unpacked in small steps."""
_SEARCHED_ROWS = 1000
_KINDS = (".txt", ".jsonl", ".csv", ".parquet")


def text_columns(path: str | Path) -> tuple[str, ...]:
    """The columns of an upload that hold text, best guess first; empty for .txt, which has none."""
    file = _checked(path)
    if file.suffix.lower() == ".txt":
        _utf8(file)
        return ()
    return _text_columns(file, _frame(file))


def uploaded(path: str | Path, column: str | None, seq_len: int) -> TextSource:
    """The text in an uploaded .txt, .jsonl, .csv or .parquet file.

    Raises `WrongInput` when the file is too large, not UTF-8, empty, or has no such column of text.
    """
    file = _checked(path)
    if file.suffix.lower() == ".txt":
        content = _utf8(file).strip()
        if not content:
            raise WrongInput(f"{file.name} is empty; upload a file with at least a sentence in it.")
        return from_prose(content, file.name, "file", seq_len)
    frame = _frame(file)
    names = _text_columns(file, frame)
    column = column or names[0]
    if column not in names:
        raise WrongInput(f"{file.name} has no text column “{column}”; choose one of {', '.join(names)}.")
    return TextSource(file.name, tuple(text for text in frame[column] if is_text(text)), "file")


def _text_columns(file: Path, frame: pd.DataFrame) -> tuple[str, ...]:
    names = [str(name) for name in frame.columns if any(map(is_text, frame[name].head(_SEARCHED_ROWS)))]
    if not names:
        found = ", ".join(str(name) for name in frame.columns) or "none"
        raise WrongInput(f"{file.name} has no column of text (its columns: {found}); add one, for example “text”.")
    return likeliest_first(names)


def _checked(path: str | Path) -> Path:
    file = Path(path)
    if file.suffix.lower() not in _KINDS:
        raise WrongInput(f"{file.name} is not a kind that is read here; upload one of {', '.join(_KINDS)}.")
    length = file.stat().st_size
    if length > texts.MAX_UPLOAD_BYTES:
        raise WrongInput(
            f"{file.name} has {length / 1e6:.0f} MB; at most {texts.MAX_UPLOAD_BYTES / 1e6:.0f} MB are taken. "
            "A few hundred texts are enough: upload a part of it."
        )
    if length == 0:
        raise WrongInput(f"{file.name} is empty; upload a file with at least a sentence in it.")
    return file


def _utf8(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise WrongInput(
            f"{file.name} is not UTF-8 text (byte {error.start:,} cannot be read); save it as UTF-8 and upload again."
        ) from None


def _frame(file: Path) -> pd.DataFrame:
    match file.suffix.lower():
        case ".jsonl":
            return pd.DataFrame(list(_json_lines(file)))
        case ".csv":
            _utf8(file)
            return _read(file, lambda: _csv(file))
        case _:
            return _read(file, lambda: _parquet(file))


def _json_lines(file: Path) -> Iterator[dict]:
    for number, line in enumerate(_utf8(file).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise WrongInput(f"Line {number} of {file.name} is not JSON; every line must be an object.") from None
        if not isinstance(row, dict):
            raise WrongInput(f'Line {number} of {file.name} is not an object such as {{"text": "…"}}.')
        yield row


def _csv(file: Path) -> pd.DataFrame:
    frame = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8-sig")
    if not isinstance(frame.index, pd.RangeIndex):  # a cell too many in every row is taken for the row's name
        raise WrongInput(
            f"The rows of {file.name} have more cells than its first line has names; put a text that holds commas in "
            "quotation marks."
        )
    return frame


def _parquet(file: Path) -> pd.DataFrame:
    groups = parquet.ParquetFile(file)
    batches, unpacked = [], 0
    for batch in groups.iter_batches(batch_size=_ROWS_AT_ONCE):
        unpacked += batch.nbytes
        if unpacked > _MAX_UNPACKED_BYTES:
            raise WrongInput(
                f"{file.name} unpacks to more than {_MAX_UNPACKED_BYTES / 1e6:.0f} MB; upload a part of it."
            )
        batches.append(batch)
    return pyarrow.Table.from_batches(batches, groups.schema_arrow).to_pandas()


def _read(file: Path, reader) -> pd.DataFrame:
    try:
        return reader()
    except (pd.errors.ParserError, pd.errors.EmptyDataError, pyarrow.ArrowException, OSError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WrongInput(f"{file.name} cannot be read as {file.suffix[1:]} ({reason}).") from None
