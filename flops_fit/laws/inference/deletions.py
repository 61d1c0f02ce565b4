"""Outliers among few runs: every run and every pair of runs is left out in turn.

One bad run hides another: with both in, neither stands out, and with one out the other has bent the
law. So the law is fitted without each run and without each pair (Cook & Weisberg 1982, section
2.2.2), and F tests compare the sums of squares, with Bonferroni's correction for their number. A
pair counts if each of its runs stands out once the other is left out.

Few runs show a moderate outlier only just. Runs between two levels are suspects: they stay in, and
the answer without them is told too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from flops_fit.laws.distributions import f_tail
from flops_fit.laws.fitting.newton import solve
from flops_fit.laws.fitting.parametric import (
    FEW_STARTS,
    ParametricFit,
    centred,
    excess,
    fit_parametric,
    restart,
)
from flops_fit.laws.fitting.starts import grid_starts
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.runs.points import Points

# Runs are left out below the first level, and suspected below the second.
LEVEL = 0.01
SUSPECTED = 0.1
# Residuals below this are rounding, not noise.
FLOOR = 1e-7
# The sums of squares are wanted to a few digits.
TOLERANCE, MOST_ITERATIONS = 1e-4, 30


@dataclass(frozen=True)
class Deletion:
    """The runs that stand out most.

    Attributes:
        runs: Their indices: none, one or two.
        p: Probability of so large a gain without them, corrected for the number of tries.
    """

    runs: tuple[int, ...]
    p: float


def stand_out(fit: ParametricFit, points: Points) -> tuple[Array, np.ndarray]:
    """Outliers among few runs.

    Args:
        fit: A robust fit of the runs.
        points: The runs.

    Returns:
        +1 for runs far above the others, -1 for runs far below, else 0, shape (n,); and a mask of
        the suspects.
    """
    side, suspected = np.zeros(len(points)), np.zeros(len(points), bool)
    while True:
        keep = np.flatnonzero(side == 0)
        # Two more than a law has parameters, and a pair.
        if len(keep) < fit.num_free + 4:
            return side, suspected
        found = most_deviant(points.at(keep), fit)
        rows = keep[list(found.runs)]
        if found.p >= LEVEL:
            suspected[rows] = found.p < SUSPECTED
            return side, suspected
        rest = points.at(np.setdiff1d(keep, rows))
        without = fit_parametric(rest, form=fit.form, space=fit.space, most_starts=FEW_STARTS)
        side[rows] = np.sign(excess(without, points.at(rows)))


def most_deviant(points: Points, fit: ParametricFit) -> Deletion:
    """The run or the pair of runs without which the law fits significantly better."""
    n, p = len(points), fit.num_free
    pairs = np.array(list(combinations(range(n), 2)))
    weight = np.ones((1 + n + len(pairs), n))
    weight[1 + np.arange(n), np.arange(n)] = 0.0
    weight[1 + n + np.arange(len(pairs))[:, None], pairs] = 0.0
    rss = _sums_of_squares(points, fit, weight) + n * FLOOR**2
    every, one, two = rss[0], rss[1 : 1 + n], rss[1 + n :]
    single, k = int(one.argmin()), int(two.argmin())
    pair = tuple(int(i) for i in pairs[k])
    p_single = _p_value(every, one[single], 1, n - p - 1) * n
    p_pair = _p_value(every, two[k], 2, n - p - 2) * len(pairs)
    # Each of the pair against the fit without the other one.
    p_each = max(_p_value(one[i], two[k], 1, n - p - 2) for i in pair) * n
    p_pair = max(p_pair, p_each)
    if p_pair < LEVEL or p_pair < min(p_single, SUSPECTED):
        return Deletion(pair, p_pair)
    return Deletion((single,), p_single)


def _p_value(with_runs: float, without: float, number: int, dof: int) -> float:
    """The p value of the F test of leaving `number` runs out."""
    gain = max(with_runs - without, 0.0) / number
    return f_tail(gain / (without / dof), number, dof)


def _sums_of_squares(points: Points, fit: ParametricFit, weight: Array) -> Array:
    """The least sum of weighted squares for each row of weights, from two starts each."""
    problem, centre = centred(points, replace(fit.aim, delta=None))
    fresh = grid_starts(problem.x, problem.y, problem.loss, tied=fit.form == "tied", most=1)
    ends = [
        solve(
            replace(problem, weight=weight),
            np.tile(start, (len(weight), 1)),
            tol=TOLERANCE,
            max_iter=MOST_ITERATIONS,
        ).objective
        for start in (restart(fit, centre), fresh[0])
    ]
    return 2 * np.min(ends, axis=0)
