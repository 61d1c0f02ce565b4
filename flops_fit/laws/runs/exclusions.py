"""Runs that tell against themselves, whatever the fit: left out before it, each with its reason.

Read from the columns of the table where they are there: `best_loss` (least held-out loss on the
way), `warmup_fraction` (share of the run spent warming up), `epochs` or `unique_tokens`,
`lr_multiplier`; and from training curves, where those are given.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

ROSE_BY = 1.2
LONGEST_WARMUP = 0.25
MOST_EPOCHS = 16.0
DIVERGED = "diverged: the loss rose over 1.2 times its best"
WARMED = "over a quarter of the run was warm-up"
REPEATED = "saw its data over 16 times"
TUNED = "another learning rate did better"
CHECKING = "tried to check the learning rate"


def exclude_bad(runs: pd.DataFrame, curves: pd.DataFrame | None = None) -> pd.DataFrame:
    """The table with reasons written on runs that tell against themselves.

    Args:
        runs: A clean table, as `table.read_runs` gives.
        curves: Points of training curves: `trial_id`, `num_tokens`, `loss`.
    """
    runs = runs.copy()
    best = _best_on_the_way(runs, curves)
    _mark(runs, runs["loss"].to_numpy(float) > ROSE_BY * np.where(best > 0, best, np.inf), DIVERGED)
    if "warmup_fraction" in runs:
        _mark(runs, _numbers(runs, "warmup_fraction") > LONGEST_WARMUP, WARMED)
    if "lr_multiplier" in runs:
        everywhere = _tried_everywhere(runs)
        _mark(runs, ~runs["lr_multiplier"].isin(everywhere).to_numpy(), CHECKING)
        _mark(runs, _beaten(runs), TUNED)
    return runs


def exclude_repeated(runs: pd.DataFrame) -> pd.DataFrame:
    """The table with a reason on runs that saw their data too often for a law of new data."""
    runs = runs.copy()
    _mark(runs, epochs(runs) > MOST_EPOCHS, REPEATED)
    return runs


def epochs(runs: pd.DataFrame) -> np.ndarray:
    """Times each run saw its data, from `epochs` or `unique_tokens`; NaN where neither is known."""
    times = _numbers(runs, "epochs") if "epochs" in runs else np.full(len(runs), np.nan)
    if "unique_tokens" not in runs:
        return times
    seen = runs["num_tokens"].to_numpy(float) / _numbers(runs, "unique_tokens")
    return np.where(np.isnan(times), seen, times)


def _best_on_the_way(runs: pd.DataFrame, curves: pd.DataFrame | None) -> np.ndarray:
    best = _numbers(runs, "best_loss") if "best_loss" in runs else np.full(len(runs), np.nan)
    if curves is None:
        return best
    lowest = curves.groupby("trial_id")["loss"].min()
    return np.fmin(best, runs["trial_id"].map(lowest).to_numpy(float))


def _tried_everywhere(runs: pd.DataFrame) -> list[float]:
    """Multipliers tried at more than half the places: best-of-three here and not there would bend.

    Where none is, all stand.
    """
    place = _place(runs)
    places = runs.groupby(place).ngroups
    tried = runs.groupby([runs["lr_multiplier"], *place]).size().groupby(level=0).size()
    common = tried[tried > places / 2].index.tolist()
    return common or tried.index.tolist()


def _place(runs: pd.DataFrame) -> list[pd.Series]:
    return [runs["compute_budget"], runs["size"].map(str), runs["num_params"]]


def _beaten(runs: pd.DataFrame) -> np.ndarray:
    """Runs of a budget and size for which another multiplier gave a lower loss."""
    standing = runs["excluded"] == ""
    place = _place(runs)
    lowest = runs["loss"].where(standing).groupby(place).transform("min")
    several = runs["lr_multiplier"].groupby(place).transform("nunique") > 1
    return (several & (runs["loss"] > lowest)).to_numpy(bool)


def _mark(runs: pd.DataFrame, bad: np.ndarray, reason: str) -> None:
    runs.loc[bad & (runs["excluded"] == "").to_numpy(), "excluded"] = reason


def _numbers(runs: pd.DataFrame, column: str) -> np.ndarray:
    return pd.to_numeric(runs[column], errors="coerce").to_numpy(float)
