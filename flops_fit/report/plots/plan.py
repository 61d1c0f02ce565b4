"""A plan in the (N, D) plane: its trials, a line for each budget, and where D is 20 N."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from flops_fit.report.plots import style
from flops_fit.report.plots.style import MARKERS, SHADE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOKENS_PER_PARAM = 20.0
ROOM = 1.6


def plot_plan(plan: Any, *, ax: Axes | None = None) -> Axes:
    """The planned trials over N and D, with iso-FLOP lines through those of a budget.

    Each line is C = f(N) D at the FLOPs per token f(N) of the planned sizes. Trials that are done
    are full, the others hollow; where that was not looked up, all are full.

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
        shown = row.assign(excluded=np.where(to_do, "not done", ""))
        style.points(ax, shown, "num_params", "num_tokens", color=colour, marker=marker)
        label = f"{budget:.2g}"
        handles.append(style.handle(label, color=colour, marker=marker, linestyle="-"))
    if plan.done is not None and plan.to_do:
        handles.append(style.handle("to do", color=SHADE, marker="o", markerfacecolor="none"))
    handles += _rule(ax, frame)
    ax.set(xscale="log", yscale="log", xlabel="parameters N", ylabel=f"data D, {plan.data_unit}")
    for axis in (ax.xaxis, ax.yaxis):
        style.label_counts(axis)
    style.legend_of_budgets(ax, handles, len(rows))
    return ax


def _iso_flop_line(ax: Axes, row: pd.DataFrame, colour: Any) -> None:
    """C / f(N), between the planned sizes in log-log and on by half a step beyond them."""
    row = row.drop_duplicates("num_params").sort_values("num_params")
    x, y = np.log(row["num_params"].to_numpy(float)), np.log(row["num_tokens"].to_numpy(float))
    if len(x) > 1:
        for end, inner in ((0, 1), (-1, -2)):
            step = (x[end] - x[inner]) / 2, (y[end] - y[inner]) / 2
            place = 0 if end == 0 else len(x)
            x, y = np.insert(x, place, x[end] + step[0]), np.insert(y, place, y[end] + step[1])
    ax.plot(np.exp(x), np.exp(y), "-", color=colour, linewidth=1.0, alpha=0.7)


def _rule(ax: Axes, frame: pd.DataFrame) -> list[Any]:
    """The line D = 20 N, where the plan expects the optima of text."""
    N = np.array([frame["num_params"].min() / ROOM, frame["num_params"].max() * ROOM])
    limits = frame["num_tokens"].min() / ROOM, frame["num_tokens"].max() * ROOM
    ax.plot(N, TOKENS_PER_PARAM * N, "--", color=SHADE, linewidth=1.2)
    ax.set(xlim=tuple(N), ylim=limits)
    return [style.handle("D = 20 N", color=SHADE, marker="", linestyle="--")]
