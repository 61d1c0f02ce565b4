"""Tests of the law's terms: do the runs show each of them, and an exponent inside the search?

A law fitted to losses that fall with neither N nor D still has some exponent and some optimum, both
without meaning. Each power term is therefore left out in turn, which takes the law from five
parameters to three, and an F test at the 5 % level decides whether the term is needed. A term that
is not needed leaves N_opt undetermined.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flops_fit.laws.check import Check
from flops_fit.laws.distributions import f_tail
from flops_fit.laws.fitting.parametric import FEW_STARTS, ParametricFit, fit_parametric
from flops_fit.laws.model.cost import FlopsPerToken
from flops_fit.laws.runs.points import Points

LEVEL = 0.05
AT_BOUND_ALLOWED = ("E", "gamma")
# A gain in the objective per run below this is rounding.
NEGLIGIBLE = 1e-20


def check_terms(fit: ParametricFit, points: Points) -> list[Check]:
    """Refuse a law of which the runs do not show a term (F test, p > 0.05).

    Args:
        fit: The five-parameter fit of these runs.
        points: The runs.
    """
    p_values = {
        "N": p_value(fit, replace(points, N=np.ones_like(points.N))),
        "D": p_value(fit, replace(points, D=np.ones_like(points.D))),
    }
    unseen = [name for name, p in p_values.items() if p > LEVEL]
    if not unseen:
        return []
    figures = ", ".join(f"p = {p_values[name]:.2g} for {name}" for name in unseen)
    message = f"the runs do not show that the loss falls with {' or '.join(unseen)} ({figures})."
    advice = "Widen the sizes and budgets until losses differ by more than their noise."
    return [Check("unseen-term", "refuse", message, advice)]


def check_bounds(fit: ParametricFit) -> list[Check]:
    """Refuse a law with a parameter other than E and gamma at a bound of the search.

    E at zero is a legitimate result, and so is gamma at either end; both have checks of their own.
    """
    names = [name for name in fit.at_bound if name not in AT_BOUND_ALLOWED]
    if not names:
        return []
    message = f"{' and '.join(names)} ran to a bound of the search: no law fits these runs."
    advice = "Look for a recipe that suits some sizes only; else widen the sizes and budgets."
    return [Check("exponent-at-bound", "refuse", message, advice)]


def p_value(fit: ParametricFit, without_term: Points) -> float:
    """The p value of the F test of a term: two degrees of freedom against n - 5.

    Args:
        fit: The five-parameter fit.
        without_term: Its runs with N or D set to one, so that the law fitted to them lacks the
            term.
    """
    reduced = fit_parametric(
        without_term,
        space=fit.space,
        delta=fit.delta,
        cost=FlopsPerToken(),
        most_starts=FEW_STARTS,
    )
    gain = reduced.objective - fit.objective
    num_runs = len(without_term)
    if gain <= NEGLIGIBLE * num_runs:
        return 1.0
    dof = max(num_runs - 5, 1)
    return f_tail(gain / 2 / max(fit.objective / dof, 1e-300), 2, dof)
