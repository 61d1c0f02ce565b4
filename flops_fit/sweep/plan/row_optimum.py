"""The optimum of one budget, as soon as its row is trained: where it lies; whether at an edge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from flops_fit.laws.fitting.isoflop import LEAST_RUNS, fit_isoflop
from flops_fit.records import Trial

Edge = Literal["low", "high", ""]


def row_of(trials: Iterable[Trial], losses: Mapping[str, float]) -> pd.DataFrame:
    """N and loss of the trials that have one, a row a size from the smallest up.

    Of several learning rates the best counts.
    """
    rows = [
        (trial.compute_budget, trial.num_params, losses[trial.trial_id])
        for trial in trials
        if np.isfinite(losses.get(trial.trial_id, np.nan))
    ]
    frame = pd.DataFrame(rows, columns=["compute_budget", "num_params", "loss"])
    return frame.groupby("num_params", as_index=False).min()


def edge_of(row: pd.DataFrame) -> Edge:
    """At which edge of its row the loss is least; empty where that is inside, or not to be told.

    Args:
        row: Of `row_of`.
    """
    if len(row) < LEAST_RUNS:
        return ""
    optimum = fit_isoflop(row["compute_budget"], row["num_params"], row["loss"]).iloc[0]
    if optimum["interior"]:
        return ""
    if np.isfinite(optimum["num_params"]):
        return "low" if optimum["num_params"] <= row["num_params"].min() else "high"
    least = int(row["loss"].argmin())
    if least == 0:
        return "low"
    return "high" if least == len(row) - 1 else ""


def optima_in_words(
    trials: Iterable[Trial], losses: Mapping[str, float], size_param: str
) -> list[str]:
    """What is said of each budget whose trials have all ended, the smallest first.

    Args:
        trials: The planned trials.
        losses: Held-out loss of those that ended, by id; NaN where there is none.
        size_param: Name of the size parameter.
    """
    rows: dict[float, list[Trial]] = {}
    for trial in trials:
        rows.setdefault(trial.compute_budget, []).append(trial)
    return [
        _said_of(row_of(row, losses), row, size_param)
        for _, row in sorted(rows.items())
        if all(trial.trial_id in losses for trial in row)
    ]


def _said_of(row: pd.DataFrame, trials: Sequence[Trial], size_param: str) -> str:
    """The optimum of a finished row in words."""
    budget = trials[0].compute_budget
    if len(row) < LEAST_RUNS:
        return f"C={budget:.3g}: only {len(row)} sizes have a loss, too few for an optimum"
    optimum = fit_isoflop(row["compute_budget"], row["num_params"], row["loss"]).iloc[0]
    if optimum["refused"]:
        return f"C={budget:.3g}: no optimum yet: {optimum['refused']}"
    N = float(optimum["num_params"])
    nearest = min(trials, key=lambda trial: abs(np.log(trial.num_params / N)))
    return (
        f"C={budget:.3g}: the loss is least near N = {N:.3g} ({size_param}={nearest.size} is "
        f"nearest), {optimum['loss']:.4f}"
    )
