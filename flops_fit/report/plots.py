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

    from flops_fit.laws.power import PowerLaw

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
    rows = [finished[group == label] for label in np.unique(group)]
    budgets = [float(np.exp(np.log(row["compute_budget"].astype(float)).mean())) for row in rows]
    colours = _colours(ax, budgets)
    handles = []
    for index, (row, budget, colour) in enumerate(zip(rows, budgets, colours, strict=True)):
        marker = MARKERS[index % len(MARKERS)]
        _points(ax, row, colour, marker)
        style = _isoflop_curve(ax, _nearest_row(optima, budget), row, colour)
        handles.append(_handle(f"{budget:.2g}", color=colour, marker=marker, linestyle=style))
    if (finished["excluded"] != "").any():
        handles.append(_handle("left out", color=_SHADE, marker="o", markerfacecolor="none"))
    ax.set(xscale="log", xlabel="parameters N", ylabel="held-out loss")
    _label_params(ax)
    shown = handles if len(rows) <= len(COLOURS) else handles[len(rows) :]
    if shown:
        title = "budget C, FLOPs" if len(rows) <= len(COLOURS) else None
        ax.legend(handles=shown, title=title, fontsize="small", title_fontsize="small")
    return ax


def _colours(ax: Axes, budgets: list[float]) -> list[Any]:
    """One a budget; where budgets outnumber the named colours, a scale of them, with its bar."""
    if len(budgets) <= len(COLOURS):
        return list(COLOURS[: len(budgets)])
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    scale = ScalarMappable(LogNorm(min(budgets), max(budgets)), "viridis")
    assert ax.figure is not None
    ax.figure.colorbar(scale, ax=ax, label="budget C, FLOPs")
    return list(scale.to_rgba(np.asarray(budgets)))


def _handle(label: str, *, color: Any, marker: str, **style: Any) -> Any:
    """What the legend shows: the marker, and the line where one is drawn."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, color=color, marker=marker, **{"linestyle": "", **style})


def _label_params(ax: Axes) -> None:
    """Ticks at 1, 2, 5 of each decade, as 5k, 10k, 20k: a row often spans less than two decades."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    names = EngFormatter(sep="")
    names.ENG_PREFIXES = {**EngFormatter.ENG_PREFIXES, 9: "B"}  # a billion parameters, not a giga
    ax.xaxis.set_major_formatter(names)
    ax.xaxis.set_minor_formatter(NullFormatter())


def _points(ax: Axes, row: pd.DataFrame, colour: Any, marker: str) -> None:
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


def _isoflop_curve(ax: Axes, optimum: pd.Series | None, row: pd.DataFrame, colour: Any) -> str:
    """Draw the curve, and its minimum if it stands; the line style, empty where none is drawn."""
    if optimum is None or not np.isfinite(optimum["c0"]):
        return ""
    N = np.geomspace(row["num_params"].min(), row["num_params"].max(), 200)
    style = ":" if optimum["refused"] else "-"
    ax.plot(N, curve(optimum, N), style, color=colour, linewidth=1.2)
    if optimum["refused"]:
        return style
    low, high = optimum["num_params_low"], optimum["num_params_high"]
    ax.hlines(optimum["loss"], low, high, color=colour, linewidth=1.0)
    ax.plot(
        optimum["num_params"], optimum["loss"], "*", color=colour, markersize=13,
        markeredgecolor="white",
    )  # fmt: skip
    return style


def plot_scaling(
    band: pd.DataFrame,
    optima: pd.DataFrame,
    quantity: str,
    *,
    data_unit: str = "tokens",
    largest_budget: float | None = None,
    power_law: PowerLaw | None = None,
    ax: Axes | None = None,
) -> Axes:
    """One of N_opt, D_opt, L_opt against C, with its 95 % band.

    Args:
        band: The parametric law's frontier: `Result.band(budgets)`.
        optima: `Result.optima`.
        quantity: "num_params", "num_tokens" or "loss".
        data_unit: What D counts.
        largest_budget: Beyond it the background is shaded: extrapolation.
        power_law: The power law through the optima.
        ax: Axes to draw on; new ones if None.
    """
    ax = ax or _new_axes()
    C = band["compute_budget"].to_numpy(float)
    ax.plot(C, band[quantity], color=COLOURS[0], label="parametric law, 95 %")
    ax.fill_between(
        C, band[f"{quantity}_low"], band[f"{quantity}_high"], color=COLOURS[0], alpha=0.2, lw=0
    )
    seen = [band[f"{quantity}{end}"].to_numpy(float) for end in ("", "_low", "_high")]
    if power_law is not None and np.isfinite(power_law.exponent):
        seen.append(_power_law(ax, C, power_law, positive=quantity != "loss"))
    seen.append(_optima_points(ax, optima, quantity))
    if largest_budget is not None and C.max() > largest_budget:
        ax.axvspan(largest_budget, C.max(), color=_SHADE, alpha=0.15, lw=0, label="extrapolation")
    names = {"num_params": "N_opt, parameters", "num_tokens": f"D_opt, {data_unit}"}
    name = names.get(quantity, "L_opt, held-out loss")
    ax.set(xscale="log", xlabel="compute budget C, FLOPs", ylabel=name)
    ax.set_yscale("linear" if quantity == "loss" else "log")
    ax.margins(x=0)
    _frame(ax, np.concatenate(seen), logarithmic=quantity != "loss")
    ax.legend(fontsize="small")
    return ax


def _power_law(ax: Axes, C: np.ndarray, law: PowerLaw, *, positive: bool) -> np.ndarray:
    """The power law through the optima and its 95 % band; its values."""
    low, high = law.interval(C)
    if positive:
        low = np.maximum(low, np.finfo(float).tiny)
    ax.fill_between(C, low, high, color=COLOURS[1], alpha=0.12, lw=0)
    ax.plot(C, law(C), "--", color=COLOURS[1], label="power law through the optima, 95 %")
    return np.asarray(law(C))


def _frame(ax: Axes, seen: np.ndarray, *, logarithmic: bool) -> None:
    """Limits that hold the laws, the parametric band and the points, whatever other bands do."""
    seen = seen[np.isfinite(seen) & ((seen > 0) | (not logarithmic))]
    if not seen.size:
        return
    ends = np.array([seen.min(), seen.max()])
    ends = np.log(ends) if logarithmic else ends
    room = 0.05 * max(float(np.ptp(ends)), 1e-3)
    limits = ends[0] - room, ends[1] + room
    ax.set_ylim(*(np.exp(limits) if logarithmic else limits))


def _optima_points(ax: Axes, optima: pd.DataFrame, quantity: str) -> np.ndarray:
    """Draw the optima that stand; their values."""
    good = optima[(optima["refused"] == "") & np.isfinite(optima[quantity].astype(float))]
    if good.empty:
        return np.array([])
    middle = good[quantity].astype(float)
    errors = [middle - good[f"{quantity}_low"], good[f"{quantity}_high"] - middle]
    ax.errorbar(
        good["compute_budget"], middle, np.maximum(0, np.nan_to_num(errors)), fmt="o",
        color="black", markersize=4, capsize=3, linewidth=1, label="IsoFLOP optima",
    )  # fmt: skip
    return middle.to_numpy(float)


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
