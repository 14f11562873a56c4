"""An uploaded file becomes a checked `TextSource`.

Of a table only its texts are kept, column by column as they are read: a file that would fill memory as rows of
objects, as columns without end or by unpacking, is refused before it does.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow
import pyarrow.compute
from pyarrow import parquet

from transact.redaction import one_line
from ui import limits
from ui.errors import WrongInput
from ui.texts import TextSource, from_prose, is_text, likeliest_first

_ROWS_AT_ONCE = 64
"""A few kilobytes of parquet can stand for gigabytes, so it is unpacked in small steps."""
_SEARCHED_ROWS = 1000
_KINDS = (".txt", ".jsonl", ".csv", ".parquet")
_MAX_LINE_CHARACTERS = 4_000_000
"""Of one JSON object; as objects of Python it can take thirty times as much."""

csv.field_size_limit(limits.MAX_UPLOAD_BYTES)


class Columns:
    """The texts of a table by column, in the order of the rows; cells that hold no text are left out."""

    def __init__(self, file: Path, names: Iterable[str] = ()):
        self._file = file
        self._texts: dict[str, list[str]] = {}
        self._found: set[str] = set()
        self._rows = 0
        for name in names:
            self._column(one_line(name))

    def add(self, row: Iterable[tuple[str, object]]) -> None:
        """One more row, of pairs of a column's name and a cell."""
        for given, cell in row:
            name = one_line(given)
            column = self._column(name)
            if is_text(cell):
                column.append(cell)
                if self._rows < _SEARCHED_ROWS:
                    self._found.add(name)
        self._rows += 1

    def names(self) -> tuple[str, ...]:
        """Columns with text in their first rows, best guess first. Raises `WrongInput` where there is none."""
        names = [name for name in self._texts if name in self._found]
        if not names:
            found = ", ".join(self._texts)[:500] or "none"
            raise WrongInput(
                f"{self._file.name} has no column of text (its columns: {found}); add one, for example “text”."
            )
        return likeliest_first(names)

    def texts(self, column: str | None) -> tuple[str, ...]:
        """The texts of a column, by default of the best guess. Raises `WrongInput` for one that has none."""
        names = self.names()
        column = column or names[0]
        if column not in names:
            raise WrongInput(
                f"{self._file.name} has no text column “{str(column)[:80]}”; choose one of {', '.join(names)[:500]}."
            )
        return tuple(self._texts[column])

    def _column(self, name: str) -> list[str]:
        if name not in self._texts and len(self._texts) == limits.MAX_COLUMNS:
            raise WrongInput(
                f"{self._file.name} has more than {limits.MAX_COLUMNS:,} columns; upload the one that holds the text."
            )
        return self._texts.setdefault(name, [])


def text_columns(path: str | Path) -> tuple[str, ...]:
    """The columns of an upload that hold text, best guess first; empty for .txt, which has none."""
    file = _checked(path)
    if file.suffix.lower() == ".txt":
        _utf8(file)
        return ()
    return _columns(file).names()


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
    return TextSource(file.name, _columns(file).texts(column), "file")


def _checked(path: str | Path) -> Path:
    file = Path(path)
    if file.suffix.lower() not in _KINDS:
        raise WrongInput(f"{file.name} is not a kind that is read here; upload one of {', '.join(_KINDS)}.")
    length = file.stat().st_size
    if length > limits.MAX_UPLOAD_BYTES:
        raise WrongInput(
            f"{file.name} has {length / 1e6:.0f} MB; at most {limits.MAX_UPLOAD_BYTES / 1e6:.0f} MB are taken. "
            "A few hundred texts are enough: upload a part of it."
        )
    if length == 0:
        raise WrongInput(f"{file.name} is empty; upload a file with at least a sentence in it.")
    return file


def _utf8(file: Path, newline: str | None = None) -> str:
    try:
        with file.open(encoding="utf-8-sig", newline=newline) as opened:
            return opened.read()
    except UnicodeDecodeError as error:
        raise WrongInput(
            f"{file.name} is not UTF-8 text (byte {error.start:,} cannot be read); save it as UTF-8 and upload again."
        ) from None


def _columns(file: Path) -> Columns:
    match file.suffix.lower():
        case ".jsonl":
            return _json_lines(file)
        case ".csv":
            return _csv(file)
        case _:
            return _parquet(file)


def _json_lines(file: Path) -> Columns:
    columns = Columns(file)
    for number, line in enumerate(_utf8(file).split("\n"), start=1):
        if not line.strip():
            continue
        if len(line) > _MAX_LINE_CHARACTERS:
            raise WrongInput(
                f"Line {number} of {file.name} has {len(line):,} characters; at most {_MAX_LINE_CHARACTERS:,} are "
                "taken."
            )
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            raise WrongInput(f"Line {number} of {file.name} is not JSON; every line must be an object.") from None
        if not isinstance(row, dict):
            raise WrongInput(f'Line {number} of {file.name} is not an object such as {{"text": "…"}}.')
        columns.add(row.items())
    return columns


def _csv(file: Path) -> Columns:
    rows = _csv_rows(file)
    names = next(rows, (0, None))[1]
    if names is None:
        raise WrongInput(f"{file.name} cannot be read as csv (there is no first line with names).")
    columns = Columns(file, names)
    for number, row in rows:
        if len(row) > len(names):
            raise WrongInput(
                f"{file.name} cannot be read as csv: line {number:,} has more cells than its first line has names; put "
                "a text that holds commas in quotation marks."
            )
        columns.add(zip(names, row, strict=False))
    return columns


def _csv_rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not blank, each with the number of its last line."""
    reader = csv.reader(io.StringIO(_utf8(file, newline=""), newline=""))
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise WrongInput(f"{file.name} cannot be read as csv ({error}).") from None


def _parquet(file: Path) -> Columns:
    try:
        return _parquet_columns(file)
    except WrongInput:
        raise
    except Exception as error:  # pyarrow, and the codecs below it, raise whatever they raise for damaged files
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise WrongInput(f"{file.name} cannot be read as parquet ({reason}).") from None


def _parquet_columns(file: Path) -> Columns:
    opened = parquet.ParquetFile(file)
    metadata, schema = opened.metadata, opened.schema_arrow
    columns = Columns(file, schema.names)
    texts = [field.name for field in schema if _is_string(field.type)]
    if not texts:
        return columns
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    parts = [group.column(index) for group in groups for index in range(group.num_columns)]
    _check_unpacked(file, sum(max(0, part.total_uncompressed_size) for part in parts))
    unpacked = 0
    for batch in opened.iter_batches(batch_size=_ROWS_AT_ONCE, columns=texts):
        unpacked += sum(_text_bytes(array) for array in batch.columns if _is_string(array.type))
        _check_unpacked(file, unpacked)
        named = [(name, array.to_pylist()) for name, array in zip(batch.schema.names, batch.columns, strict=True)]
        for index in range(batch.num_rows):
            columns.add((name, cells[index]) for name, cells in named)
    return columns


def _is_string(kind: pyarrow.DataType) -> bool:
    if pyarrow.types.is_dictionary(kind):
        return _is_string(kind.value_type)
    return pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind)


def _text_bytes(array: pyarrow.Array) -> int:
    """Bytes that the texts have once they are written out; a dictionary holds each of its own but once."""
    if isinstance(array, pyarrow.DictionaryArray):
        lengths = pyarrow.compute.binary_length(array.dictionary).take(array.indices)
    else:
        lengths = pyarrow.compute.binary_length(array)
    return pyarrow.compute.sum(lengths.cast(pyarrow.int64())).as_py() or 0


def _check_unpacked(file: Path, size: int) -> None:
    if size > limits.MAX_UNPACKED_BYTES:
        most = limits.MAX_UNPACKED_BYTES / 1e6
        raise WrongInput(f"{file.name} unpacks to more than {most:.0f} MB; upload a part of it.")
