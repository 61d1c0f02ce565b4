"""`Contrast`: two sweeps beside each other, over the budgets that both have and beyond."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd

from flops_fit.laws.comparison.difference import Difference, difference_at
from flops_fit.laws.comparison.multiplier import PER_DECADE, multiplier_at
from flops_fit.laws.comparison.pairs import Pairs, find_pairs
from flops_fit.laws.findings import Findings
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.predict.reach import reach

COLUMNS = (
    "compute_budget",
    "multiplier",
    "multiplier_low",
    "multiplier_high",
    "loss_difference",
    "loss_difference_low",
    "loss_difference_high",
    "probability_better",
    "extrapolation",
)
# Equal losses are looked for up to this factor below and above the budgets compared.
FARTHEST = 1000.0
# A grid is used for budgets at least this factor within it.
NEAREST = 100.0


@dataclass(frozen=True)
class Crossing:
    """Where two sweeps have the same loss, in FLOPs, with its 95 % interval.

    Attributes:
        C: The budget.
        low: Low end.
        high: High end.
        better_beyond: Whether the second sweep is the better one at larger budgets.
    """

    C: float
    low: float
    high: float
    better_beyond: bool


@dataclass(frozen=True)
class Contrast:
    """A second sweep compared with a first one.

    Attributes:
        first: The laws of the first sweep.
        second: Those of the second.
        pairs: The runs that share their randomness; None where there are none.
        bytes_per_token: What the losses of either are divided by.
    """

    first: Findings
    second: Findings
    pairs: Pairs | None
    bytes_per_token: tuple[float, float] = (1.0, 1.0)

    @classmethod
    def of(
        cls, first: Findings, second: Findings, bytes_per_token: tuple[float, float] = (1.0, 1.0)
    ) -> Contrast:
        """Compare the laws of two sweeps, paired where their runs share their randomness."""
        return cls(first, second, find_pairs(first, second), bytes_per_token)

    @property
    def per_byte(self) -> bool:
        """Whether losses are compared per byte."""
        return self.bytes_per_token != (1.0, 1.0)

    @cached_property
    def common(self) -> tuple[float, float]:
        """The smallest and largest budget that lie within both sweeps, FLOPs.

        Where none does, both are the largest budget of the sweep that ends first.
        """
        spans = [findings.fitted_runs["compute_budget"] for findings in (self.first, self.second)]
        low, high = max(span.min() for span in spans), min(span.max() for span in spans)
        return min(float(low), float(high)), float(high)

    @cached_property
    def reach(self) -> float:
        """The largest budget at which both sweeps predict, FLOPs."""
        return min(reach(each) * each.largest_budget for each in (self.first, self.second))

    def extrapolation(self, C: Array) -> Array:
        """How far budgets lie beyond the sweep that ends first, as factors, shape (k,)."""
        return C / min(self.first.largest_budget, self.second.largest_budget)

    def default_budgets(self) -> Array:
        """The budgets of the first sweep that both have, then steps of ten up to the reach."""
        low, high = self.common
        trained = np.unique(self.first.optima["compute_budget"].to_numpy(float))
        inside = trained[(trained > low / 1.1) & (trained < high * 1.1)]
        decades = max(0, math.floor(math.log10(self.reach / high) + 1e-6))
        return np.concatenate(
            [inside if len(inside) else [high], high * 10.0 ** np.arange(1, decades + 1)]
        )

    def difference(self, C: Array) -> Difference:
        """The difference of the losses at equal compute."""
        return difference_at(self.first, self.second, C, self.pairs, self.bytes_per_token)

    def at(self, C: Array) -> pd.DataFrame:
        """One row per budget, with `COLUMNS`."""
        found = self.difference(C)
        low, high = self._grid.C[[0, -1]]
        inside = (C >= low * NEAREST).all() and (C * NEAREST <= high).all()
        grid = self._grid if inside else self._around(float(C.min()), float(C.max()))
        multiplier = multiplier_at(self.first, C, grid, self.bytes_per_token[0])
        values = (
            C,
            multiplier.value,
            multiplier.low,
            multiplier.high,
            found.value,
            found.low,
            found.high,
            found.probability_lower,
            self.extrapolation(C),
        )
        return pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))

    @cached_property
    def _grid(self) -> Difference:
        return self._around(self.common[0], max(self.reach, 10 * self.common[1]))

    def _around(self, low: float, high: float) -> Difference:
        """The difference on a grid of budgets far around others."""
        low, high = low / FARTHEST, high * FARTHEST
        steps = round(math.log10(high / low) * PER_DECADE) + 1
        return self.difference(np.geomspace(low, high, steps))

    def crossing(self) -> Crossing | None:
        """The budget at which the losses are equal, within the reach of both.

        Its interval is where the difference cannot be told from zero.

        Returns:
            None unless one sweep is seen to be better below it, and the other one above it.
        """
        low, high = self.common[0], max(self.reach, 1.01 * self.common[0])
        steps = round(math.log10(high / low) * PER_DECADE) + 2
        grid = self.difference(np.geomspace(low, high, steps))
        changes = np.flatnonzero(np.diff(np.sign(grid.value)) != 0)
        for i in map(int, changes):
            before = np.flatnonzero(grid.told[: i + 1])
            after = np.flatnonzero(grid.told[i + 1 :])
            if len(before) and len(after):
                ends = int(before[-1]), i + 1 + int(after[0])
                if grid.value[ends[0]] * grid.value[ends[1]] < 0:
                    return _crossing_between(grid, i, ends)
        return None

    def factor_to_tell(self, C: float) -> float:
        """How many times the FLOPs of both sweeps would tell a difference of the size found at C.

        Runs repeated k times narrow what is random by the root of k. At most 1 where the difference
        is told already; infinite where what is left would hide it.
        """
        found = self.difference(np.array([C]))
        side = found.high - found.value if found.value[0] < 0 else found.value - found.low
        half, fixed, size = float(side[0]), float(found.fixed[0]), abs(float(found.value[0]))
        fixed = min(fixed, half)
        if size <= fixed:
            return math.inf
        return (half**2 - fixed**2) / (size**2 - fixed**2)


def _crossing_between(grid: Difference, i: int, ends: tuple[int, int]) -> Crossing:
    """The crossing after point i of a grid, whose interval ends at two of its points."""
    share = grid.value[i] / (grid.value[i] - grid.value[i + 1])
    C = grid.C[i] * (grid.C[i + 1] / grid.C[i]) ** share
    low, high = (float(grid.C[end]) for end in ends)
    return Crossing(float(C), low, high, bool(grid.value[i + 1] < 0))
