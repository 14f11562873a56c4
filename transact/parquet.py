"""Columns of a parquet file, unpacked in small steps and only as far as the limits allow."""

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow
import pyarrow.compute
from pyarrow import parquet

from transact.errors import InvalidText

if TYPE_CHECKING:
    from transact.text_files import FileLimits, Table


def add_rows(file: Path, table: "Table", limits: "FileLimits", rows_at_once: int) -> None:
    """Add every row of the file's columns of texts and conversations, those that the table wants."""
    opened = parquet.ParquetFile(file)
    metadata, schema = opened.metadata, opened.schema_arrow
    table.declare(schema.names)
    read = [
        field.name
        for field in schema
        if table.wants(field.name) and (_is_string(field.type) or (limits.nested and _is_chat(field.type)))
    ]
    if not read:
        return
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    parts = [group.column(index) for group in groups for index in range(group.num_columns)]
    _check_unpacked(table, limits, sum(max(0, part.total_uncompressed_size) for part in parts))
    unpacked, number = 0, 0
    for batch in opened.iter_batches(batch_size=rows_at_once, columns=read):
        unpacked += sum(_text_bytes(array) for array in batch.columns if _is_string(array.type))
        _check_unpacked(table, limits, unpacked)
        named = [(name, array.to_pylist()) for name, array in zip(batch.schema.names, batch.columns, strict=True)]
        for index in range(batch.num_rows):
            number += 1
            table.add(f"Row {number}", [(name, cells[index]) for name, cells in named])


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


def _text_bytes(array: pyarrow.Array) -> int:
    """Bytes that the texts have once they are written out; a dictionary holds each of its own but once."""
    if isinstance(array, pyarrow.DictionaryArray):
        lengths = pyarrow.compute.binary_length(array.dictionary).take(array.indices)
    else:
        lengths = pyarrow.compute.binary_length(array)
    return pyarrow.compute.sum(lengths.cast(pyarrow.int64())).as_py() or 0


def _check_unpacked(table: "Table", limits: "FileLimits", size: int) -> None:
    if size > limits.unpacked_bytes:
        raise InvalidText(f"{table.name} unpacks to more than {limits.unpacked_bytes / 1e6:.0f} MB; give a part of it.")
