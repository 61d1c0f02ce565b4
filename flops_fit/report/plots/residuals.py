"""Plot of residuals: how far each run lies from the law."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from flops_fit.display.number_text import flops
from flops_fit.laws.inference.repetition_constants import unique_tokens
from flops_fit.report.plots import style
from flops_fit.report.plots.style import MARKERS, SHADE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from flops_fit.laws.findings import Findings

FARTHEST = 8.0  # standard deviations; residuals beyond are arrows at the frame


def plot_residuals(
    runs: pd.DataFrame, excess: np.ndarray, residual_std: float, *, ax: Axes | None = None
) -> Axes:
    """Residuals of the loss in per cent against N, with a grey band of two standard deviations.

    Runs more than eight standard deviations away are arrows at the frame.

    Args:
        runs: `Result.runs`.
        excess: How far each run lies above the law, from `excess_over_law`, shape (n,); NaN for
            runs without a loss.
        residual_std: Standard deviation of the residuals of the runs in the fit.
        ax: Axes to draw on; new ones if None.
    """
    ax = ax or style.new_axes()
    shown = runs.assign(off=100 * np.asarray(excess, float))
    shown = shown[np.isfinite(shown["off"])]
    # Without noise there is no scale to be far off by.
    limit = 100 * FARTHEST * residual_std if residual_std > 0 else np.inf
    inside = shown[shown["off"].abs() <= limit]
    rows, budgets = style.by_budget(inside)
    colours = style.colours(ax, budgets)
    handles = []
    for index, (row, budget, colour) in enumerate(zip(rows, budgets, colours, strict=True)):
        marker = MARKERS[index % len(MARKERS)]
        style.points(ax, row, "num_params", "off", color=colour, marker=marker)
        handles.append(style.handle(flops(budget, digits=2), color=colour, marker=marker))
    if (inside["excluded"] != "").any():
        handles.append(style.excluded_handle())
    ax.axhspan(-200 * residual_std, 200 * residual_std, color=SHADE, alpha=0.2, lw=0)
    ax.axhline(0, color="black", linewidth=0.8)
    ax.set(xscale="log", xlabel="parameters N", ylabel="loss above the law, %")
    if len(inside) < len(shown):
        ax.set_ylim(-limit, limit)
        handles += style.arrows(ax, shown, "num_params", "off")
    style.label_counts(ax.xaxis)
    style.legend_of_budgets(ax, handles, len(rows), above=True)
    return ax


def excess_over_law(findings: Findings) -> np.ndarray:
    """How far each run of the sweep lies above the headline law, shape (n,); NaN without a loss.

    The difference of ln L if the law was fitted to ln L, else of L over the mean loss. If data was
    repeated, the law is that of effective parameters and tokens.
    """
    assert findings.law is not None
    runs, fit = findings.sweep_runs, findings.fits["headline"]
    N, D, loss = (runs[name].to_numpy(float) for name in ("num_params", "num_tokens", "loss"))
    unique, repetition = unique_tokens(runs), findings.repetition
    with np.errstate(all="ignore"):
        if repetition is None or unique is None:
            law = findings.law.loss(N, D)
        else:
            law = repetition.loss(N, D, unique)
        if fit.space == "log":
            return np.asarray(np.log(loss / law))
        # Fitted to L itself: in units of the mean loss, whose logarithm is `centre[2]`.
        return np.asarray((loss - law) / np.exp(fit.centre[2]))
