"""The optimum of one budget once its row is trained: where it lies, and whether at an edge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from flops_fit.laws.fitting.isoflop import LEAST_RUNS, fit_isoflop
from flops_fit.records import Trial

Edge = Literal["low", "high", ""]


def row_of(trials: Iterable[Trial], losses: Mapping[str, float]) -> pd.DataFrame:
    """Budget, N and loss of the trials that have a finite loss, one row a size, ascending in N.

    If a size was trained at several learning rates, the least loss counts.
    """
    rows = [
        (trial.compute_budget, trial.num_params, losses[trial.trial_id])
        for trial in trials
        if np.isfinite(losses.get(trial.trial_id, np.nan))
    ]
    frame = pd.DataFrame(rows, columns=["compute_budget", "num_params", "loss"])
    return frame.groupby("num_params", as_index=False).min()


def edge_of(row: pd.DataFrame) -> Edge:
    """The edge of a row at which the loss is least; empty if inside the row, or undetermined.

    Args:
        row: As returned by `row_of`.
    """
    if len(row) < LEAST_RUNS:
        return ""
    optimum = _fit(row)
    if optimum["interior"]:
        return ""
    if np.isfinite(optimum["num_params"]):
        return "low" if optimum["num_params"] <= row["num_params"].min() else "high"
    # The curve has no minimum: look at the runs themselves.
    least = int(row["loss"].argmin())
    if least == 0:
        return "low"
    return "high" if least == len(row) - 1 else ""


def optima_in_words(
    trials: Iterable[Trial], losses: Mapping[str, float], size_param: str
) -> list[str]:
    """A sentence on each budget whose trials have all ended, the smallest budget first.

    Args:
        trials: The planned trials.
        losses: Held-out losses by trial id, of the trials that have ended; NaN without a loss.
        size_param: Name of the size parameter.
    """
    by_budget: dict[float, list[Trial]] = {}
    for trial in trials:
        by_budget.setdefault(trial.compute_budget, []).append(trial)
    return [
        _optimum_in_words(row_of(row, losses), row, size_param)
        for _, row in sorted(by_budget.items())
        if all(trial.trial_id in losses for trial in row)
    ]


def _optimum_in_words(row: pd.DataFrame, trials: Sequence[Trial], size_param: str) -> str:
    budget = trials[0].compute_budget
    if len(row) < LEAST_RUNS:
        return f"C={budget:.3g}: only {len(row)} sizes have a loss, too few for an optimum"
    optimum = _fit(row)
    if optimum["refused"]:
        return f"C={budget:.3g}: no optimum yet: {optimum['refused']}"
    N = float(optimum["num_params"])
    nearest = min(trials, key=lambda trial: abs(np.log(trial.num_params / N)))
    return (
        f"C={budget:.3g}: the loss is least near N = {N:.3g} ({size_param}={nearest.size} is "
        f"nearest), {optimum['loss']:.4f}"
    )


def _fit(row: pd.DataFrame) -> pd.Series:
    """The fitted IsoFLOP curve of one row."""
    return fit_isoflop(row["compute_budget"], row["num_params"], row["loss"]).iloc[0]
