"""Plot of the back-test: errors on the largest budgets, which were held out of the fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from flops_fit.display.number_text import flops
from flops_fit.report.plots import style
from flops_fit.report.plots.style import COLOURS, SHADE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMS = {"five": "alpha, beta apart", "tied": "alpha = beta", "bent": "with gamma"}


def plot_backtest(backtest: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Errors of the held-out losses, one row per form of the law and set of held-out budgets.

    Grey bars show the error that noise alone explains, at 95 %.

    Args:
        backtest: `Result.backtest`.
        ax: Axes to draw on; new ones if None.
    """
    ax = ax or style.new_axes()
    table = backtest.reset_index(drop=True)
    rows = table.index.to_numpy()
    # `limit` is the ratio of the error to the residuals that noise reaches in 5 % of sweeps.
    chance = 100 * table["limit"] * table["in_sample_std"]
    ax.barh(rows, chance, color=SHADE, alpha=0.35, height=0.6, label="chance allows (95 %)")
    ax.plot(
        100 * table["in_sample_std"], rows, "|", color="black", markersize=14,
        label="residuals of the runs fitted",
    )  # fmt: skip
    for form, colour, marker in zip(FORMS, COLOURS, "oDs", strict=False):
        rows_of_form = table[table["form"] == form]
        if rows_of_form.empty:  # only a law that the runs ask to bend is tested with gamma
            continue
        ax.plot(
            100 * rows_of_form["loss_rmse"], rows_of_form.index, marker, color=colour, markersize=7,
            label=f"held out, {FORMS[form]}",
        )  # fmt: skip
    labels = [
        f"from {flops(start, digits=2)}\n{count} runs"
        for start, count in zip(table["held_out_from"], table["num_held_out"], strict=True)
    ]
    ax.set_yticks(rows, labels, fontsize="small")
    ax.set(xlabel="root mean square error of the loss, %", ylabel="held out, budgets in FLOPs")
    ax.invert_yaxis()  # the first row on top
    ax.set_xlim(left=0)
    style.legend_above(ax)
    return ax
