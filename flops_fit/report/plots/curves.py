"""Training curves against compute, and their lower envelope."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from flops_fit.errors import FitError
from flops_fit.report.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MANY_POINTS = 4000
MOST_SHOWN = 60
GRID = 200


def plot_curves(curves: pd.DataFrame, runs: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Loss on the way against FLOPs spent by then, coloured by N; held-out losses as points.

    Each curve is smoothed over a twentieth of its run.
    Below them their lower envelope: in mid-schedule it lies above what so much compute can reach
    (Hoffmann et al. 2022, appendix B).

    Args:
        curves: Points of training curves: `trial_id`, `num_tokens` by then, `loss`.
        runs: `Result.runs`, whose `trial_id` the curves bear.
        ax: Axes to draw on; new ones if None.

    Raises:
        FitError: No curve of these runs has two points.
    """
    from matplotlib.collections import LineCollection

    known = runs[runs["trial_id"] != ""].drop_duplicates("trial_id").set_index("trial_id")
    drawn = _curves(curves, known)
    if not drawn:
        raise FitError("No training curve has two points or more.")
    ax = ax or style.new_axes()
    sizes = np.array([N for _, N, _ in drawn])
    colours = style.colour_scale(ax, sizes, "parameters N", counts=True)
    thin = [_thinned(points) for *_, points in drawn]
    lines = LineCollection(
        thin, colors=colours, linewidths=0.8, rasterized=sum(map(len, thin)) > MANY_POINTS
    )
    ax.add_collection(lines)
    C, lowest = lower_envelope([points for *_, points in drawn])
    ax.plot(C, lowest, color="black", linewidth=1.8, label="lower envelope, in mid-schedule")
    ends = known.loc[[name for name, *_ in drawn]].reset_index()
    ends = ends[np.isfinite(ends["loss"].astype(float))]
    style.points(ax, ends, "flops", "loss", color="black", marker="o")
    handles = [ax.lines[0], style.handle("held-out loss at the end", color="black", marker="o")]
    if (ends["excluded"] != "").any():
        handles.append(style.left_out())
    ax.set(xscale="log", xlabel="compute spent, FLOPs", ylabel="training loss")
    top = float(np.median([_early(points) for *_, points in drawn]))
    held_out = ends["loss"].to_numpy(float)
    held_out = held_out[style.within(held_out)] if len(held_out) else held_out
    style.frame(ax, np.array([lowest[-1], top, *held_out]), logarithmic=False)
    handles += style.arrows(ax, ends, "flops", "loss")
    ax.set_xlim(C[lowest <= ax.get_ylim()[1]].min(), C[-1] * 1.2)
    style.legend_above(ax, handles, columns=1)
    return ax


def _curves(curves: pd.DataFrame, known: pd.DataFrame) -> list[tuple[str, float, np.ndarray]]:
    """Of each run: its id, N, and (FLOPs, loss) a point, shape (k, 2)."""
    drawn = []
    good = curves[np.isfinite(curves["loss"]) & (curves["num_tokens"] > 0)]
    for name, own in good.groupby("trial_id", sort=False):
        if name not in known.index or len(own) < 2:
            continue
        run = known.loc[name]
        own = own.sort_values("num_tokens")
        price = float(run["flops"] / run["num_tokens"])
        if not np.isfinite(price):
            price = float(run["compute_budget"] / run["num_tokens"])
        points = np.stack([own["num_tokens"] * price, _smooth(own["loss"])], axis=1).astype(float)
        drawn.append((str(name), float(run["num_params"]), points))
    return drawn


def _smooth(loss: pd.Series) -> pd.Series:
    """The mean over a twentieth of the run around each point: batches differ."""
    window = max(1, len(loss) // 20) | 1
    return loss.astype(float).rolling(window, center=True, min_periods=1).mean()


def _thinned(points: np.ndarray) -> np.ndarray:
    """At most so many points as a curve can show, even on the axis of compute, both ends kept."""
    C = points[:, 0]
    even = np.searchsorted(C, np.geomspace(C[0], C[-1], MOST_SHOWN) * (1 - 1e-9))
    return points[np.unique(np.minimum(even, len(C) - 1))]


def _early(points: np.ndarray) -> float:
    """The loss once a tenth of the compute is spent: the drop before it would flatten the rest."""
    return float(np.interp(points[-1, 0] / 10, points[:, 0], points[:, 1]))


def lower_envelope(curves: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The lowest loss of all curves at each amount of compute, and none below it before.

    Args:
        curves: (FLOPs, loss) a point, shape (k, 2) each.

    Returns:
        FLOPs and loss, shape (200,) each.
    """
    low, high = min(c[0, 0] for c in curves), max(c[-1, 0] for c in curves)
    grid = np.geomspace(low, high, GRID)
    at = [np.interp(np.log(grid), np.log(c[:, 0]), c[:, 1], np.inf, np.inf) for c in curves]
    return grid, np.minimum.accumulate(np.min(at, axis=0))
