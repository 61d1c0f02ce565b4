"""Numbers as text: counts, losses, FLOPs, intervals, durations, memory.

Every text, table and page of this package writes numbers with these functions, and `report.js` has
the same rules for `count`, `flops` and `loss`. Values that are not finite become "?".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

NumberFormat = Callable[[float], str]

COUNT_SUFFIXES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
BYTE_SUFFIXES = ((1e12, " TB"), (1e9, " GB"), (1e6, " MB"), (1e3, " kB"))
NOT_KNOWN = "not known"
ROUNDS_UP = 0.9995  # from here on, three digits of a value show the next power of ten


def count(value: float) -> str:
    """Parameters or tokens, to three digits from a thousand: 13, 31.2k, 1.24B, 3.1e+16."""
    if not math.isfinite(value):
        return "?"
    for unit, suffix in COUNT_SUFFIXES:
        if value >= ROUNDS_UP * unit:
            # 999.5T and more would need a fourth digit, and there is no larger suffix.
            return f"{_three_digits(value / unit)}{suffix}" if value < 999.5e12 else f"{value:.3g}"
    return _three_digits(value) if value < 10 and value != round(value) else f"{value:.0f}"


def _three_digits(value: float) -> str:
    """Three digits with their trailing zeros: 1.00, 12.3, 123."""
    return f"{value:#.3g}".rstrip(".")


def loss(value: float) -> str:
    """A loss to four digits."""
    return f"{value:#.4g}" if math.isfinite(value) else "?"


def flops(value: float, digits: int = 3) -> str:
    """A compute budget in FLOPs: 1.5e+18."""
    return f"{value:.{digits}g}"


def ratio(value: float) -> str:
    """A ratio or a rate to three digits: tokens per parameter, a learning rate, a price."""
    return f"{value:,.0f}" if 999.5 <= value < 1e6 else f"{value:.3g}"


def whole(value: float) -> str:
    """Examples or steps: 12.5, 32, 1,024."""
    return f"{value:,.0f}" if value >= 100 or value == round(value) else f"{value:.3g}"


def coefficient(value: float) -> str:
    """A coefficient of a law to four digits."""
    return f"{value:.4g}"


def exponent(value: float) -> str:
    """An exponent of a law to three decimals."""
    return f"{value:.3f}"


def percent(fraction: float, digits: int = 2) -> str:
    """A fraction in per cent: 0.0123 as "1.2 %", 1.234 as "123 %"."""
    value = 100 * fraction
    return f"{value:.0f} %" if abs(value) >= 10**digits - 0.5 else f"{value:.{digits}g} %"


def between(low: float, high: float, form: NumberFormat) -> str:
    """An interval, "1.00k to 2.00k"; "not known" up to infinity.

    Empty if it has no finite end, or equal ends: the value was given, and not found.
    """
    if math.isinf(high) and low == 0:
        return NOT_KNOWN
    if low == high or not (math.isfinite(low) or math.isfinite(high)):
        return ""
    return f"{form(low)} to {form(high)}"


def with_interval(value: float, interval: tuple[float, float], form: NumberFormat) -> str:
    """A value and its interval: "1.50k (1.00k to 2.00k)"."""
    text = between(*interval, form)
    return f"{form(value)} ({text})" if text else form(value)


def plus_minus(value: float, error: float) -> str:
    """A value and its standard error, rounded to two digits of the error."""
    if not (math.isfinite(error) and error > 0):
        return f"{value:.4g}"
    places = 1 - math.floor(math.log10(error))  # decimals that show two digits of the error
    # Very large or very small numbers are shorter in scientific notation.
    if places > 6 or max(abs(value), error) >= 1e6:
        return f"{value:.3g} ± {error:.2g}"
    if places < 0:
        return f"{round(value, places):,.0f} ± {round(error, places):,.0f}"
    return f"{value:.{places}f} ± {error:.{places}f}"


def times(factor: float) -> str:
    """A factor, such as C over the largest budget: 0.1, 4.2, 1,000, 1e+09."""
    if factor >= 1e6:
        return f"{factor:.3g}"
    return f"{factor:,.0f}" if factor >= 10 else f"{factor:.2g}"


def folded(text: object, longest: int) -> str:
    """A text in one line of printable characters, with an ellipsis where it is too long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line if len(line) <= longest else f"{line[: longest - 1]}\u2026"


def duration(seconds: float) -> str:
    """A duration in its two largest units: 42 s, 3 min 20 s, 5 h 10 min, 3 d 4 h."""
    if not math.isfinite(seconds):
        return "?"
    if seconds < 10:
        return f"{seconds:.2g} s"
    # Seconds in the unit, its name, the next smaller unit, and how many of those it holds.
    units = ((86400, "d", "h", 24), (3600, "h", "min", 60), (60, "min", "s", 60))
    for size, unit, smaller, parts in units:
        if seconds >= size:
            whole, rest = divmod(round(seconds / size * parts), parts)
            return f"{whole} {unit} {rest} {smaller}" if rest else f"{whole} {unit}"
    return f"{seconds:.0f} s"


def memory(num_bytes: float) -> str:
    """Memory in powers of 1,000: 3.2 MB, 41 GB."""
    if not math.isfinite(num_bytes):
        return "?"
    for unit, suffix in BYTE_SUFFIXES:
        if num_bytes >= ROUNDS_UP * unit:
            return f"{num_bytes / unit:.3g}{suffix}"
    return f"{num_bytes:.0f} B"


def bent(terms: str, gamma: float) -> str:
    """The text of the two terms of a law, with its gamma if that is not one."""
    return terms if gamma == 1 else f"({terms})^{gamma:.4g}"


def span(values: Iterable[float]) -> str:
    """The smallest and the largest value, or the only one."""
    ordered = sorted(set(values))
    texts = [ratio(value) if isinstance(value, float) else whole(value) for value in ordered]
    return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]}"
