"""What `benchmarks.real_model` measured, one cell for a method at a size: the record on disk, and the tables.

gap = ln(perplexity / dense perplexity) on the same windows
ratios: the gap over the smallest of all *refitting* peers at that size, and over that of FLAP as published + bias
"""

import json
import math
import os
import statistics as mathematics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from benchmarks.harness import machine, table
from benchmarks.peers import FLAP, METHODS, Method

DENSE = "dense"
ORDER = ("scores", "refits", "ours")
NONE = "–"


@dataclass(frozen=True)
class Protocol:
    """What figures must share to be compared: `model` is a fingerprint of shapes and weights.

    `samples` of `seq_len` tokens calibrate, `windows` of `window` tokens measure.
    """

    model: str
    samples: int
    seq_len: int
    windows: int
    window: int


@dataclass(frozen=True)
class Cell:
    """One method at one size (per cent of the prunable parameters that were to go; 0 for the dense model).

    `parameters` of the pruned model, added biases included, and `removed`, the share of the prunable ones that is
    gone. `seconds` from finished statistics to the pruned model, `peak_bytes` by how much the process grew meanwhile.
    `split`: head groups of each layer where the method was told them. `tasks`: name -> (accuracy, chance), on the
    first `documents` of each.
    """

    method: str
    version: str
    size: float
    protocol: Protocol
    perplexity: float
    parameters: int
    removed: float
    seconds: float = 0.0
    peak_bytes: int = 0
    split: int | None = None
    threads: int = 1
    tasks: dict[str, tuple[float, float]] = field(default_factory=dict)
    documents: int = 0

    @property
    def key(self) -> tuple:
        return self.method, self.version, self.size, self.protocol

    @property
    def above_chance(self) -> float | None:
        """Mean over the tasks of (accuracy − chance) / (1 − chance)."""
        return above_chance(self.tasks) if self.tasks else None


def above_chance(tasks: dict[str, tuple[float, float]]) -> float:
    return mathematics.fmean((accuracy - chance) / (1 - chance) for accuracy, chance in tasks.values())


class Record:
    """The cells in a JSON file, which holds each from the moment it was measured."""

    def __init__(self, file: Path):
        self.file = file

    def cells(self) -> dict[tuple, Cell]:
        if not self.file.exists():
            return {}
        found = [
            Cell(**{**values, "protocol": Protocol(**values["protocol"])})
            for values in json.loads(self.file.read_text(encoding="utf-8"))["cells"]
        ]
        return {cell.key: cell for cell in found}

    def add(self, cell: Cell) -> None:
        """Write the cell in the place of one with the same key; the file is whole at every moment."""
        cells = self.cells() | {cell.key: cell}
        self.file.parent.mkdir(parents=True, exist_ok=True)
        draft = self.file.with_name(self.file.name + ".part")
        values = {"machine": machine(), "cells": [asdict(each) for each in cells.values()]}
        draft.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
        os.replace(draft, self.file)


@dataclass(frozen=True)
class Row:
    """One family of methods at one size: its best cell, with what it comes to beside the others."""

    family: str
    variant: str
    role: str
    cell: Cell
    gap: float
    of_refits: float | None = None
    of_flap: float | None = None


def rows_of(cells: dict[tuple, Cell], protocol: Protocol, size: float, methods: Sequence[Method]) -> list[Row]:
    """The rows of one size, as far as they were measured; of several variants of a family the best."""
    dense = cells[DENSE, "1", 0.0, protocol]
    best: dict[str, Row] = {}
    flap = None
    for method in methods:
        cell = cells.get((method.key, method.version, size, protocol))
        if cell is None:
            continue
        gap = math.log(cell.perplexity / dense.perplexity)
        flap = gap if method.key == FLAP else flap
        if method.family not in best or gap < best[method.family].gap:
            best[method.family] = Row(method.family, method.variant, method.role, cell, gap)
    refits = min((row.gap for row in best.values() if row.role == "refits"), default=None)
    rows = [replace(row, of_refits=_ratio(row.gap, refits), of_flap=_ratio(row.gap, flap)) for row in best.values()]
    return sorted(rows, key=lambda row: ORDER.index(row.role))


def _ratio(gap: float, other: float | None) -> float | None:
    """None where there is nothing to compare with, or the other lost nothing."""
    return gap / other if other is not None and other > 0 else None


def details(rows: list[Row]) -> str:
    """The table of one size."""
    header = ["method", "parameters kept (M)", "prunable removed", "perplexity", "gap", "gap / best refitting peer"]
    header += ["gap / FLAP + bias", "tasks above chance", "seconds", "peak MB"]
    lines = []
    for row in rows:
        cell, above = row.cell, row.cell.above_chance
        lines.append(
            [
                f"{row.family}, {row.variant}" if row.variant else row.family,
                f"{cell.parameters / 1e6:.4g}",
                f"{cell.removed:.1%}",
                f"{cell.perplexity:.4g}",
                f"{row.gap:.3f}",
                _shown(row.of_refits),
                _shown(row.of_flap),
                NONE if above is None else f"{above:.1%}",
                f"{cell.seconds:.3g}",
                f"{cell.peak_bytes / 1e6:.0f}",
            ]
        )
    return table(header, lines)


def overview(by_size: dict[float, list[Row]]) -> str:
    """Perplexity of every family at every size, and its ratios over the sizes that were measured."""
    header = ["method", *(f"{size:g} % removed" for size in by_size), "gap / best refitting peer: mean", "worst"]
    header.append("gap / FLAP + bias: mean")
    rows = {row.family: row.role for rows in by_size.values() for row in rows}
    lines = []
    for family in sorted(rows, key=lambda name: ORDER.index(rows[name])):
        own = [next((row for row in rows if row.family == family), None) for rows in by_size.values()]
        of_refits = [row.of_refits for row in own if row is not None and row.of_refits is not None]
        of_flap = [row.of_flap for row in own if row is not None and row.of_flap is not None]
        lines.append(
            [
                family,
                *(NONE if row is None else f"{row.cell.perplexity:.4g}" for row in own),
                _shown(mathematics.fmean(of_refits) if of_refits else None),
                _shown(max(of_refits, default=None)),
                _shown(mathematics.fmean(of_flap) if of_flap else None),
            ]
        )
    return table(header, lines)


def _shown(ratio: float | None) -> str:
    return NONE if ratio is None else f"{ratio:.2f}"


def missing(cells: dict[tuple, Cell], protocol: Protocol, sizes: Sequence[float]) -> list[str]:
    """Which cells of all methods are not there, in words."""
    return [
        f"{method.key} at {size:g} %"
        for method in METHODS
        for size in sizes
        if (method.key, method.version, size, protocol) not in cells
    ]
