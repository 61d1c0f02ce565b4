"""Plot of IsoFLOP curves: held-out loss against N, one curve per budget."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from flops_fit.display.number_text import flops
from flops_fit.laws.fitting.isoflop import curve
from flops_fit.report.plots import style
from flops_fit.report.plots.style import MARKERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from matplotlib.typing import ColorType


def plot_isoflops(
    runs: pd.DataFrame,
    optima: pd.DataFrame,
    *,
    predicted: pd.DataFrame | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Held-out loss against N, one curve per budget, with the fitted minima and their intervals.

    The curves are those of the rows alone, not of the law. The prediction is a cross of its 95 %
    intervals.

    Losses far outside the others do not set the limits of the axis; arrows at the frame mark them.

    Args:
        runs: `Result.runs`.
        optima: `Result.optima`.
        predicted: `Result.band` of the budgets whose prediction is drawn; None for none.
        ax: Axes to draw on; new ones if None.
    """
    ax = ax or style.new_axes()
    finished = runs[np.isfinite(runs["loss"])]
    losses = finished["loss"].to_numpy(float)
    seen = finished[style.within(losses)]
    # The runs of each budget that has some in the frame; the others are arrows alone.
    shown = [
        (row, budget)
        for row, budget in zip(*style.by_budget(finished), strict=True)
        if row.index.isin(seen.index).any()
    ]
    rows, budgets = [row for row, _ in shown], [budget for _, budget in shown]
    colours = style.colours(ax, budgets)
    handles = []  # a legend entry per budget: marker and line style
    for index, (row, budget, colour) in enumerate(zip(rows, budgets, colours, strict=True)):
        marker = MARKERS[index % len(MARKERS)]
        style.points(ax, row, "num_params", "loss", color=colour, marker=marker)
        dashes = _isoflop_curve(ax, _nearest_row(optima, budget), row, colour)
        label = flops(budget, digits=2)
        handles.append(style.handle(label, color=colour, marker=marker, linestyle=dashes))
    if (seen["excluded"] != "").any():
        handles.append(style.excluded_handle())
    if predicted is not None:
        handles.append(_predictions(ax, predicted))
    ax.set(xscale="log", xlabel="parameters N", ylabel="held-out loss")
    if len(seen) < len(finished):
        style.frame(ax, seen["loss"].to_numpy(float), logarithmic=False)
        handles += style.arrows(ax, finished, "num_params", "loss")
    style.label_counts(ax.xaxis)
    style.legend_of_budgets(ax, handles, len(rows), above=True)
    return ax


def _nearest_row(optima: pd.DataFrame, budget: float) -> pd.Series | None:
    """The optimum of this budget; budgets within a tenth in ln C are the same."""
    if optima.empty:
        return None
    distance = np.abs(np.log(optima["compute_budget"].astype(float)) - np.log(budget))
    return optima.iloc[int(distance.to_numpy().argmin())] if distance.min() < 0.1 else None


def _isoflop_curve(
    ax: Axes, optimum: pd.Series | None, row: pd.DataFrame, colour: ColorType
) -> str:
    """Draw the curve, dotted if its minimum was refused; returns the line style, empty if none."""
    if optimum is None or not np.isfinite(optimum["c0"]):
        return ""
    # Only where there are runs: a fitted curve means nothing beyond them.
    N = np.geomspace(row["num_params"].min(), row["num_params"].max(), 200)
    dashes = ":" if optimum["refused"] else "-"
    ax.plot(N, curve(optimum, N), dashes, color=colour, linewidth=1.2)
    if optimum["refused"]:
        return dashes
    low, high = optimum["num_params_low"], optimum["num_params_high"]
    ax.hlines(optimum["loss"], low, high, color=colour, linewidth=1.0)
    ax.plot(
        optimum["num_params"], optimum["loss"], "*", color=colour, markersize=13,
        markeredgecolor="white",
    )  # fmt: skip
    return dashes


def _predictions(ax: Axes, predicted: pd.DataFrame) -> Line2D:
    """Draw the predictions; returns their entry of the legend."""
    for row in predicted.to_dict("records"):
        N, loss = row["num_params"], row["loss"]
        ax.hlines(loss, row["num_params_low"], row["num_params_high"], color="black", linewidth=0.9)
        ax.vlines(N, row["loss_low"], row["loss_high"], color="black", linewidth=0.9)
        ax.plot(N, loss, "x", color="black", markersize=5, zorder=4)
    return style.handle("prediction", color="black", marker="x")
