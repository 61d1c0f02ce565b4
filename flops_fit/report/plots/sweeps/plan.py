"""Plot of a plan in the (N, D) plane: its trials, a line per budget, and the line D = 20 N."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from flops_fit.display.number_text import flops
from flops_fit.laws.design.assumed_law import TOKENS_PER_PARAM
from flops_fit.report.plan_view import PlanView
from flops_fit.report.plots import style
from flops_fit.report.plots.style import MARKERS, SHADE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D
    from matplotlib.typing import ColorType

MARGIN = 1.6  # factor by which the axes extend beyond the trials


def plot_plan(plan: PlanView, *, ax: Axes | None = None) -> Axes:
    """The planned trials over N and D, with an iso-FLOP line per budget.

    Each line is C = f(N) D with the FLOPs per token f(N) of the planned sizes. Trials that are done
    are filled, the others hollow; if that is unknown, all are filled.

    Args:
        plan: A `SweepPlan`.
        ax: Axes to draw on; new ones if None.
    """
    ax = ax or style.new_axes()
    frame = plan.to_frame()
    rows, budgets = style.by_budget(frame)
    handles = []
    looks = zip(rows, budgets, style.colours(ax, budgets), strict=True)
    for index, (row, budget, colour) in enumerate(looks):
        marker = MARKERS[index % len(MARKERS)]
        _iso_flop_line(ax, row, colour)
        to_do = ~row["done"] if plan.done is not None else np.zeros(len(row), bool)
        # `style.points` draws a row hollow if `excluded` is not empty: here the trials still to do.
        shown = row.assign(excluded=np.where(to_do, "not done", ""))
        style.points(ax, shown, "num_params", "num_tokens", color=colour, marker=marker)
        label = flops(budget, digits=2)
        handles.append(style.handle(label, color=colour, marker=marker, linestyle="-"))
    if plan.done is not None and plan.to_do:
        handles.append(style.handle("to do", color=SHADE, marker="o", markerfacecolor="none"))
    handles += _rule(ax, frame)
    ax.set(xscale="log", yscale="log", xlabel="parameters N", ylabel=f"data D, {plan.data_unit}")
    for axis in (ax.xaxis, ax.yaxis):
        style.label_counts(axis)
    style.legend_of_budgets(ax, handles, len(rows))
    return ax


def _iso_flop_line(ax: Axes, row: pd.DataFrame, colour: ColorType) -> None:
    """The line through the trials of a budget, extended by half a step on both sides."""
    row = row.drop_duplicates("num_params").sort_values("num_params")
    x, y = np.log(row["num_params"].to_numpy(float)), np.log(row["num_tokens"].to_numpy(float))
    if len(x) > 1:
        for end, inner in ((0, 1), (-1, -2)):
            place = 0 if end == 0 else len(x)
            next_x = x[end] + (x[end] - x[inner]) / 2
            next_y = y[end] + (y[end] - y[inner]) / 2
            x = np.insert(x, place, next_x)
            y = np.insert(y, place, next_y)
    ax.plot(np.exp(x), np.exp(y), "-", color=colour, linewidth=1.0, alpha=0.7)


def _rule(ax: Axes, frame: pd.DataFrame) -> list[Line2D]:
    """The line D = 20 N, where a plan for text expects the optima."""
    N = np.array([frame["num_params"].min() / MARGIN, frame["num_params"].max() * MARGIN])
    limits = frame["num_tokens"].min() / MARGIN, frame["num_tokens"].max() * MARGIN
    ax.plot(N, TOKENS_PER_PARAM * N, "--", color=SHADE, linewidth=1.2)
    ax.set(xlim=tuple(N), ylim=limits)
    return [style.handle("D = 20 N", color=SHADE, marker="", linestyle="--")]
