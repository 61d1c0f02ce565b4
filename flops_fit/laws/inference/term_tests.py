"""Do the runs show the law at all: is each of its terms seen, and its exponents inside the search?

A law fitted to losses that fall with neither N nor D has some exponent and some optimum, and both
mean nothing. So each power term is left out in turn (the five parameters become three) and missed
by an F test at one in twenty: a term that is not missed leaves N_opt undetermined.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from flops_fit.laws.check import Check
from flops_fit.laws.fitting.parametric import FEW_STARTS, ParametricFit, fit_parametric
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.cost import FlopsPerToken

LEVEL = 0.05
NOTHING = 1e-20


def check_terms(fit: ParametricFit, N: Array, D: Array, loss: Array) -> list[Check]:
    """A refusal where a term is not seen.

    Args:
        fit: The five-parameter fit of these runs.
        N: Parameters of each run, shape (n,).
        D: Tokens, shape (n,).
        loss: Loss, shape (n,).
    """
    p_values = {
        "N": chance(fit, np.ones_like(N), D, loss),
        "D": chance(fit, N, np.ones_like(D), loss),
    }
    unseen = [name for name, p in p_values.items() if p > LEVEL]
    if not unseen:
        return []
    figures = ", ".join(f"p = {p_values[name]:.2g} for {name}" for name in unseen)
    message = f"the runs do not show that the loss falls with {' or '.join(unseen)} ({figures})."
    advice = "Widen the sizes and budgets until losses differ by more than their noise."
    return [Check("unseen-term", "refuse", message, advice)]


def check_bounds(fit: ParametricFit) -> list[Check]:
    """A refusal where a parameter other than E ran to a bound of the search."""
    names = [name for name in fit.at_bound if name != "E"]
    if not names:
        return []
    message = f"{' and '.join(names)} ran to a bound of the search: these runs have no such law."
    advice = "Look for a recipe that suits some sizes only; else widen the sizes and budgets."
    return [Check("exponent-at-bound", "refuse", message, advice)]


def chance(fit: ParametricFit, N: Array, D: Array, loss: Array) -> float:
    """P value of the F test of `fit` against the law through runs alike in one of N and D."""
    aim = fit.aim
    less = fit_parametric(
        N, D, loss, space=aim.space, delta=aim.delta, cost=FlopsPerToken(), most_starts=FEW_STARTS
    )
    gain = less.objective - fit.objective
    if gain <= NOTHING * len(loss):
        return 1.0
    dof = max(len(loss) - 5, 1)
    return float(stats.f.sf(gain / 2 / max(fit.objective / dof, 1e-300), 2, dof))
