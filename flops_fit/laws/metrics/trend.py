"""Whether the runs determine a trend of a metric; where not, why there is no forecast."""

from __future__ import annotations

import numpy as np

from flops_fit.laws.check import counted
from flops_fit.laws.distributions import correlation, ranks
from flops_fit.laws.model.arrays import Array

# Fewest runs and budgets with the metric.
LEAST_RUNS = 10
LEAST_BUDGETS = 3
# A metric follows the loss if chance orders it so well less often than this.
LEVEL = 1e-3
# It no longer moves if the larger half of the budgets spans less than this share of its range, and
# shows no trend.
STILL = 0.1


def refuse(values: Array, loss: Array, budgets: Array) -> str:
    """Why a metric has no forecast; empty if it has one.

    Args:
        values: The metric of the runs, shape (n,).
        loss: Their loss.
        budgets: Labels of their budgets.
    """
    n, num_budgets = len(values), len(np.unique(budgets))
    if n < LEAST_RUNS or num_budgets < LEAST_BUDGETS:
        return (
            f"{counted(n, 'run')} at {counted(num_budgets, 'budget')} have it: expected at least "
            f"{LEAST_RUNS} at {LEAST_BUDGETS}."
        )
    low, high = float(values.min()), float(values.max())
    if high - low <= 1e-9 * max(abs(low), abs(high), 1e-300):
        return f"it is {low:.4g} in every run, at its floor or its ceiling: there is no trend."
    p = trend_p(values, loss)
    if p < LEVEL:
        return ""
    return (
        f"the runs show no trend: it lies between {low:.3g} and {high:.3g} whatever the loss "
        f"(p = {p:.2g}), as noise does, or a task at chance level."
    )


def trend_p(values: Array, loss: Array) -> float:
    """How often chance orders a metric so well by the loss: the smaller p of two tests.

    Spearman's sees a steady trend. A few runs that rise from the floor hardly change ranks, but
    the correlation itself.
    """
    rank = correlation(ranks(values), ranks(loss))[1]
    line = correlation(values, loss)[1]
    found = [float(p) for p in (rank, line) if np.isfinite(p)]
    return min(2 * min(found), 1.0) if found else 1.0


def remark(values: Array, loss: Array, budgets: Array) -> str:
    """What is doubtful of a metric that has a trend: empty, or that it no longer moves."""
    labels = np.unique(budgets)
    upper = budgets >= labels[len(labels) // 2]
    seen = np.ptp(values)
    if len(values[upper]) < LEAST_RUNS // 2 or np.ptp(values[upper]) > STILL * seen:
        return ""
    if trend_p(values[upper], loss[upper]) < LEVEL:
        return ""
    middle = float(np.median(values[upper]))
    return f"it no longer moves: {middle:.3g} in the larger half of the budgets."
