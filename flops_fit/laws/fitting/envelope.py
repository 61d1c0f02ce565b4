"""The lower envelope of training curves: the best run at each amount of compute.

Approach 1 of Hoffmann et al. (2022, section 3.1). It is valid for points at which a learning-rate
schedule has ended. In mid-schedule the loss is higher than the same compute could reach (their
appendix B), so such points are used only on request.
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
# Fewest points of an envelope through which power laws are fitted.
LEAST_POINTS = 4
# Fewest runs that must reach an amount of compute for its best one to count.
LEAST_RUNS = 3


def fit_envelope(
    curves: pd.DataFrame,
    *,
    cost: FlopsPerToken | None = None,
    num_points: int = 60,
    unfinished: bool = False,
) -> tuple[pd.DataFrame, PowerLaws]:
    """Find the envelope and fit power laws through it.

    Args:
        curves: One row per point of a training curve: `trial_id`, `num_params`, `num_tokens` seen
            by then, `loss`, and where known `ended`: whether the schedule had ended there.
        cost: FLOPs per token. Default C = 6 N D.
        num_points: Number of amounts of compute, evenly spaced in ln C.
        unfinished: Also use points in mid-schedule.

    Returns:
        The envelope with `ENVELOPE_COLUMNS`, one row for each amount of compute at which the best
        run is neither the smallest nor the largest; and the power laws N_opt, D_opt and L_opt.

    Raises:
        TableError: Columns are missing.
        FitError: No point is left, or the envelope has fewer than four points.
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
    """The points with positive, finite values at which the schedule had ended."""
    missing = [name for name in NEEDED if name not in curves.columns]
    if missing:
        raise TableError(f"training curves need columns {', '.join(NEEDED)}; lacking {missing}")
    good = np.isfinite(curves[["num_params", "num_tokens", "loss"]].to_numpy(float)).all(axis=1)
    good &= (curves["num_params"] > 0).to_numpy() & (curves["num_tokens"] > 0).to_numpy()
    if not unfinished:
        ended = curves["ended"] if "ended" in curves.columns else pd.Series(False, curves.index)
        good &= ended.fillna(False).to_numpy(bool)
    if not good.any():
        raise FitError("no point of a training curve where its schedule had ended")
    return curves[good].copy()


def _interpolate(points: pd.DataFrame, grid: Array) -> tuple[list[str], Array, Array]:
    """Id, N and loss on the grid of each of m runs, shapes (m,), (m,) and (m, k).

    A loss is infinite where the run was not trained that far.
    """
    names, sizes, losses = [], [], []
    for name, curve in points.groupby("trial_id", sort=False):
        curve = curve.sort_values("log_C")
        names.append(str(name))
        sizes.append(float(curve["num_params"].iloc[0]))
        losses.append(_on_grid(curve["log_C"].to_numpy(), curve["loss"].to_numpy(float), grid))
    return names, np.array(sizes), np.array(losses)


def _on_grid(log_C: Array, loss: Array, grid: Array) -> Array:
    """One curve on the grid, shape (k,). A single point counts at the nearest grid point."""
    if len(log_C) == 1:
        values = np.full(len(grid), np.inf)
        values[int(np.abs(grid - log_C[0]).argmin())] = loss[0]
        return values
    return np.interp(grid, log_C, loss, left=np.inf, right=np.inf)


def _lower(
    grid: Array, names: list[str], sizes: Array, losses: Array, cost: FlopsPerToken
) -> pd.DataFrame:
    """The best run at each grid point, where it is neither the smallest nor the largest there."""
    rows = []
    for j, log_C in enumerate(grid):
        here = np.isfinite(losses[:, j])
        if here.sum() < LEAST_RUNS:
            continue
        best = int(np.argmin(losses[:, j]))
        if sizes[here].min() < sizes[best] < sizes[here].max():
            y = log_C - float(log_flops_per_token(np.log(sizes[best]), cost))
            rows.append((np.exp(log_C), sizes[best], np.exp(y), losses[best, j], names[best]))
    return pd.DataFrame(rows, columns=list(ENVELOPE_COLUMNS))
