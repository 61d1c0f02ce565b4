"""Plot of the rounds of a sweep with a goal: how precise the answer was, by FLOPs spent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from flops_fit.display.number_text import flops
from flops_fit.errors import FitError
from flops_fit.report.plots import style
from flops_fit.report.plots.style import COLOURS, MARKERS, SHADE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPANS = {"span": "N_opt", "loss_span": "the loss"}


def plot_rounds(rounds: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """The factors that the intervals at the target span, against the FLOPs spent.

    Args:
        rounds: As `Findings.rounds`.
        ax: Axes to draw on; new ones if None.

    Raises:
        FitError: There are no rounds, or no interval was known at any.
    """
    spans = [(name, rounds[name].to_numpy(float)) for name in SPANS if name in rounds]
    if not any(np.isfinite(span).any() for _, span in spans):
        raise FitError("The sweep did not grow in rounds: pass target= to find_optimal.")
    ax = ax or style.new_axes()
    for index, (name, span) in enumerate(spans):
        known = np.isfinite(span)
        spent = rounds["flops"].to_numpy(float)[known]
        (line,) = ax.plot(spent, span[known] - 1, color=COLOURS[index], marker=MARKERS[index])
        line.set_label(f"{SPANS[name]} at {flops(rounds['target'].iloc[-1])} FLOPs")
    until = float(rounds["until"].iloc[-1])
    if np.isfinite(until):
        ax.axhline(until - 1, linestyle=":", color=SHADE, label=f"N_opt asked for, {until:g}x")
    ax.set(xscale="log", yscale="log", xlabel="FLOPs spent")
    ax.set_ylabel("high over low end of the 95 % interval, less 1")
    ax.legend(fontsize="small")
    return ax
