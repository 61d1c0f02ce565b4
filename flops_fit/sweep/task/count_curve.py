"""FLOPs of many sizes from the counts of a few, for models whose FLOPs are slow to count.

A count of a recurrent network takes seconds for every size, whatever its width. But the FLOPs of a
family of models are mostly a polynomial of its size, with rational coefficients: two for a depth,
three for a width. Where one of low degree goes through more counts than determine it, exactly, the
count of a size between them is known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from time import monotonic

from flops_fit.records import Size
from flops_fit.validate import is_whole_number

# Seconds spent on counting after which counts are computed where they can be.
PATIENCE_S = 5.0
MAX_DEGREE = 3
# Counts beyond those that determine a polynomial which it must go through.
CHECKED = 2


@dataclass
class CountCurve:
    """Counted FLOPs by size, and those that follow from them.

    Attributes:
        patience_s: Seconds that may be spent on counting before any count is computed.
        counts: FLOPs of one batch by size, as counted.
        computed: The same as computed, for sizes that were not counted.
    """

    patience_s: float = PATIENCE_S
    counts: dict[int, int] = field(default_factory=dict)
    computed: dict[int, int] = field(default_factory=dict)
    _spent_s: float = 0.0

    def count(self, size: Size, counted: Callable[[], float]) -> float:
        """FLOPs of one batch at a size.

        Args:
            size: The size.
            counted: Counts them; raises if the model does not run.
        """
        whole = int(size) if is_whole_number(size) else None
        known = None if whole is None else self._computed(whole)
        if known is not None:
            return float(known)
        start = monotonic()
        flops = counted()
        self._spent_s += monotonic() - start
        if whole is not None and flops.is_integer():
            self.counts[whole] = int(flops)
        return flops

    def _computed(self, size: int) -> int | None:
        """FLOPs at a size between those counted; None if they do not follow from the counts."""
        if self._spent_s < self.patience_s or not self.counts:
            return None
        if not min(self.counts) < size < max(self.counts):
            return None
        for degree in range(1, MAX_DEGREE + 1):
            value = self._on_polynomial(degree, size)
            if value is not None:
                self.computed[size] = value
                return value
        return None

    def _on_polynomial(self, degree: int, size: int) -> int | None:
        """The value of the polynomial through the counts; None if it is none of this degree."""
        sizes = sorted(self.counts)
        if len(sizes) < degree + 1 + CHECKED:
            return None
        step = (len(sizes) - 1) / degree
        points = {s: self.counts[s] for s in (sizes[round(i * step)] for i in range(degree + 1))}
        if any(_interpolate(points, s) != self.counts[s] for s in sizes):
            return None
        value = _interpolate(points, size)
        return int(value) if value.denominator == 1 else None


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
