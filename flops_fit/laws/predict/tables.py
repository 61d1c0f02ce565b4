"""Tables of predictions at many budgets: one to read, one to draw."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from flops_fit.errors import ArgumentError
from flops_fit.laws.findings import Findings
from flops_fit.laws.metrics.values import with_metrics
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.frontier import FRONTIER_COLUMNS
from flops_fit.laws.predict.best_recipe import RECIPE_COLUMNS
from flops_fit.laws.predict.intervals import predict_intervals
from flops_fit.laws.predict.reach import WITHIN, reach, require_narrow, require_reach
from flops_fit.laws.predict.size_lookup import size_to_build

# Of every table; metrics, and `RECIPE_COLUMNS` of a recipe law, are before the last two.
TABLE_COLUMNS = (*FRONTIER_COLUMNS, "size", "extrapolation")


def chinchilla_table(
    findings: Findings, compute_budgets: ArrayLike | None = None, *, anyway: bool = False
) -> pd.DataFrame:
    """The compute-optimal model for each budget.

    Args:
        findings: The fitted laws.
        compute_budgets: Budgets in FLOPs, shape (k,). Default: the budgets of the sweep, three more
            in steps of ten beyond the largest, and the target of a goal, as far as predictions are
            made (`reach`).
        anyway: Whether budgets far beyond the runs are wanted nevertheless.

    Returns:
        One row per budget with `TABLE_COLUMNS`, every metric that has a forecast, and if there is a
        recipe law the learning rate and the batch size; intervals at 95 %, 0 to inf where not
        known, and NaN for those of a metric.

    Raises:
        ArgumentError: A budget is not a positive number.
        FitError: No law was fitted, or none that reaches so far.
    """
    C = read_budgets(findings, compute_budgets)
    require_reach(findings, C, anyway=anyway)
    table = predict_intervals(findings, C)
    require_narrow(findings, table, anyway=anyway)
    sizes = [size_to_build(findings, N) for N in table["num_params"]]
    table["size"] = pd.Series(sizes, dtype=object)
    table["extrapolation"] = C / findings.largest_budget
    table, metrics = with_metrics(findings.metrics, findings.law, table)
    recipe = [column for column in RECIPE_COLUMNS if column in table]
    return table[[*FRONTIER_COLUMNS, *metrics, *recipe, *TABLE_COLUMNS[len(FRONTIER_COLUMNS) :]]]


def frontier_to_draw(findings: Findings, compute_budgets: ArrayLike) -> pd.DataFrame:
    """The frontier with its 95 % intervals, as a plot needs it: gaps instead of errors.

    Args:
        findings: The fitted laws.
        compute_budgets: Budgets in FLOPs, shape (k,).

    Returns:
        One row per budget, as `predict_intervals` returns; NaN beyond the largest budget of the
        sweep where a check refuses to go there, and for intervals that are not known.

    Raises:
        ArgumentError: A budget is not a positive number.
        FitError: No law was fitted.
    """
    C = read_budgets(findings, compute_budgets)
    frame = predict_intervals(findings, C)
    if findings.not_beyond:
        frame.loc[C > WITHIN * findings.largest_budget, frame.columns[1:]] = np.nan
    for name in ("num_params", "num_tokens", "loss"):
        unknown = np.isinf(frame[f"{name}_high"])
        frame.loc[unknown, [f"{name}_low", f"{name}_high"]] = np.nan
    return frame


def read_budgets(findings: Findings, compute_budgets: ArrayLike | None) -> Array:
    """The budgets that were asked for, or those of the sweep and beyond, shape (k,).

    Raises:
        ArgumentError: A budget is not a positive, finite number.
    """
    if compute_budgets is None:
        trained = findings.optima["compute_budget"].to_numpy(float)
        furthest = reach(findings)
        beyond = 10.0 ** np.arange(1, math.log10(furthest) + 1e-6)
        C = np.concatenate([trained, trained.max() * beyond])
        target = findings.target
        if target is None or np.isclose(C, target).any():
            return C
        return np.sort(np.append(C, target)) if target <= furthest * findings.largest_budget else C
    try:
        C = np.atleast_1d(np.asarray(compute_budgets, float)).ravel()
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"expected budgets in FLOPs, got {compute_budgets!r}") from error
    if not C.size or not (np.isfinite(C) & (C > 0)).all():
        raise ArgumentError(f"expected positive, finite FLOPs, got {compute_budgets!r}")
    return C
