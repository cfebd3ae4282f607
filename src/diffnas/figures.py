"""Numbers for people: three digits, and units. Needs no torch."""

from decimal import Decimal


def figure(key: str, value: float, std: float | None = None) -> str:
    """A cost or measure with its unit: ``17.3 M``, ``12.1 ms``, ``0.83 ± 0.02``.

    ``key``: its name, e.g. ``params``, ``latency`` or ``memory_bytes``; ``std``: over seeds.
    """
    if key == "params" or key.startswith("macs"):
        return count(value)
    scale, unit = 1.0, " ms" if key.startswith("latency") else ""
    if key.startswith("memory"):
        scale, unit = (2.0**30, " GiB") if value >= 2**30 else (2.0**20, " MiB")
    text = significant(value / scale)
    if std is not None:
        text += f" ± {std / scale:.{len(text.partition('.')[2])}f}"
    return f"{text}{unit}"


def count(value: float) -> str:
    """``17.3 M``, ``3.10 G``, ``640``."""
    for scale, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= scale:
            return f"{significant(value / scale)} {unit}"
    return f"{value:.0f}"


def significant(value: float, digits: int = 3) -> str:
    """Three significant digits without an exponent where the number is of ordinary size."""
    if value == 0:
        return "0"
    if not 1e-4 <= abs(value) < 1e6:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - _order(value, digits))
    return f"{value:.{decimals}f}"


def size(number: int) -> str:
    """Of a space: ``4096``, or ``2e+17`` where nobody counts digits."""
    return f"{number:,}".replace(",", " ") if number < 1e9 else f"{Decimal(number):.0e}"


def duration(seconds: float) -> str:
    """``4 s``, ``3 min``, ``2 h 05 min``."""
    if round(seconds) < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _order(value: float, digits: int) -> int:
    """Of the rounded value: 99.96 is 100."""
    return int(f"{abs(value):.{digits - 1}e}".split("e")[1])
