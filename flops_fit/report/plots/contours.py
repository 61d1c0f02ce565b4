"""Plot of the law's loss in the (N, D) plane, with the compute-optimal path and the runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from flops_fit.report.plots import style
from flops_fit.report.plots.style import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from flops_fit.laws.model.parametric_law import ParametricLaw

GRID = 80  # points of the grid per axis
LEVELS = 12  # contour lines
MARGIN = 1.5  # factor by which the grid extends beyond the runs and the path


def plot_contours(
    law: ParametricLaw,
    runs: pd.DataFrame,
    path: pd.DataFrame,
    *,
    data_unit: str = "tokens",
    largest_budget: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Contours of the law's loss over N and D (without repeated data), the optimal path, the runs.

    Args:
        law: `Result.law`.
        runs: `Result.runs`.
        path: The frontier, `Result.band(budgets)`; dashed beyond `largest_budget`.
        data_unit: What D counts.
        largest_budget: The largest budget of the sweep, FLOPs.
        ax: Axes to draw on; new ones if None.
    """
    ax = ax or style.new_axes()
    known = np.isfinite(runs[["num_params", "num_tokens", "loss"]].to_numpy(float)).all(axis=1)
    finished = runs[known]
    N, D = (_span(finished[name], path[name]) for name in ("num_params", "num_tokens"))
    loss = law.loss(N[None, :], D[:, None])
    # Levels evenly spaced in ln (L - E); evenly spaced in L they would crowd at small models.
    above = np.geomspace(loss.min() - law.E, loss.max() - law.E, LEVELS + 2)[1:-1]
    drawn = ax.contour(N, D, loss, levels=law.E + above, cmap="cividis", linewidths=1)
    ax.clabel(drawn, fontsize="x-small", fmt="%.3g")
    within = path["compute_budget"] <= (largest_budget or np.inf) * (1 + 1e-9)
    ax.plot(
        path["num_params"], path["num_tokens"], "--", color=COLOURS[1], linewidth=1.5,
        label="compute-optimal, beyond the sweep",
    )  # fmt: skip
    ax.plot(
        path["num_params"][within], path["num_tokens"][within], color=COLOURS[1], linewidth=2.5,
        label="compute-optimal",
    )  # fmt: skip
    style.points(ax, finished, "num_params", "num_tokens", color=COLOURS[0], marker="o")
    handles = [
        style.handle("runs", color=COLOURS[0], marker="o"),
        *ax.get_legend_handles_labels()[0][::-1],
    ]
    if (finished["excluded"] != "").any():
        handles.insert(1, style.left_out())
    ax.set(xscale="log", yscale="log", xlabel="parameters N", ylabel=f"data D, {data_unit}")
    ax.set(xlim=(N[0], N[-1]), ylim=(D[0], D[-1]))
    for axis in (ax.xaxis, ax.yaxis):
        style.label_counts(axis)
    style.legend_above(ax, handles)
    return ax


def _span(runs: pd.Series, path: pd.Series) -> np.ndarray:
    """Grid points that cover the runs and the path, evenly spaced in logarithms."""
    values = np.concatenate([runs.to_numpy(float), path.dropna().to_numpy(float)])
    return np.geomspace(values.min() / MARGIN, values.max() * MARGIN, GRID)
