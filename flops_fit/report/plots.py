"""Plots: functions of data, drawn on the axes given. Excluded runs are hollow, never hidden.

Colours are of Okabe and Ito (2008), told apart by colour-blind readers and in print.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from flops_fit.errors import ArgumentError
from flops_fit.laws.isoflop import curve, group_budgets

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
KINDS = ("isoflops", "scaling")
_SHADE = "#999999"


def plot_isoflops(runs: pd.DataFrame, optima: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """Held-out loss against N, a curve a budget, with the fitted minima and their intervals.

    Args:
        runs: `Result.runs`.
        optima: `Result.optima`.
        ax: Axes to draw on; new ones if None.
    """
    ax = ax or _new_axes()
    finished = runs[np.isfinite(runs["loss"])]
    group = group_budgets(finished["compute_budget"].to_numpy(float))
    for index, label in enumerate(np.unique(group)):
        row = finished[group == label]
        colour = COLOURS[index % len(COLOURS)]
        _points(ax, row, colour, MARKERS[index % len(MARKERS)])
        budget = float(np.exp(np.log(row["compute_budget"].astype(float)).mean()))
        _isoflop_curve(ax, _nearest_row(optima, budget), row, colour, budget)
    ax.set(xscale="log", xlabel="parameters N", ylabel="held-out loss")
    _label_params(ax)
    if len(finished):
        ax.legend(title="budget C, FLOPs", fontsize="small", title_fontsize="small")
    return ax


def _label_params(ax: Axes) -> None:
    """Ticks at 1, 2, 5 of each decade, as 5k, 10k, 20k: a row often spans less than two decades."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _points(ax: Axes, row: pd.DataFrame, colour: str, marker: str) -> None:
    used = row["excluded"] == ""
    for rows, face in ((row[used], colour), (row[~used], "none")):
        ax.plot(
            rows["num_params"],
            rows["loss"],
            marker,
            color=colour,
            markerfacecolor=face,
            markersize=5,
            linestyle="none",
        )


def _nearest_row(optima: pd.DataFrame, budget: float) -> pd.Series | None:
    if optima.empty:
        return None
    distance = np.abs(np.log(optima["compute_budget"].astype(float)) - np.log(budget))
    return optima.iloc[int(distance.to_numpy().argmin())] if distance.min() < 0.1 else None


def _isoflop_curve(
    ax: Axes, optimum: pd.Series | None, row: pd.DataFrame, colour: str, budget: float
) -> None:
    label = f"{budget:.2g}"
    if optimum is None or not np.isfinite(optimum["c0"]):
        ax.plot([], [], color=colour, label=label)
        return
    N = np.geomspace(row["num_params"].min(), row["num_params"].max(), 200)
    refused = bool(optimum["refused"])
    style = ":" if refused else "-"
    ax.plot(N, curve(optimum, N), style, color=colour, linewidth=1.2, label=label)
    if refused:
        return
    low, high = optimum["num_params_low"], optimum["num_params_high"]
    ax.hlines(optimum["loss"], low, high, color=colour, linewidth=1.0)
    ax.plot(
        optimum["num_params"], optimum["loss"], "*", color=colour, markersize=13,
        markeredgecolor="white",
    )  # fmt: skip


def plot_scaling(
    band: pd.DataFrame,
    optima: pd.DataFrame,
    quantity: str,
    *,
    data_unit: str = "tokens",
    largest_budget: float | None = None,
    power_law: Any = None,
    ax: Axes | None = None,
) -> Axes:
    """One of N_opt, D_opt, L_opt against C, with its 95 % band.

    Args:
        band: The parametric law's frontier: `Result.band(budgets)`.
        optima: `Result.optima`.
        quantity: "num_params", "num_tokens" or "loss".
        data_unit: What D counts.
        largest_budget: Beyond it the background is shaded: extrapolation.
        power_law: The power law through the optima, called with C.
        ax: Axes to draw on; new ones if None.
    """
    ax = ax or _new_axes()
    C = band["compute_budget"].to_numpy(float)
    ax.plot(C, band[quantity], color=COLOURS[0], label="parametric law, 95 %")
    ax.fill_between(
        C, band[f"{quantity}_low"], band[f"{quantity}_high"], color=COLOURS[0], alpha=0.2, lw=0
    )
    if power_law is not None and np.isfinite(power_law.exponent):
        ax.plot(C, power_law(C), "--", color=COLOURS[1], label="power law through the optima")
    _optima_points(ax, optima, quantity)
    if largest_budget is not None and C.max() > largest_budget:
        ax.axvspan(largest_budget, C.max(), color=_SHADE, alpha=0.15, lw=0, label="extrapolation")
    names = {"num_params": "N_opt, parameters", "num_tokens": f"D_opt, {data_unit}"}
    name = names.get(quantity, "L_opt, held-out loss")
    ax.set(xscale="log", xlabel="compute budget C, FLOPs", ylabel=name)
    ax.set_yscale("linear" if quantity == "loss" else "log")
    ax.margins(x=0)
    ax.legend(fontsize="small")
    return ax


def _optima_points(ax: Axes, optima: pd.DataFrame, quantity: str) -> None:
    good = optima[(optima["refused"] == "") & np.isfinite(optima[quantity].astype(float))]
    if good.empty:
        return
    middle = good[quantity].astype(float)
    errors = [middle - good[f"{quantity}_low"], good[f"{quantity}_high"] - middle]
    ax.errorbar(
        good["compute_budget"], middle, np.maximum(0, np.nan_to_num(errors)), fmt="o",
        color="black", markersize=4, capsize=3, linewidth=1, label="IsoFLOP optima",
    )  # fmt: skip


def plot_result(result: Any, kind: str | None = None) -> Figure:
    """The figure of a `Result`: "isoflops", "scaling", or both side by side (None).

    Raises:
        ArgumentError: If `kind` is none of these.
    """
    if kind is not None and kind not in KINDS:
        raise ArgumentError(f"kind: expected one of {', '.join(KINDS)} or None, got {kind!r}")
    panels = (kind != "scaling") + 3 * (kind != "isoflops")
    figure, axes = _new_figure(panels)
    if kind != "scaling":
        plot_isoflops(result.runs, result.optima, ax=axes[0])
        axes[0].set_title(result.meta.get("name", ""), fontsize="medium", parse_math=False)
    if kind != "isoflops":
        _scaling_panels(result, axes[-3:])
    return figure


def _say_instead(ax: Axes, message: str) -> None:
    """An empty panel that says why it is empty; the words have no say in the layout."""
    text = textwrap.fill(textwrap.shorten(message, 280, placeholder=" ..."), 44)
    said = ax.text(0.5, 0.5, text, ha="center", va="center", fontsize="small")
    said.set_in_layout(False)
    said.set_parse_math(False)
    ax.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[])


def _scaling_panels(result: Any, axes: list[Axes]) -> None:
    from flops_fit.errors import FitError

    low = float(result.runs["compute_budget"].astype(float).min()) / 1.5
    try:
        band = result.band(np.geomspace(low, 100 * result.largest_budget, 60))
    except FitError as error:
        for ax in axes:
            _say_instead(ax, str(error))
        return
    laws = result.power_laws
    for ax, quantity, law in zip(
        axes,
        ("num_params", "num_tokens", "loss"),
        (laws.n_opt, laws.d_opt, laws.l_opt),
        strict=True,
    ):
        plot_scaling(
            band,
            result.optima,
            quantity,
            data_unit=result.meta.get("data_unit", "tokens"),
            largest_budget=result.largest_budget,
            power_law=law,
            ax=ax,
        )


def _new_figure(panels: int) -> tuple[Figure, list[Axes]]:
    """A figure of its own, not pyplot's: nothing to close, nothing shared between threads."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = 2 if panels == 4 else panels
    rows = -(-panels // columns)
    figure = Figure(figsize=(5.2 * columns, 3.9 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, list(np.atleast_1d(figure.subplots(rows, columns)).flat)


def _new_axes() -> Axes:
    return _new_figure(1)[1][0]
