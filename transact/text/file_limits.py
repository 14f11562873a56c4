"""Limits of a file of texts: none for the user's own files, bounds for untrusted ones."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class FileLimits:
    """What a file may hold: characters of one JSON value, columns, bytes of unpacked text and of one cell of parquet,
    lists inside parquet.

    `alone`: native code reads the file in a process of its own (then `unpacked_bytes` is finite).
    """

    json_characters: float = math.inf
    columns: float = math.inf
    unpacked_bytes: float = math.inf
    cell_bytes: float = math.inf
    nested: bool = True
    alone: bool = False


NO_LIMITS = FileLimits()
