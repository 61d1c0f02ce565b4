"""The optimum of one budget once its row is trained: where it lies, and whether at an edge."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import pandas as pd

from flops_fit.display.number_text import count, flops, loss
from flops_fit.laws.check import counted
from flops_fit.laws.fitting.isoflop import LEAST_RUNS, fit_isoflop
from flops_fit.laws.pipeline.counted_runs import which_count
from flops_fit.laws.runs.exclusions import NOT_FINITE, unfit
from flops_fit.records import TRIAL_COLUMNS, Trial, to_frame

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
    optimum = _fit(row).iloc[0]
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
    trials: Iterable[Trial],
    losses: Mapping[str, float],
    size_param: str,
    *,
    num_examples: int | None = None,
    budget: float | None = None,
) -> list[str]:
    """A sentence on each budget whose trials have all ended, the smallest budget first.

    Curves are judged by the noise of all rows that have ended, and only by the runs that count, as
    the result judges them.

    Args:
        trials: The planned trials.
        losses: Held-out losses by trial id, of the trials that have ended; NaN without a loss.
        size_param: Name of the size parameter.
        num_examples: Examples in the training data, by which epochs are counted; None if unknown.
        budget: The only budget to speak of; all if None.
    """
    by_budget: dict[float, list[Trial]] = {}
    for trial in trials:
        by_budget.setdefault(trial.compute_budget, []).append(trial)
    ended = {
        C: row
        for C, row in sorted(by_budget.items())
        if all(trial.trial_id in losses for trial in row)
    }
    if not ended or not (budget is None or budget in ended):
        return []
    runs = which_count(_as_runs([t for row in ended.values() for t in row], losses, num_examples))
    optima = _fit(runs[runs["excluded"] == ""])
    so_far = ""
    if len(ended) < len(by_budget):
        so_far = f" so far, by the noise of {len(ended)} of {len(by_budget)} budgets"
    return [
        _optimum_in_words(runs[runs["compute_budget"] == C], optima, ended[C], size_param, so_far)
        for C in ended
        if budget is None or C == budget
    ]


def _as_runs(
    trials: Sequence[Trial], losses: Mapping[str, float], num_examples: int | None
) -> pd.DataFrame:
    """Trials that have ended as the table of runs that the result is fitted to."""
    runs = to_frame(trials, TRIAL_COLUMNS)
    runs["loss"] = [losses[trial.trial_id] for trial in trials]
    runs["excluded"] = np.where(np.isfinite(runs["loss"]), "", NOT_FINITE)
    runs["epochs"] = runs["steps"] * runs["batch_size"] / (num_examples or math.nan)
    return runs


def _optimum_in_words(
    row: pd.DataFrame,
    optima: pd.DataFrame,
    trials: Sequence[Trial],
    size_param: str,
    so_far: str,
) -> str:
    C = trials[0].compute_budget
    left_out = _left_out(row)
    num_sizes = row.loc[row["excluded"] == "", "num_params"].nunique()
    if num_sizes < LEAST_RUNS:
        sizes = f"only {counted(num_sizes, 'size')} with a loss{' that counts' if left_out else ''}"
        return f"C={flops(C)}: {sizes}, too few for an optimum{left_out}"
    # Budgets of almost the same FLOPs share a row.
    optimum = optima.iloc[int(np.abs(np.log(optima["compute_budget"] / C)).argmin())]
    if optimum["refused"]:
        return f"C={flops(C)}: no optimum{so_far}: {optimum['refused']}{left_out}"
    N = float(optimum["num_params"])
    nearest = min(trials, key=lambda trial: abs(np.log(trial.num_params / N)))
    return (
        f"C={flops(C)}: the loss is least near N = {count(N)} ({size_param}={nearest.size} is "
        f"nearest), {loss(optimum['loss'])}{left_out}"
    )


def _left_out(row: pd.DataFrame) -> str:
    """How many runs of a row do not count and why; empty if all with a loss do."""
    reasons = unfit(row[row["excluded"] != NOT_FINITE])
    if reasons.empty:
        return ""
    why = "; ".join(reasons.unique())
    return f"; {len(reasons)} of {counted(len(row), 'run')} left out ({why})"


def _fit(rows: pd.DataFrame) -> pd.DataFrame:
    """The fitted IsoFLOP curve of each row."""
    return fit_isoflop(rows["compute_budget"], rows["num_params"], rows["loss"])
