"""Texts and conversations from files: .txt, .jsonl, .json, .csv and .parquet, for the command line and the page.

Of a table only texts and conversations are kept, as they are read, and of the user's own files only the named column,
so that a file can be read whose rows as objects would fill memory. Untrusted files are read under `FileLimits`.
"""

import codecs
import csv
import json
from collections.abc import Iterable
from pathlib import Path

from transact.errors import InvalidText
from transact.text.file_limits import NO_LIMITS, FileLimits
from transact.text.text_tables import TEXT, Table

KINDS = (".txt", ".jsonl", ".json", ".csv", ".parquet")
_MAX_CELL = 2**31 - 1
"""Bytes of a csv cell, the most that the parser can be set to."""


def read_prose(file: Path, name: str) -> str:
    """The content of a .txt file without a byte order mark; raises `InvalidText` where it is not UTF-8 or empty."""
    content = _content(file, name)
    if not content.strip():
        raise _empty(name)
    return content


def read_table(file: Path, name: str, *, columns: Iterable[str] | None = None, limits: FileLimits = NO_LIMITS) -> Table:
    """The columns of a .jsonl, .json, .csv or .parquet file, only those of `columns` where that is given.

    `name`: what the file is called in messages. Raises `InvalidText` for a file that is empty, not UTF-8, not what its
    name says, or beyond the limits.
    """
    if file.stat().st_size == 0:
        raise _empty(name)
    table = Table(name, columns, limits.columns)
    {".jsonl": _json_lines, ".json": _json, ".csv": _csv, ".parquet": _parquet}[file.suffix.lower()](
        file, table, limits
    )
    return table


def _empty(name: str) -> InvalidText:
    return InvalidText(f"{name} is empty; give a file with at least a sentence in it.")


def _content(file: Path, name: str) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise _not_utf8(file, name) from None


def _not_utf8(file: Path, name: str) -> InvalidText:
    return InvalidText(f"{name} is not UTF-8 text (byte {_bad_byte(file):,} cannot be read); save it as UTF-8.")


def _bad_byte(file: Path) -> int:
    """Position of the first byte that is not UTF-8; an error while reading in pieces has only that in the piece."""
    decoder, done = codecs.getincrementaldecoder("utf-8")(), 0
    with file.open("rb") as opened:
        while piece := opened.read(1 << 20):
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(piece)
            except UnicodeDecodeError as error:
                return done - pending + error.start
            done += len(piece)
    return done - len(decoder.getstate()[0])


def _json_lines(file: Path, table: Table, limits: FileLimits) -> None:
    try:
        # only \n ends a line: universal newlines would also split at those that JSON allows inside a text
        with file.open(encoding="utf-8-sig", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    _add_line(table, number, line, limits)
    except UnicodeDecodeError:
        raise _not_utf8(file, table.name) from None


def _add_line(table: Table, number: int, line: str, limits: FileLimits) -> None:
    if len(line) > limits.json_characters:
        raise InvalidText(
            f"Line {number} of {table.name} has {len(line):,} characters; at most {limits.json_characters:,} are taken."
        )
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise InvalidText(f"Line {number} of {table.name} is not JSON; every line must be an object.") from None
    _add_object(table, f"Line {number}", row)


def _add_object(table: Table, place: str, row: object) -> None:
    if row is None:
        return
    if not isinstance(row, dict):
        raise InvalidText(f'{place} of {table.name} is not an object such as {{"{TEXT}": "…"}}.')
    table.add(place, row.items())


def _json(file: Path, table: Table, limits: FileLimits) -> None:
    """An array of objects or of texts, or one object; files of this name may also hold objects line by line."""
    content = _content(file, table.name)
    if len(content) > limits.json_characters:
        raise InvalidText(
            f"{table.name} has {len(content):,} characters; at most {limits.json_characters:,} are taken as .json. "
            "Save it as .jsonl, an object a line."
        )
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        if _is_json(content.lstrip().split("\n", 1)[0]):
            return _json_lines(file, table, limits)
        raise InvalidText(f"{table.name} is not JSON ({str(error)[:200]}).") from None
    for number, row in enumerate(value if isinstance(value, list) else [value], start=1):
        _add_object(table, f"Item {number}", {TEXT: row} if isinstance(row, str) else row)


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _csv(file: Path, table: Table, limits: FileLimits) -> None:
    csv.field_size_limit(_MAX_CELL)
    try:
        with file.open(encoding="utf-8-sig", newline="") as opened:
            reader = csv.reader(opened)
            rows = ((reader.line_num, row) for row in reader if row)
            names = next(rows, (0, None))[1]
            if names is None:
                raise InvalidText(f"{table.name} cannot be read as csv (there is no first line with names).")
            table.declare(names)
            for number, row in rows:
                if len(row) > len(names):
                    raise InvalidText(
                        f"{table.name} cannot be read as csv: line {number:,} has more cells than its first line has "
                        "names; put a text that holds commas in quotation marks."
                    )
                table.add(f"Line {number}", zip(names, row, strict=False))
    except csv.Error as error:
        raise InvalidText(f"{table.name} cannot be read as csv ({error}).") from None
    except UnicodeDecodeError:
        raise _not_utf8(file, table.name) from None


def _parquet(file: Path, table: Table, limits: FileLimits) -> None:
    from transact.text.parquet import add_rows  # imported here, as only this needs pyarrow

    add_rows(file, table, limits)
