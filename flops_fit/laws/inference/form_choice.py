"""The form of the headline: five parameters, tied (alpha = beta) or bent (gamma), and why.

The tied law extrapolates better on most public ladders, but not on all. It is chosen over five
parameters only if it predicts the held-out losses clearly better *and* the data do not contradict
alpha = beta: a small advantage is often luck, and would cost a bias in the exponent for nothing.

The bent law is chosen if the runs contradict gamma = 1 and the back-test does not contradict the
bend. Public sweeps contradict gamma = 1 with F from 8 to 319 on nearly every table. Where the law
of five parameters is exact, F exceeds 7 in one sweep of 60 or so.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from flops_fit.display.number_text import times
from flops_fit.laws.fitting.parametric import Form, ParametricFit
from flops_fit.laws.inference.backtest import NO_NOISE
from flops_fit.laws.inference.term_tests import check_bounds
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.runs.budgets import group_budgets

# The tied law must have at most this share of the five-parameter law's error.
CLEARLY = 0.8
# F statistics of alpha = beta: up to the first the tied law fits as well; above the second, about
# the 5 % point, the data contradict it.
F_CLOSE = 1.0
F_BOUND = 4.0
# F statistic of gamma = 1 above which the data contradict it.
F_BENT = 7.0
# The bent law's error on held-out runs may be at most this many times that of the other form.
NO_WORSE = 1.1
# Fewest runs for a bent law, by the number of budgets.
LEAST_RUNS = {3: 24, 4: 12}


def may_bend(C: Array, tolerance: float) -> bool:
    """Whether there are enough runs and budgets to fit gamma.

    Args:
        C: Budget of each run in FLOPs, shape (n,).
        tolerance: Budgets that differ by less than this share are one budget.
    """
    budgets = len(np.unique(group_budgets(C, tolerance)))
    return budgets >= min(LEAST_RUNS) and len(C) >= LEAST_RUNS[min(budgets, max(LEAST_RUNS))]


def contradicts_straight(five: ParametricFit, bent: ParametricFit) -> bool:
    """Whether the runs contradict gamma = 1, and the bent fit is sound."""
    return five.residual_std >= NO_NOISE and bent_test(five, bent) > F_BENT and is_sound(bent)


def is_sound(bent: ParametricFit) -> bool:
    """Whether a bent fit converged, with nothing but E and gamma at a bound of the search."""
    return bent.converged and not check_bounds(bent)


def choose_form(
    table: pd.DataFrame,
    fits: Mapping[str, ParametricFit],
    straight: tuple[Form, str] | None = None,
) -> tuple[Form, str]:
    """The form to report, and the reason.

    Args:
        table: The table that `backtest` returned.
        fits: The five-parameter and the tied fit of all runs, by form, and the bent one if there
            are enough runs for it.
        straight: The form with gamma = 1, and the reason, where it is known.
    """
    five, bent = fits["five"], fits.get("bent")
    other, reason = straight or _choose_straight(table, five, fits["tied"])
    if bent is None or table.empty or not contradicts_straight(five, bent):
        return other, reason
    contradiction = f"the runs contradict gamma = 1 (F {_short(bent_test(five, bent))})"
    error = _share(table, "bent", other)
    if not error <= NO_WORSE:
        held_out = f"with gamma the error on the held-out largest budgets is {_short(error)} times"
        return other, f"{reason}; {contradiction}, but {held_out} as large"
    return "bent", (
        f"a law that bends: {contradiction}, and with gamma the error on the held-out largest "
        f"budgets is {_short(error)} times that of a straight law"
    )


def _choose_straight(
    table: pd.DataFrame, five: ParametricFit, tied: ParametricFit
) -> tuple[Form, str]:
    """The better form with gamma = 1, and the reason."""
    F = tied_test(five, tied)
    if five.at_bound and not tied.at_bound and F < F_BOUND:
        bounds = ", ".join(five.at_bound)
        return "tied", f"alpha = beta: fitted separately, {bounds} ran to a bound"
    if table.empty:
        return "five", "alpha and beta fitted separately: too few budgets to test alpha = beta"
    if five.residual_std < NO_NOISE:
        reason = "the runs have no noise"
        if tied.residual_std < NO_NOISE:
            reason += ", alpha = beta fits too"
        return "five", reason
    share = _share(table, "tied", "five")
    error = f"its error on the held-out largest budgets is {_short(share)} times"
    if share < CLEARLY and F < F_CLOSE:
        return "tied", f"alpha = beta: {error} that of separate exponents, and it fits no worse"
    reason = f"alpha and beta fitted separately: with alpha = beta {error} as large"
    if F > F_BOUND:
        reason += f", and the runs contradict it (F {_short(F)})"
    elif share < CLEARLY:
        reason += f", but all runs together fit worse (F {_short(F)})"
    return "five", reason


def tied_test(five: ParametricFit, tied: ParametricFit) -> float:
    """F statistic of alpha = beta, with one degree of freedom against n - 5."""
    return _f_statistic(tied, five)


def bent_test(five: ParametricFit, bent: ParametricFit) -> float:
    """F statistic of gamma = 1, with one degree of freedom against n - 6."""
    return _f_statistic(five, bent)


def _f_statistic(restricted: ParametricFit, full: ParametricFit) -> float:
    increase = max(restricted.objective - full.objective, 0.0)
    dof = max(full.num_runs - full.num_free, 1)
    return increase / max(full.objective, 1e-24) * dof


def _share(table: pd.DataFrame, form: Form, other: Form) -> float:
    """The error of one form on held-out runs over that of another."""
    errors = table.groupby("form")["loss_rmse"].apply(lambda rmse: float((rmse**2).sum()))
    return float(np.sqrt(errors.get(form, np.inf) / max(errors.get(other, np.inf), 1e-300)))


def _short(value: float) -> str:
    return "over 100" if value > 100 else times(value)
