"""Candidates: the runs that could be made next, on a lattice of budgets and sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from flops_fit.laws.findings import Findings
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.frontier import log_flops_per_token
from flops_fit.laws.predict.intervals import predict_intervals

COLUMNS = ("compute_budget", "num_params", "num_tokens", "flops")
# The lattice: budgets and sizes apart, and how far sizes lie from the expected optimum, in decades.
BUDGETS_APART, SIZES_APART, REACH = 0.25, 0.125, 1.0


def ladder(budgets: Sequence[float]) -> list[float]:
    """The budgets, ascending, with others between them so that none lie far apart, in FLOPs.

    Those between follow from the budget below them, so that a larger last budget moves none.
    """
    found = sorted(budgets)
    for low, high in pairwise(sorted(budgets)):
        between = low * 10 ** (BUDGETS_APART * np.arange(1, 10 * math.log10(high / low) + 2))
        found += [float(f"{C:.3g}") for C in between if C < high / 10 ** (BUDGETS_APART / 2)]
    return sorted(found)


def expected_optima(findings: Findings, budgets: ArrayLike) -> Array:
    """Ln N at the optimum of each budget, as far as the runs tell, shape (k,)."""
    with np.errstate(all="ignore"):
        predicted = predict_intervals(findings, np.asarray(budgets, float))
    return np.log(predicted["num_params"].to_numpy(float))


def lattice(
    findings: Findings, budgets: Sequence[float], made: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Possible runs at these budgets: sizes around the expected optimum of each.

    All rows have the same sizes, `SIZES_APART` decades apart. Where a run has been made near one,
    there is no candidate.

    Args:
        findings: The laws fitted to the runs so far.
        budgets: Budgets in FLOPs.
        made: Runs made or under way; by default those fitted.
    """
    step = SIZES_APART * math.log(10)
    done = findings.fitted_runs if made is None else made
    parts = []
    for budget, optimum in zip(budgets, expected_optima(findings, budgets), strict=True):
        reach = REACH * math.log(10)
        x = step * np.arange(math.ceil((optimum - reach) / step), (optimum + reach) / step)
        near = np.abs(np.log(done["compute_budget"].to_numpy(float) / budget)) < 0.05
        sizes = np.log(done["num_params"].to_numpy(float)[near])
        x = x[(np.abs(x[:, None] - sizes) > step / 2).all(axis=1)]
        parts.append(_row(findings, budget, x))
    return pd.concat(parts, ignore_index=True)


def _row(findings: Findings, budget: float, x: Array) -> pd.DataFrame:
    N = np.array([float(f"{N:.3g}") for N in np.exp(x)])
    C = np.full(len(N), budget)
    values = (C, N, C / np.exp(log_flops_per_token(np.log(N), findings.cost)), C)
    return pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))
