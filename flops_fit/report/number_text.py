"""Numbers as people read them."""

from __future__ import annotations

import math

SUFFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def count(value: float) -> str:
    """Parameters or tokens, three digits: 31.2k, 1.24B; beyond a quadrillion as 3.1e+16."""
    if not math.isfinite(value):
        return "?"
    for size, suffix in SUFFIXES:
        if value >= 0.9995 * size:
            return f"{_three(value / size)}{suffix}" if value < 999.5e12 else f"{value:.3g}"
    return _three(value)


def _three(value: float) -> str:
    return f"{value:#.3g}".rstrip(".")


def loss(value: float) -> str:
    """A loss, four digits."""
    return f"{value:#.4g}" if math.isfinite(value) else "?"


def flops(value: float) -> str:
    """A budget, three digits."""
    return f"{value:.3g}"


def between(low: float, high: float, form: object) -> str:
    """An interval; empty where there is none."""
    assert callable(form)
    if not (math.isfinite(low) or math.isfinite(high)):
        return ""
    return f"{form(low)} to {form(high)}"


def plus_minus(value: float, error: float) -> str:
    """A value and its standard error, to two digits of the error."""
    if not (math.isfinite(error) and error > 0):
        return f"{value:.4g}"
    places = 1 - math.floor(math.log10(error))
    if places < 0 or places > 6 or abs(value) >= 1e6:
        return f"{value:.3g} ± {error:.2g}"
    return f"{value:.{places}f} ± {error:.{places}f}"


def times(factor: float) -> str:
    """How many times the largest budget."""
    return f"{factor:,.0f}" if factor >= 10 else f"{factor:.2g}"


def duration(seconds: float) -> str:
    """A time: 42 s, 3 min 20 s, 5 h 10 min, 3 d 4 h."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 10:
        return f"{seconds:.2g} s"
    for unit, small, size in (("d", "h", 86400), ("h", "min", 3600), ("min", "s", 60)):
        parts = {"h": 24, "min": 60, "s": 60}[small]
        if seconds >= size:
            whole, rest = divmod(round(seconds / size * parts), parts)
            return f"{whole} {unit} {rest} {small}" if rest else f"{whole} {unit}"
    return f"{seconds:.0f} s"


def size_of(num_bytes: float) -> str:
    """Memory: 3.2 MB, 41 GB (powers of 1,000)."""
    if not math.isfinite(num_bytes):
        return "?"
    for size, suffix in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if num_bytes >= 0.9995 * size:
            return f"{num_bytes / size:.3g} {suffix}"
    return f"{num_bytes:.0f} B"
