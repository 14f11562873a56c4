"""Numbers in sentences and tables."""

import math

_DIGITS = 3
_NOTHING, _BEYOND = 5e-7, 1e12
"""Below the one a measured number is none, above the other one only its size is said."""


def measured(value: float) -> str:
    """A measured number in three significant digits, thousands grouped, and never in powers of ten."""
    if math.isinf(value) or math.isnan(value):
        return "∞" if value > 0 else "undefined"
    if abs(value) < _NOTHING:
        return "0"
    if abs(value) >= _BEYOND:
        return f"over {_BEYOND:,.0f}"
    decimals = _DIGITS - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, decimals)
    if math.floor(math.log10(abs(rounded))) > math.floor(math.log10(abs(value))):
        decimals -= 1  # 9.996 is 10.0
    return f"{rounded:,.{max(decimals, 0)}f}".replace("-", "−")


def counted(number: int, noun: str) -> str:
    """1 sequence, 1,200 sequences; `noun` takes an s."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def with_memory(title: str, needed: int) -> str:
    """The title of some work with the memory in bytes that it needs beside the model."""
    return f"{title} (about {needed / 1e9:.1f} GB)"
