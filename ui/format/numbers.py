"""Numbers as people read them: three significant digits, a unit, no jumping widths."""

import math

from transact.wording import measured

_THOUSANDS = ("", " k", " M", " B", " T", " P")
_UNSEEN = 0.05
"""Per cent that round to 0.0."""
_BYTES = (" B", " kB", " MB", " GB", " TB", " PB")


def count(value: float) -> str:
    """1_269_000_000 -> "1.27 B"; for parameters and operations."""
    return _scaled(value, _THOUSANDS)


def size(value: float) -> str:
    """A number of bytes in decimal units: 5_624_320 -> "5.62 MB"."""
    return _scaled(value, _BYTES)


def percent(share: float, digits: int = 0) -> str:
    """0.25 -> "25 %"."""
    return f"{share * 100:.{digits}f} %"


def figure(value: float | None) -> str:
    """A measured number in three significant digits and never in powers of ten, or a dash where there is none."""
    if value is None:
        return "–"
    return measured(value)


def signed(value: float | None) -> str:
    """A difference, with its sign always written."""
    if value is None:
        return "–"
    shown = figure(abs(value))
    return "±0" if shown == "0" else ("+" if value >= 0 else "−") + shown


def factor(before: float, after: float) -> str:
    """How many times as large it is: "× 1.30"; a dash where nothing was there before."""
    return f"× {figure(after / before)}" if before else "–"


def change(before: float, after: float) -> str:
    """A change as a share of what was before: "−12.5 %"."""
    share = (after / before - 1) * 100
    return "±0 %" if abs(share) < _UNSEEN else f"{share:+,.1f} %".replace("-", "−")


def points(difference: float) -> str:
    """A difference of shares in percentage points."""
    rounded = round(difference * 100, 1)
    size = f"{abs(rounded):.1f}".removesuffix(".0")
    return f"{'±' if not rounded else '+' if rounded > 0 else '−'}{size} {'point' if size == '1' else 'points'}"


def duration(seconds: float) -> str:
    """Rounded so that it does not flicker: "4 s", "2 min 10 s", "1 h 5 min"."""
    whole = max(0, math.ceil(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def about(seconds: float) -> str:
    """A time that is only expected: "8 s", "40 s", "3 min", "1 h 10 min"."""
    if seconds < 55:
        return f"{max(1, round(seconds)) if seconds < 10 else 5 * round(seconds / 5)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else duration(600 * round(seconds / 600)).replace(" 0 min", "")


def _scaled(value: float, units: tuple[str, ...]) -> str:
    if value == 0:
        return f"0{units[0]}"
    step = min(int(math.log10(abs(value)) // 3), len(units) - 1) if abs(value) >= 1 else 0
    scaled = value / 1000**step
    if abs(scaled) >= 999.5 and step < len(units) - 1:
        step, scaled = step + 1, scaled / 1000
    if step == 0:
        return f"{scaled:,.0f}{units[0]}"
    digits = max(0, 2 - int(math.log10(abs(scaled))))
    return f"{scaled:.{digits}f}{units[step]}"
