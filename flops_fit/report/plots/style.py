"""The common style of the plots: figures, colours, markers, ticks and limits.

The colours are those of Okabe and Ito (2008), which colour-blind readers can distinguish; markers
and line styles carry the same information in print. Excluded runs are hollow, never hidden.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from flops_fit.laws.runs.budgets import group_budgets

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from matplotlib.typing import ColorType

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
SHADE = "#999999"
TICKS = (1, 2, 5)  # per decade
UP = "$\\uparrow$"
DOWN = "$\\downarrow$"
OUTLYING = 5.0  # interquartile ranges beyond the quartiles


def new_figure(panels: int) -> tuple[Figure, list[Axes]]:
    """A figure without pyplot, which needs no closing and shares nothing between threads.

    A single panel is smaller: the report shows it at half width, and its text stays legible.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from flops_fit.report.plots.figure import NotebookFigure

    columns = 2 if panels == 4 else min(panels, 3)  # two by two, or rows of three
    rows = -(-panels // columns)
    width, height = (4.6, 3.45) if panels == 1 else (5.2, 3.9)
    figure = NotebookFigure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    axes = list(np.atleast_1d(figure.subplots(rows, columns)).flat)
    for empty in axes[panels:]:
        empty.remove()
    return figure, axes[:panels]


def new_axes() -> Axes:
    """Axes in a new figure."""
    return new_figure(1)[1][0]


def by_budget(runs: pd.DataFrame) -> tuple[list[pd.DataFrame], list[float]]:
    """The runs of each budget, and the budgets in FLOPs, from the smallest."""
    group = group_budgets(runs["compute_budget"].to_numpy(float))
    rows = [runs[group == label] for label in np.unique(group)]
    return rows, [float(np.exp(np.log(r["compute_budget"].astype(float)).mean())) for r in rows]


def colours(ax: Axes, budgets: list[float]) -> list[ColorType]:
    """A colour per budget; for many budgets a colour scale, with its bar."""
    if len(budgets) <= len(COLOURS):
        return list(COLOURS[: len(budgets)])
    return colour_scale(ax, np.asarray(budgets), "budget C, FLOPs")


def colour_scale(
    ax: Axes, values: np.ndarray, label: str, *, counts: bool = False
) -> list[ColorType]:
    """A colour for each positive value, on a logarithmic scale, with its bar."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm

    low, high = values.min(), values.max()
    if not high > low:  # one value: a scale needs a range
        low, high = low / 2, high * 2
    scale = ScalarMappable(LogNorm(low, high), "viridis")
    assert ax.figure is not None
    bar = ax.figure.colorbar(scale, ax=ax, label=label)
    if counts:
        label_counts(bar.ax.yaxis)
    return list(scale.to_rgba(values))


def legend_of_budgets(
    ax: Axes, handles: list[Line2D], num_budgets: int, *, above: bool = False
) -> None:
    """A legend of the budgets, if they are few, and of everything else that is drawn."""
    few = num_budgets <= len(COLOURS)
    shown = handles if few else handles[num_budgets:]
    title = "budget C, FLOPs" if few else None
    if shown and above:
        legend_above(ax, shown, columns=4, title=title)
    elif shown:
        ax.legend(handles=shown, title=title, fontsize="small", title_fontsize="small")


def legend_above(
    ax: Axes, handles: Sequence[Artist] | None = None, *, columns: int = 2, title: str | None = None
) -> None:
    """A legend above the axes, for plots without an empty corner."""
    given = {} if handles is None else {"handles": handles}
    ax.legend(
        **given, fontsize="small", ncols=columns, loc="lower center", bbox_to_anchor=(0.5, 1.0),
        frameon=False, borderaxespad=0.2, title=title, title_fontsize="small",
    )  # fmt: skip


def handle(label: str, *, color: ColorType, marker: str, **style: Any) -> Line2D:
    """An entry of a legend: a marker, and a line if `style` has a `linestyle`."""
    from matplotlib.lines import Line2D

    return Line2D([], [], label=label, color=color, marker=marker, **{"linestyle": "", **style})


def excluded_handle() -> Line2D:
    """The entry of the legend for excluded runs."""
    return handle("excluded", color=SHADE, marker="o", markerfacecolor="none")


def points(ax: Axes, rows: pd.DataFrame, x: str, y: str, *, color: ColorType, marker: str) -> None:
    """Runs as markers: filled if they take part in the fits, hollow if they are excluded."""
    used = rows["excluded"] == ""
    for part, face in ((rows[used], color), (rows[~used], "none")):
        ax.plot(
            part[x], part[y], marker, color=color, markerfacecolor=face, markersize=5,
            linestyle="none",
        )  # fmt: skip


def label_counts(axis: Axis) -> None:
    """Tick labels such as 5k, 10k, 20k; three per decade if the axis spans less than two."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    # The wider the axis, the fewer labels per decade fit.
    span = high / low if low > 0 else 1.0
    axis.set_major_locator(LogLocator(subs=(1,) if span > 1e3 else (1, 3) if span > 1e2 else TICKS))
    names = EngFormatter(sep="")
    names.ENG_PREFIXES = {**EngFormatter.ENG_PREFIXES, 9: "B"}  # "B" for a billion, not "G"
    axis.set_major_formatter(names)
    axis.set_minor_formatter(NullFormatter())


def within(losses: np.ndarray) -> np.ndarray:
    """Which losses set the limits of an axis: outlying ones would flatten all the others."""
    if not losses.size:
        return np.zeros(0, bool)
    low, high = np.percentile(losses, [25, 75])
    room = OUTLYING * (high - low)
    return np.asarray((losses >= low - room) & (losses <= high + room))


def arrows(ax: Axes, rows: pd.DataFrame, x: str, y: str) -> list[Line2D]:
    """Draw runs above or below the frame as arrows; returns their entry of the legend, if any."""
    low, high = ax.get_ylim()
    sides = ((rows[y] > high, high, UP), (rows[y] < low, low, DOWN))
    # The layout takes an empty line that is not clipped for one at the corner of the figure.
    beyond = [side for side in sides if side[0].any()]
    for part, edge, marker in beyond:
        ax.plot(
            rows[x][part], np.full(part.sum(), edge), marker=marker, color=SHADE, markersize=8,
            linestyle="none", clip_on=False,
        )  # fmt: skip
    if not beyond:
        return []
    return [handle("beyond the frame", color=SHADE, marker=UP)]


def frame(ax: Axes, seen: np.ndarray, *, logarithmic: bool) -> None:
    """Set limits in y that contain these values, whatever else is drawn."""
    seen = seen[np.isfinite(seen) & ((seen > 0) | (not logarithmic))]
    if not seen.size:
        return
    ends = np.array([seen.min(), seen.max()])
    ends = np.log(ends) if logarithmic else ends
    # A margin of 5 %, also if all values are equal.
    room = 0.05 * max(float(np.ptp(ends)), 1e-3)
    limits = ends[0] - room, ends[1] + room
    ax.set_ylim(*(np.exp(limits) if logarithmic else limits))


def say_instead(ax: Axes, message: str) -> None:
    """An empty panel with a message. The text takes no part in the layout."""
    text = textwrap.fill(textwrap.shorten(message, 280, placeholder=" ..."), 44)
    label = ax.text(0.5, 0.5, text, ha="center", va="center", fontsize="small")
    label.set_in_layout(False)
    label.set_parse_math(False)
    ax.set(xlim=(0, 1), ylim=(0, 1), xticks=[], yticks=[])
