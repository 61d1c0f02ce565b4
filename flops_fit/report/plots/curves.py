"""Plot of training curves against compute, and their lower envelope."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from flops_fit.errors import FitError
from flops_fit.report.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MANY_POINTS = 4000  # more points than this are drawn as a picture inside an SVG
MOST_SHOWN = 60  # points per curve
GRID = 200  # points of the envelope


def plot_curves(curves: pd.DataFrame, runs: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Training loss against the FLOPs spent, coloured by N, with final held-out losses as points.

    Each curve is smoothed over a twentieth of its run. The black line is the lower envelope. In the
    middle of a schedule it lies above the loss that a run with a shorter schedule reaches for the
    same compute (Hoffmann et al. 2022, appendix B).

    Args:
        curves: Points of training curves: `trial_id`, `num_tokens` so far, `loss`.
        runs: `Result.runs`, with the `trial_id` of the curves.
        ax: Axes to draw on; new ones if None.

    Raises:
        FitError: No curve has two points or more.
    """
    from matplotlib.collections import LineCollection

    known = runs[runs["trial_id"] != ""].drop_duplicates("trial_id").set_index("trial_id")
    drawn = _curves(curves, known)
    if not drawn:
        raise FitError("No training curve has two points or more.")
    ax = ax or style.new_axes()
    sizes = np.array([N for _, N, _ in drawn])
    colours = style.colour_scale(ax, sizes, "parameters N", counts=True)
    # A curve may have many thousand points, more than a plot can show.
    thin = [_thinned(points) for *_, points in drawn]
    lines = LineCollection(
        thin, colors=colours, linewidths=0.8, rasterized=sum(map(len, thin)) > MANY_POINTS
    )
    ax.add_collection(lines)
    C, lowest = lower_envelope([points for *_, points in drawn])
    ax.plot(C, lowest, color="black", linewidth=1.8, label="lower envelope of the training curves")
    ends = known.loc[[name for name, *_ in drawn]].reset_index()
    ends = ends[np.isfinite(ends["loss"].astype(float))]
    style.points(ax, ends, "flops", "loss", color="black", marker="o")
    handles = [ax.lines[0], style.handle("held-out loss at the end", color="black", marker="o")]
    if (ends["excluded"] != "").any():
        handles.append(style.excluded_handle())
    ax.set(xscale="log", xlabel="compute spent, FLOPs", ylabel="loss (lines: training)")
    # The axis starts near the losses after the first, steep tenth of the runs.
    top = float(np.median([_early(points) for *_, points in drawn]))
    held_out = ends["loss"].to_numpy(float)
    held_out = held_out[style.within(held_out)] if len(held_out) else held_out
    style.frame(ax, np.array([lowest[-1], top, *held_out]), logarithmic=False)
    handles += style.arrows(ax, ends, "flops", "loss")
    ax.set_xlim(C[lowest <= ax.get_ylim()[1]].min(), C[-1] * 1.2)
    style.legend_above(ax, handles, columns=1)
    return ax


def _curves(curves: pd.DataFrame, known: pd.DataFrame) -> list[tuple[str, float, np.ndarray]]:
    """For each run: its id, N, and points (FLOPs, loss), shape (k, 2)."""
    drawn = []
    finite = curves[np.isfinite(curves["loss"]) & (curves["num_tokens"] > 0)]
    for name, curve in finite.groupby("trial_id", sort=False):
        if name not in known.index or len(curve) < 2:
            continue
        run = known.loc[name]
        curve = curve.sort_values("num_tokens")
        flops_per_token = float(run["flops"] / run["num_tokens"])
        if not np.isfinite(flops_per_token):  # an unfinished run has no FLOPs yet
            flops_per_token = float(run["compute_budget"] / run["num_tokens"])
        C = curve["num_tokens"] * flops_per_token
        points = np.stack([C, _smooth(curve["loss"])], axis=1).astype(float)
        drawn.append((str(name), float(run["num_params"]), points))
    return drawn


def _smooth(loss: pd.Series) -> pd.Series:
    """The mean over a twentieth of the run around each point, because batches differ."""
    window = max(1, len(loss) // 20) | 1  # odd, so that it is centred
    return loss.astype(float).rolling(window, center=True, min_periods=1).mean()


def _thinned(points: np.ndarray) -> np.ndarray:
    """At most `MOST_SHOWN` points, evenly spaced in the logarithm of compute, with both ends."""
    C = points[:, 0]
    indices = np.searchsorted(C, np.geomspace(C[0], C[-1], MOST_SHOWN) * (1 - 1e-9))
    return points[np.unique(np.minimum(indices, len(C) - 1))]


def _early(points: np.ndarray) -> float:
    """The loss after a tenth of the compute. The steep drop before it would flatten the rest."""
    return float(np.interp(points[-1, 0] / 10, points[:, 0], points[:, 1]))


def lower_envelope(curves: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The lowest loss that any curve has reached by each amount of compute.

    Args:
        curves: Points (FLOPs, loss) of each curve, shape (k, 2).

    Returns:
        FLOPs and loss, shape (200,) each.
    """
    low, high = min(c[0, 0] for c in curves), max(c[-1, 0] for c in curves)
    grid = np.geomspace(low, high, GRID)
    losses = [np.interp(np.log(grid), np.log(c[:, 0]), c[:, 1], np.inf, np.inf) for c in curves]
    return grid, np.minimum.accumulate(np.min(losses, axis=0))
