"""What stands in the fields beside the plan: how a cut is made up for, what it is measured on, and the goal."""

from dataclasses import dataclass, replace

import transact as ta
from ui.server import limits
from ui.text_sources import text_source

HELD_OUT, PASTE, UPLOAD, DATASET = "held-out", "paste", "upload", "dataset"
"""Texts to measure on that are the visitor's own; bundled ones go by the names of `text_source.SAMPLES`."""
MIXED = "mixed"
QUICK, FULL = "quick", "full"
SIZES = (QUICK, FULL)


@dataclass(frozen=True)
class Options:
    """The fields as they stand; the defaults are what a page opens with.

    `measure_on`: a bundled text, or one of those above. `size`: how much of it is measured, one of `SIZES`.
    `smaller_by`, in per cent of all parameters, `minutes` and `differ`, whether layers may, are the goal's.
    """

    repair: str = tuple(ta.REPAIRS)[-1]
    search: bool = True
    measure_on: str = MIXED
    size: str = QUICK
    smaller_by: float = 20.0
    minutes: float = 3.0
    differ: bool = False

    def checked(self) -> "Options":
        """The same with numbers as numbers. Raises `WrongInput` for what no field can hold."""
        limits.one_of("repair", self.repair, ta.COMPENSATIONS)
        texts = (*text_source.SAMPLES, HELD_OUT, PASTE, UPLOAD, DATASET)
        limits.one_of("text to measure on", self.measure_on, texts)
        limits.one_of("size", self.size, SIZES)
        limits.percent_smaller(self.smaller_by)
        return replace(
            self, search=bool(self.search), smaller_by=float(self.smaller_by), minutes=limits.minutes(self.minutes),
            differ=bool(self.differ),
        )  # fmt: skip


@dataclass(frozen=True)
class Goal:
    """A size, the share of all parameters that stays, and a time; `widths`: whether layers may differ.

    `repeat`: once it was reached, what was done, as `compress` takes it to do the same again.
    """

    size: float
    minutes: float
    widths: str
    repeat: str = ""
