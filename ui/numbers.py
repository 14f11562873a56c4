"""Numbers as people read them: three significant digits, a unit, no jumping widths."""

import math

_THOUSANDS = ("", " k", " M", " B", " T", " P")
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


def figure(value: float | None, digits: int = 3) -> str:
    """A measured number with `digits` decimals, or a dash where there is none."""
    if value is None:
        return "–"
    if math.isinf(value) or math.isnan(value):
        return "∞" if value > 0 else "undefined"
    return f"{value:,.{digits}f}" if abs(value) < 10_000 else f"{value:.3g}"


def signed(value: float | None, digits: int = 3) -> str:
    """A difference, with its sign always written."""
    if value is None:
        return "–"
    return ("+" if value >= 0 else "−") + figure(abs(value), digits)


def duration(seconds: float) -> str:
    """Rounded so that it does not flicker: "4 s", "2 min 10 s", "1 h 5 min"."""
    whole = max(0, math.ceil(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


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
