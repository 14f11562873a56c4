"""Columns of a parquet file, unpacked in small steps and only as far as the limits allow.

Run by path, it reads an untrusted file in a process of its own and sends the rows: parquet is read by native code,
which unpacks a whole cell, or a whole page of cells, before its size can be checked.
"""

from collections.abc import Callable, Iterator, Sequence
from math import inf
from pathlib import Path

import pyarrow
import pyarrow.compute
from pyarrow import parquet

_ROWS_AT_ONCE = 64
"""A few kilobytes of parquet can stand for gigabytes, so it is unpacked in small steps."""
_PART_BYTES = 1_000_000
"""Text of one part that is sent; a single cell may be larger."""


class TooLarge(Exception):
    """The texts, or one of them, would be larger than allowed; the message says what is and how large it may be."""


def pass_parts(file: Path, take: Callable[[list], None], wants: Callable[[str], bool], **bounds) -> dict:
    """Call `take` with the `parts` in turn; returns why it stopped early, if it did, as "refused" or "damaged"."""
    rows = parts(file, wants, **bounds)
    while True:
        try:
            part = next(rows, None)
        except TooLarge as error:
            return {"refused": str(error)}
        except Exception as error:  # pyarrow and its codecs raise many types for damaged files
            return {"damaged": (str(error).strip().splitlines() or [type(error).__name__])[0][:200]}
        if part is None:
            return {}
        take(part)


def parts(
    file: Path, wants: Callable[[str], bool], *, nested: bool = True, unpacked: float = inf, cell: float = inf
) -> Iterator[list]:
    """First the names of all columns; then rows, each the list of its cells' [name, cell], some at a time.

    The columns are those that `wants` accepts and that hold texts, or conversations where `nested`. `unpacked`, `cell`:
    bytes of all texts and of one, at most. Raises `TooLarge`, and what pyarrow raises for damaged files.
    """
    opened = parquet.ParquetFile(file)
    metadata, schema = opened.metadata, opened.schema_arrow
    yield schema.names
    read = [
        field.name for field in schema
        if wants(field.name) and (_is_string(field.type) or (nested and _is_chat(field.type)))
    ]  # fmt: skip
    if not read:
        return
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    columns = [group.column(index) for group in groups for index in range(group.num_columns)]
    _check("unpacks to", sum(max(0, column.total_uncompressed_size) for column in columns), unpacked)
    done = 0
    for batch in opened.iter_batches(batch_size=_ROWS_AT_ONCE, columns=read):
        lengths = [_lengths(array) for array in batch.columns if _is_string(array.type)]
        done += sum(pyarrow.compute.sum(each).as_py() or 0 for each in lengths)
        _check("unpacks to", done, unpacked)
        _check("has a text of", max((pyarrow.compute.max(each).as_py() or 0 for each in lengths), default=0), cell)
        named = [(name, array.to_pylist()) for name, array in zip(batch.schema.names, batch.columns, strict=True)]
        yield [[(name, cells[index]) for name, cells in named] for index in range(batch.num_rows)]


def _is_string(kind: pyarrow.DataType) -> bool:
    if pyarrow.types.is_dictionary(kind):
        return _is_string(kind.value_type)
    return pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind) or pyarrow.types.is_string_view(kind)


def _is_chat(kind: pyarrow.DataType) -> bool:
    """Lists of messages with roles."""
    if not (pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind)):
        return False
    message = kind.value_type
    return pyarrow.types.is_struct(message) and message.get_field_index("role") >= 0


def _lengths(array: pyarrow.Array) -> pyarrow.Array:
    """Bytes of each text when written out; a dictionary holds each distinct text once."""
    if isinstance(array, pyarrow.DictionaryArray):
        lengths = pyarrow.compute.binary_length(array.dictionary).take(array.indices)
    else:
        lengths = pyarrow.compute.binary_length(array)
    return lengths.cast(pyarrow.int64())


def _check(what: str, size: int, most: float) -> None:
    if size > most:
        raise TooLarge(f"{what} more than {most / 1e6:.0f} MB")


def _in_pieces(rows: Sequence[list]) -> Iterator[list]:
    """Rows, as many at a time as have a megabyte of text, and one at least."""
    piece, size = [], 0
    for row in rows:
        piece.append(row)
        size += sum(len(cell) for _, cell in row if isinstance(cell, str))
        if size > _PART_BYTES:
            yield piece
            piece, size = [], 0
    yield piece


def answer(request: dict, send: Callable[[dict], None]) -> dict:
    """Read the file of the request, and send its rows in pieces."""
    first = True

    def take(rows: list) -> None:
        nonlocal first
        for piece in (rows,) if first else _in_pieces(rows):
            send({"part": piece})
        first = False

    return pass_parts(Path(request.pop("file")), take, lambda name: True, **request)
