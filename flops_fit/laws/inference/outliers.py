"""Screens for outliers: runs too far above or below the others to belong to the sweep.

A run that diverged, stalled or was cut short has a higher loss than it should; one evaluated on
other data, or typed wrongly, may have a lower one. The tests are two-sided.

* From twenty runs: far from what the neighbours say, since the law itself may be wrong
  (`neighbours`).
* Below: runs, and pairs of runs, without which the law fits significantly better (`deletions`). So
  few runs do not tell a misfit of the law from outliers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from flops_fit.laws.fitting.parametric import ParametricFit, centred, excess
from flops_fit.laws.fitting.residuals import jacobian, tie_basis
from flops_fit.laws.inference.deletions import stand_out
from flops_fit.laws.inference.neighbours import FLOOR, out_of_line
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.runs.points import Points

# Fewest runs that have neighbours enough.
NEIGHBOURS_FROM = 20


@dataclass(frozen=True)
class Screened:
    """What a screen says of n runs.

    Attributes:
        side: +1 for runs to leave out because they lie far above, -1 far below, else 0, shape (n,).
        suspected: Runs that stay in, and may be outliers, shape (n,).
    """

    side: Array
    suspected: np.ndarray

    @property
    def out(self) -> np.ndarray:
        """The runs to leave out, as a mask of shape (n,)."""
        return np.asarray(self.side != 0)


def keep_all(n: int) -> Screened:
    """No run of n is left out or suspected."""
    return Screened(np.zeros(n), np.zeros(n, bool))


def screen(fit: ParametricFit, points: Points) -> Screened:
    """The runs to leave out.

    Args:
        fit: A Huber fit of all the runs.
        points: The runs.
    """
    if len(points) < NEIGHBOURS_FROM:
        return Screened(*stand_out(fit, points))
    problem, _ = centred(points, fit.aim)
    J = jacobian(problem, np.array([fit.theta]))[0] @ tie_basis(problem.ties)
    side = out_of_line(excess(fit, points), J, points)
    return replace(keep_all(len(points)), side=side)


def screen_iqr(fit: ParametricFit, points: Points) -> Screened:
    """The runs beyond Tukey's fences around the law.

    The fences are one and a half interquartile ranges beyond the quartiles.
    """
    away = excess(fit, points)
    low, high = np.percentile(away, [25, 75])
    reach = 1.5 * (high - low) + FLOOR
    side = (away > high + reach).astype(float) - (away < low - reach)
    return replace(keep_all(len(points)), side=side)
