"""FLOPs of many sizes from the counts of a few, for models whose FLOPs are slow to count.

A count of a recurrent network takes seconds for every size, whatever its width. Two things help.

It takes so long on the meta device, where an elementwise operation is Python code. Small models are
counted on the CPU in a tenth of the time, and are counted there once both have given the same.

And the FLOPs of a family of models are mostly a polynomial of its size, with rational coefficients:
two for a depth, three for a width. Where one of low degree goes through more counts than determine
it, exactly, the count of a size between them is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from time import monotonic

from flops_fit.records import Size
from flops_fit.validate import is_whole_number

# Seconds spent on counting after which counts are computed where they can be.
PATIENCE_S = 2.0
# Seconds of a count after which it is tried whether another way is faster.
SLOW_S = 0.5
MAX_DEGREE = 3
# Counts beyond those that determine a polynomial which it must go through.
CHECKED = 2


# FLOPs of each batch that is counted.
Counts = tuple[float, ...]
Counter = Callable[[], Counts]


@dataclass
class CountCurve:
    """Counted FLOPs by size, and those that follow from them.

    Attributes:
        patience_s: Seconds that may be spent on counting before any count is computed.
        slow_s: Seconds of one count from which a faster way is looked for.
        counted: FLOPs of each batch by size, as counted.
    """

    patience_s: float = PATIENCE_S
    slow_s: float = SLOW_S
    counted: dict[int, Counts] = field(default_factory=dict)
    _spent_s: float = 0.0
    # Whether the faster way gives the same and is faster; None where it was not tried.
    _quick: bool | None = None

    def counts_at(self, size: Size, count: Counter, quick: Counter | None = None) -> Counts:
        """FLOPs of each batch at a size.

        Args:
            size: The size.
            count: Counts; it raises if the model does not run.
            quick: Another way to count, to be used once it has given the same in less time.
        """
        whole = int(size) if is_whole_number(size) else None
        known = None if whole is None else self._computed(whole)
        if known is not None:
            return known
        start = monotonic()
        counts = (self._quick and quick and _tried(quick)) or self._counted(count, quick)
        self._spent_s += monotonic() - start
        if whole is not None and all(flops.is_integer() for flops in counts):
            self.counted[whole] = counts
        return counts

    def _counted(self, count: Counter, quick: Counter | None) -> Counts:
        """FLOPs in the first way; where it is slow, the other way is compared with it once."""
        start = monotonic()
        counts = count()
        took_s = monotonic() - start
        if quick is not None and self._quick is None and took_s > self.slow_s:
            start = monotonic()
            self._quick = _tried(quick) == counts and monotonic() - start < took_s / 2
        return counts

    def _computed(self, size: int) -> Counts | None:
        """FLOPs at a size between those counted; None if they do not follow from the counts."""
        if self._spent_s < self.patience_s or not self.counted:
            return None
        if not min(self.counted) < size < max(self.counted):
            return None
        columns = zip(*self.counted.values(), strict=True)
        values = [
            _computed(dict(zip(self.counted, map(int, column), strict=True)), size)
            for column in columns
        ]
        known = [float(value) for value in values if value is not None]
        return tuple(known) if len(known) == len(values) else None


def _tried(quick: Counter) -> Counts | None:
    """What the faster way counts; None if it fails."""
    try:
        return quick()
    except Exception:
        return None


def _computed(counts: dict[int, int], size: int) -> int | None:
    """The value of the polynomial of lowest degree through all counts; None if there is none."""
    sizes = sorted(counts)
    for degree in range(1, MAX_DEGREE + 1):
        if len(sizes) < degree + 1 + CHECKED:
            return None
        step = (len(sizes) - 1) / degree
        points = {s: counts[s] for s in (sizes[round(i * step)] for i in range(degree + 1))}
        if all(_interpolate(points, s) == counts[s] for s in sizes):
            value = _interpolate(points, size)
            return int(value) if value.denominator == 1 else None
    return None


def _interpolate(points: dict[int, int], at: int) -> Fraction:
    """Lagrange's polynomial through the points, in exact arithmetic."""
    total = Fraction(0)
    for x, y in points.items():
        term = Fraction(y)
        for other in points:
            if other != x:
                term *= Fraction(at - other, x - other)
        total += term
    return total
