"""Runs that are excluded before fitting because of their own columns, each with its reason.

The columns are read where the table has them: `best_loss` (the lowest held-out loss during the
run), `warmup_fraction` (the share of the run spent on warm-up), `epochs` or `unique_tokens`,
`lr_multiplier` and `role`. Training curves are read where they are given.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

# A run diverged if its final loss is this many times its lowest.
ROSE_BY = 1.2
# Largest share of a run that warm-up may take.
LONGEST_WARMUP = 0.25
# Most passes over the data in a fit without a repetition law. With the published R_D* = 15.39 a
# token seen for the 16th time is worth 1 / e of a new one (Muennighoff et al. 2023, section 3.1).
MOST_EPOCHS = 16.0

# The reasons, as they are stored in the column `excluded`.
DIVERGED = "diverged: the loss rose over 1.2 times its best"
WARMED = "over a quarter of the run was warm-up"
REPEATED = "saw its data over 16 times"
TUNED = "another learning rate did better"
BEATEN = "another setting did better at this N and D"
NOT_FINITE = "loss is not finite"
CHECKING = "tried to check the learning rate"
# Reasons by the role of runs that are not of the sweep proper.
OF_ROLE = {
    "pilot": "pilot: trained to find the recipe",
    "check": "check: trained to check the recipe",
}
# What a recipe sets, besides the sweep's own N and D.
RECIPE = ("learning_rate", "batch_size")


def exclude_bad(runs: pd.DataFrame, curves: pd.DataFrame | None = None) -> pd.DataFrame:
    """Exclude runs that diverged, warmed up too long or used a worse recipe.

    Args:
        runs: A clean table, as `table.read_runs` returns.
        curves: Points of training curves: `trial_id`, `num_tokens`, `loss`.

    Returns:
        A copy with the reasons in the column `excluded`.
    """
    runs = runs.copy()
    best = _lowest_loss(runs, curves)
    limit = ROSE_BY * np.where(best > 0, best, np.inf)
    _mark(runs, runs["loss"].to_numpy(float) > limit, DIVERGED)
    if "warmup_fraction" in runs:
        _mark(runs, _numbers(runs, "warmup_fraction") > LONGEST_WARMUP, WARMED)
    if "lr_multiplier" in runs:
        compared = _multipliers_to_compare(of_sweep(runs))
        _mark(runs, ~runs["lr_multiplier"].isin(compared).to_numpy(), CHECKING)
        _mark(runs, _beaten(runs, ["lr_multiplier"]), TUNED)
    if len(of_sweep(runs)) < len(runs):
        # Where a check found a recipe to be off, the trial was trained again.
        _mark(runs, _beaten(runs, [name for name in RECIPE if name in runs]), BEATEN)
    return runs


def exclude_roles(runs: pd.DataFrame) -> None:
    """Exclude the runs that only served to find or to check the recipe, in place."""
    for role, reason in OF_ROLE.items():
        _mark(runs, _has_role(runs, role), reason)


def of_sweep(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of the sweep proper: not those trained to find or to check the recipe."""
    return runs[~_has_role(runs, *OF_ROLE)]


def _has_role(runs: pd.DataFrame, *roles: str) -> np.ndarray:
    """Whether runs have one of these roles, shape (n,); a table without roles has none."""
    return runs["role"].isin(roles).to_numpy() if "role" in runs else np.zeros(len(runs), bool)


def exclude_repeated(runs: pd.DataFrame) -> pd.DataFrame:
    """Exclude runs with too many passes over their data for a law of new data; returns a copy."""
    runs = runs.copy()
    _mark(runs, epochs(runs) > MOST_EPOCHS, REPEATED)
    return runs


def unfit(runs: pd.DataFrame) -> pd.Series:
    """Reasons of excluded runs, without those that only tried another learning rate."""
    return runs.loc[~runs["excluded"].isin(["", TUNED, CHECKING, BEATEN]), "excluded"]


def epochs(runs: pd.DataFrame) -> np.ndarray:
    """Passes of each run over its data, shape (n,).

    They are read from `epochs`, or computed from `unique_tokens`; NaN where neither is known.
    """
    times = _numbers(runs, "epochs") if "epochs" in runs else np.full(len(runs), np.nan)
    if "unique_tokens" not in runs:
        return times
    computed = runs["num_tokens"].to_numpy(float) / _numbers(runs, "unique_tokens")
    return np.where(np.isnan(times), computed, times)


def _lowest_loss(runs: pd.DataFrame, curves: pd.DataFrame | None) -> np.ndarray:
    """The lowest held-out loss during each run, shape (n,); NaN where it is not known."""
    best = _numbers(runs, "best_loss") if "best_loss" in runs else np.full(len(runs), np.nan)
    if curves is None:
        return best
    lowest = curves.groupby("trial_id")["loss"].min()
    return np.fmin(best, runs["trial_id"].map(lowest).to_numpy(float))


def _multipliers_to_compare(runs: pd.DataFrame) -> list[float]:
    """Learning-rate multipliers tried at more than half of the grid points, or all if none is.

    The best of three learning rates at some grid points and the only one at others would bend the
    law: multipliers that were tried at a few points only are left out.
    """
    point = _grid_point(runs)
    num_points = runs.groupby(point).ngroups
    tried = runs.groupby([runs["lr_multiplier"], *point]).size().groupby(level=0).size()
    common = tried[tried > num_points / 2].index.tolist()
    return common or tried.index.tolist()


def _grid_point(runs: pd.DataFrame) -> list[pd.Series]:
    """Keys by which to group the runs of one budget and size."""
    return [runs["compute_budget"], runs["size"].map(str), runs["num_params"]]


def _beaten(runs: pd.DataFrame, settings: list[str]) -> np.ndarray:
    """Whether another setting gave a lower loss at the same budget and size, shape (n,)."""
    point = _grid_point(runs)
    lowest = runs["loss"].where(runs["excluded"] == "").groupby(point).transform("min")
    setting = runs.groupby(settings, sort=False, dropna=False).ngroup()
    several = setting.groupby(point).transform("nunique") > 1
    return (several & (runs["loss"] > lowest)).to_numpy(bool)


def _mark(runs: pd.DataFrame, bad: np.ndarray, reason: str) -> None:
    """Write the reason on the bad runs that have none yet."""
    runs.loc[bad & (runs["excluded"] == "").to_numpy(), "excluded"] = reason


def _numbers(runs: pd.DataFrame, column: str) -> np.ndarray:
    return pd.to_numeric(runs[column], errors="coerce").to_numpy(float)
