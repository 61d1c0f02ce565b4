"""The lower envelope of training curves: at each amount of compute, the run that is best by then.

Approach 1 of Hoffmann et al. (2022, section 3.1). It holds for points where a schedule has ended:
in mid-schedule the loss is above what the same compute could reach (their appendix B). Such points
are used only when asked.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from flops_fit.errors import FitError, TableError
from flops_fit.laws.fitting.power import fit_power, fit_power_with_floor
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.cost import FlopsPerToken
from flops_fit.laws.model.frontier import log_flops_per_token
from flops_fit.laws.model.power_law import PowerLaws

ENVELOPE_COLUMNS = ("compute_budget", "num_params", "num_tokens", "loss", "trial_id")
NEEDED = ("trial_id", "num_params", "num_tokens", "loss")
LEAST_POINTS = 4


def fit_envelope(
    curves: pd.DataFrame,
    *,
    cost: FlopsPerToken | None = None,
    num_points: int = 60,
    unfinished: bool = False,
) -> tuple[pd.DataFrame, PowerLaws]:
    """The envelope and the power laws through it.

    Args:
        curves: A row a point of a training curve: `trial_id`, `num_params`, `num_tokens` seen by
            then, `loss`, and `ended` where known: whether the schedule had ended there.
        cost: FLOPs per token. Default C = 6 N D.
        num_points: Amounts of compute looked at, evenly in ln C.
        unfinished: Use points in mid-schedule too.

    Returns:
        The envelope (`ENVELOPE_COLUMNS`, one row for each amount of compute where the best run is
        neither the smallest nor the largest there), and N_opt, D_opt, L_opt through it.

    Raises:
        TableError: Columns are missing.
        FitError: No point is left, or the envelope has fewer than four.
    """
    points = _usable(curves, unfinished)
    cost = cost or FlopsPerToken()
    points["log_C"] = np.log(points["num_tokens"]) + log_flops_per_token(
        np.log(points["num_params"].to_numpy(float)), cost
    )
    grid = np.linspace(points["log_C"].min(), points["log_C"].max(), num_points)
    names, sizes, losses = _interpolate(points, grid)
    envelope = _lower(grid, names, sizes, losses, cost)
    if len(envelope) < LEAST_POINTS:
        raise FitError(f"the envelope has {len(envelope)} points, {LEAST_POINTS} are needed")
    C = envelope["compute_budget"].to_numpy(float)
    laws = PowerLaws(
        fit_power(C, envelope["num_params"]),
        fit_power(C, envelope["num_tokens"]),
        fit_power_with_floor(C, envelope["loss"]),
    )
    return envelope, laws


def _usable(curves: pd.DataFrame, unfinished: bool) -> pd.DataFrame:
    absent = [name for name in NEEDED if name not in curves.columns]
    if absent:
        raise TableError(f"training curves need columns {', '.join(NEEDED)}; lacking {absent}")
    good = np.isfinite(curves[["num_params", "num_tokens", "loss"]].to_numpy(float)).all(axis=1)
    good &= (curves["num_params"] > 0).to_numpy() & (curves["num_tokens"] > 0).to_numpy()
    if not unfinished:
        ended = curves["ended"] if "ended" in curves.columns else pd.Series(False, curves.index)
        good &= ended.fillna(False).to_numpy(bool)
    if not good.any():
        raise FitError("no point of a training curve where its schedule had ended")
    return curves[good].copy()


def _interpolate(points: pd.DataFrame, grid: Array) -> tuple[list[str], Array, Array]:
    """Loss of every run at every amount of compute, infinite where it was not trained that far."""
    names, sizes, losses = [], [], []
    for name, own in points.groupby("trial_id", sort=False):
        own = own.sort_values("log_C")
        names.append(str(name))
        sizes.append(float(own["num_params"].iloc[0]))
        losses.append(_curve(own["log_C"].to_numpy(), own["loss"].to_numpy(float), grid))
    return names, np.array(sizes), np.array(losses)


def _curve(log_C: Array, loss: Array, grid: Array) -> Array:
    """One curve on the grid. A lone point counts at the nearest amount of compute."""
    if len(log_C) == 1:
        out = np.full(len(grid), np.inf)
        out[int(np.abs(grid - log_C[0]).argmin())] = loss[0]
        return out
    return np.interp(grid, log_C, loss, left=np.inf, right=np.inf)


def _lower(
    grid: Array, names: list[str], sizes: Array, losses: Array, cost: FlopsPerToken
) -> pd.DataFrame:
    rows = []
    for j, log_C in enumerate(grid):
        here = np.isfinite(losses[:, j])
        if here.sum() < 3:
            continue
        best = int(np.argmin(losses[:, j]))
        if sizes[here].min() < sizes[best] < sizes[here].max():
            y = log_C - float(log_flops_per_token(np.log(sizes[best]), cost))
            rows.append((np.exp(log_C), sizes[best], np.exp(y), losses[best, j], names[best]))
    return pd.DataFrame(rows, columns=list(ENVELOPE_COLUMNS))
