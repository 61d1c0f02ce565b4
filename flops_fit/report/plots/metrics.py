"""Plots of a metric: its forecast against compute, and its runs against their loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from flops_fit.errors import FitError
from flops_fit.laws.metrics.law import MetricForecast, MetricLaw
from flops_fit.report.plots import style
from flops_fit.report.plots.style import COLOURS, MARKERS, SHADE

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_metric(
    law: MetricLaw,
    C: np.ndarray,
    found: MetricForecast,
    runs: pd.DataFrame,
    *,
    largest_budget: float,
    ax: Axes | None = None,
) -> Axes:
    """A metric at the optimum against C, with its 95 % band, and the runs.

    Args:
        law: Its law.
        C: Budgets in FLOPs, shape (k,).
        found: Its forecast at each.
        runs: The runs; those of each budget lie above each other.
        largest_budget: The largest budget of the sweep; beyond it the background is shaded.
        ax: Axes to draw on; new ones if None.

    Raises:
        FitError: The metric has no forecast.
    """
    if law.refused:
        raise FitError(f"No forecast of {law.name}: {law.refused}")
    ax = ax or style.new_axes()
    ax.plot(C, found.value, color=COLOURS[0], label=f"{law.chosen}, 95 %")
    ax.fill_between(C, found.low, found.high, color=COLOURS[0], alpha=0.2, lw=0)
    style.points(ax, runs, "compute_budget", law.column, color="black", marker=".")
    ax.plot([], [], ".", color="black", label="runs of all sizes")
    if C.max() > largest_budget:
        ax.axvspan(largest_budget, C.max(), color=SHADE, alpha=0.15, lw=0, label="extrapolation")
    ax.set(xscale="log", xlabel="compute budget C, FLOPs")
    ax.set_ylabel(law.name, parse_math=False)
    ax.set_xlim(C.min(), C.max())
    style.frame(ax, np.concatenate([_finite(found), runs[law.column]]), logarithmic=False)
    ax.legend(fontsize="small", loc="lower right" if law.limits.rising else "upper right")
    return ax


def _finite(found: MetricForecast) -> np.ndarray:
    return np.concatenate([found.value, found.low, found.high])


def plot_against_loss(
    law: MetricLaw,
    losses: np.ndarray,
    along: MetricForecast | None,
    runs: pd.DataFrame,
    ax: Axes | None = None,
) -> Axes:
    """The runs' metric against their loss, one colour per budget, and the law through the loss.

    Args:
        law: Its law.
        losses: Losses at which the law is drawn, shape (k,).
        along: The metric at each; None where it has no form of the loss.
        runs: The runs.
        ax: Axes to draw on; new ones if None.
    """
    ax = ax or style.new_axes()
    rows, budgets = style.by_budget(runs)
    handles = []
    for row, C, colour, i in zip(
        rows, budgets, style.colours(ax, budgets), range(len(rows)), strict=True
    ):
        marker = MARKERS[i % len(MARKERS)]
        style.points(ax, row, "loss", law.column, color=colour, marker=marker)
        handles.append(style.handle(f"{C:.2g}", color=colour, marker=marker))
    if along is not None:
        ax.plot(losses, along.value, color="black", lw=1)
        ax.fill_between(losses, along.low, along.high, color="black", alpha=0.15, lw=0)
        style.frame(ax, np.concatenate([along.value, runs[law.column]]), logarithmic=False)
        name = next(form.name for form in law.forms if form.of == "loss")
        handles.append(style.handle(name, color="black", marker="", linestyle="-"))
    ax.set(xlabel="held-out loss")
    ax.set_ylabel(law.name, parse_math=False)
    style.legend_of_budgets(ax, handles, len(budgets), above=True)
    return ax
