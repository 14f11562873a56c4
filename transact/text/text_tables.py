"""The texts and conversations of a table by column, as its rows are read."""

import json
import math
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from transact.errors import InvalidText
from transact.redaction import one_line

TEXT, MESSAGES = "text", "messages"
"""Columns that are expected to hold texts and conversations."""
_SEARCHED_ROWS = 1000
_MAX_DEPTH = 64
"""Nesting inside a conversation: what can be parsed here may be too deep to be written elsewhere."""


@dataclass(frozen=True)
class Column:
    """The cells of a column: `texts`, or conversations as JSON text where `is_chat`.

    `skipped`: rows without either. `problem`: what the first of them has instead, "" where all are null or empty.
    """

    texts: tuple[str, ...]
    is_chat: bool
    skipped: int
    problem: str


@dataclass
class _Cells:
    """A column while it is read; all cells must be what the first is, text or conversation."""

    kept: list[str] = field(default_factory=list)
    is_chat: bool | None = None
    problem: str = ""

    def add(self, cell: object, place: str, is_chat: bool) -> bool:
        """Keep the cell; returns whether it was kept."""
        if is_chat and not _is_shallow(cell, _MAX_DEPTH):
            self.refuse(f"{place} has a conversation that holds lists within lists, {_MAX_DEPTH} and more deep")
            return False
        if self.is_chat in (None, is_chat):
            self.is_chat = is_chat
            self.kept.append(json.dumps(cell, ensure_ascii=False) if is_chat else str(cell))
            return True
        self.refuse(f"{place} has {'a conversation' if is_chat else 'a text'}, unlike the rows before it")
        return False

    def refuse(self, problem: str) -> None:
        self.problem = self.problem or problem


class Table:
    """The texts and conversations of a file by column, in the order of the rows."""

    def __init__(self, name: str, columns: Iterable[str] | None = None, most_columns: float = math.inf):
        self.name = name
        self._requested = None if columns is None else tuple(columns)
        self._most_columns = most_columns
        self._columns: dict[str, _Cells] = {}
        self._filled: set[str] = set()
        self._rows = 0

    def wants(self, name: str) -> bool:
        """Whether the column's cells are kept."""
        return self._requested is None or one_line(name) in self._requested

    def declare(self, names: Iterable[str]) -> None:
        """Add the names of the file's columns, whether or not a cell holds text."""
        for name in names:
            self._cells(one_line(name))

    def add(self, place: str, row: Iterable[tuple[str, Any]]) -> None:
        """Add a row, as pairs of a column's name and a cell; `place` as "Line 3"."""
        pairs = [(one_line(name), cell) for name, cell in row]
        for name, cell in pairs:
            if not self.wants(name):
                self._columns.setdefault(name, _Cells())  # its name alone, for messages
                continue
            cells, is_chat = self._cells(name), is_conversation(cell)
            if is_chat or is_text(cell):
                if cells.add(cell, place, is_chat) and self._rows < _SEARCHED_ROWS:
                    self._filled.add(name)
            elif cell is not None and not isinstance(cell, str):
                cells.refuse(f"{place} of {self.name} has no text under {name!r} but {type(cell).__name__}")
        for name in self._requested or ():
            if name not in (present := [name for name, _ in pairs]):
                has = ", ".join(map(repr, present))[:500] or "nothing"
                self._cells(name).refuse(f"{place} of {self.name} has no text under {name!r} (it has {has})")
        self._rows += 1

    def names(self) -> tuple[str, ...]:
        """Columns with text or conversations in their first rows, best guess first; `InvalidText` if there is none."""
        names = [name for name in self._columns if name in self._filled]
        if not names:
            columns = ", ".join(self._columns)[:500] or "none"
            raise InvalidText(
                f"{self.name} has no column of text (its columns: {columns}); add one, for example “{TEXT}”."
            )
        return likeliest_first(names)

    def column(self, name: str | None) -> Column:
        """A column, by default the best guess. Raises `InvalidText` for one that holds no text."""
        names = self.names()
        name = name or names[0]
        if name not in names:
            raise InvalidText(
                f"{self.name} has no text column “{str(name)[:80]}”; choose one of {', '.join(names)[:500]}."
            )
        cells = self._columns[name]
        return Column(tuple(cells.kept), bool(cells.is_chat), self._rows - len(cells.kept), cells.problem)

    def requested_column(self) -> Column | None:
        """The first of the requested columns that holds anything; None where none of them does."""
        return next((self.column(name) for name in self._requested or () if name in self._filled), None)

    @property
    def held_bytes(self) -> int:
        """What the kept texts take in memory."""
        return sum(sys.getsizeof(text) for cells in self._columns.values() for text in cells.kept)

    def problem(self) -> str:
        """Why none of the requested columns holds anything."""
        requested = self._requested or ()
        problems = (self._columns[name].problem for name in reversed(requested) if name in self._columns)
        columns = ", ".join(self._columns)[:500] or "none"
        return next(filter(None, problems), f"{self.name} has no text under {requested[-1]!r} (its columns: {columns})")

    def _cells(self, name: str) -> _Cells:
        if name not in self._columns and len(self._columns) >= self._most_columns:
            raise InvalidText(
                f"{self.name} has more than {self._most_columns:,} columns; give the one that holds the text alone."
            )
        return self._columns.setdefault(name, _Cells())


def is_text(cell: object) -> bool:
    """Whether a cell of a table holds text, and not a number or null."""
    return isinstance(cell, str) and bool(cell.strip())


def is_conversation(cell: object) -> bool:
    """Whether a cell holds messages with roles; whether they are well formed is checked when they are written."""
    return isinstance(cell, list) and bool(cell) and all(isinstance(one, dict) and "role" in one for one in cell)


def _is_shallow(value: object, depth: int) -> bool:
    """Whether lists and objects are nested at most so deep."""
    if not isinstance(value, list | dict):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_is_shallow(one, depth - 1) for one in inner)


def likeliest_first(columns: Iterable[str]) -> tuple[str, ...]:
    """Columns in the order of the guess: one called “text”, one called “messages”, then the order of the file."""
    expected = (TEXT, MESSAGES)
    return tuple(
        sorted(columns, key=lambda name: expected.index(name.lower()) if name.lower() in expected else len(expected))
    )
