"""The rows of a parquet file: the user's own is read here, an untrusted one in a process of its own with limits."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from transact.errors import InvalidText
from transact.runtime import isolated_process
from transact.runtime.isolated_process import IsolatedProcessFailed, Limits, inherited_progress
from transact.text import parquet_script

if TYPE_CHECKING:
    from transact.text.file_limits import FileLimits
    from transact.text.text_tables import Table

_MEMORY_BYTES, _SECONDS, _OUTPUT_BESIDE = 1_500_000_000, 40.0, 2.0
"""Limits of the process, and of the length of its answer (names, brackets, escapes) as a multiple of the texts."""


def add_rows(file: Path, table: "Table", limits: "FileLimits") -> None:
    """Add every row of the file's columns of texts and conversations, as far as the table keeps them.

    Raises `InvalidText` for what is beyond the limits, or damaged.
    """
    number = -1

    def take(part: list) -> None:
        nonlocal number
        if number < 0:
            table.declare(part)
            number = 0
            return
        for row in part:
            number += 1
            table.add(f"Row {number}", row)

    read = _isolated if limits.alone else _in_process
    try:
        answer = read(file, table, limits, take)
    except IsolatedProcessFailed as error:
        answer = {"damaged": str(error)}
    if "refused" in answer:
        raise InvalidText(f"{table.name} {answer['refused']}; give a part of it.")
    if "damaged" in answer:
        raise InvalidText(f"{table.name} cannot be read as parquet ({answer['damaged']}).")


def _in_process(file: Path, table: "Table", limits: "FileLimits", take: Callable[[list], None]) -> dict:
    bounds = {"nested": limits.nested, "unpacked": limits.unpacked_bytes, "cell": limits.cell_bytes}
    return parquet_script.pass_parts(file, take, table.wants, **bounds)


def _isolated(file: Path, table: "Table", limits: "FileLimits", take: Callable[[list], None]) -> dict:
    bounds = {"unpacked": limits.unpacked_bytes, "cell": limits.cell_bytes}
    finite = {name: most for name, most in bounds.items() if not math.isinf(most)}
    output = int(_OUTPUT_BESIDE * limits.unpacked_bytes) + 10_000_000
    return isolated_process.run(
        Path(parquet_script.__file__), {"file": str(file.resolve()), "nested": limits.nested, **finite},
        inherited_progress,
        seconds=_SECONDS, take=take, limits=Limits(_MEMORY_BYTES, output),
        environment={"OMP_NUM_THREADS": "1", "ARROW_DEFAULT_MEMORY_POOL": "system"},
    )  # fmt: skip
