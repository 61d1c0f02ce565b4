"""Plots of the recipe law: the bowl at each size of the pilot, and the best values against C."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from flops_fit.display import number_text
from flops_fit.laws.model.recipe_law import ENOUGH_STEPS, log_losses
from flops_fit.laws.model.recipe_rules import deepseek
from flops_fit.report.plots import style
from flops_fit.report.plots.style import COLOURS, SHADE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from numpy.typing import ArrayLike

    from flops_fit.laws.model.arrays import Array
    from flops_fit.laws.model.recipe_law import RecipeLaw

NAMES = {"learning_rate": "learning rate", "batch_size": "batch, examples"}
# Contours of the loss above the least possible, in per cent.
LEVELS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
# A cell tells the level of its bowl the better, the lower it lies: to this share of its height, and
# to this much at the bottom.
SHARE, LEAST = 0.6, 0.005
MARGIN = 1.7  # factor by which a bowl is drawn beyond its cells
GRID = 80
MOST_WRITTEN = 30  # cells with their numbers beside them


def plot_bowl(recipe: RecipeLaw, cells: pd.DataFrame, *, ax: Axes | None = None) -> Axes:
    """The loss over learning rate and batch size at one size and budget: trained cells and the law.

    A cell has the colour of its loss, so that it vanishes before a law that fits it. Where only one
    of the two was varied, the loss is drawn against it.

    Args:
        recipe: `Result.recipe_law`.
        cells: Runs of one size and budget, as `found_recipe.recipe_cells` returns them.
        ax: Axes to draw on; new ones if None.
    """
    ax = ax or style.new_axes()
    tuned = recipe.tuned
    shown = _cells(recipe, cells)
    if len(tuned) == 2:
        _bowl(ax, recipe, shown)
    else:
        _parabola(ax, recipe, shown, tuned[0])
    N, C = float(cells["num_params"].iloc[0]), float(cells["compute_budget"].iloc[0])
    title = f"N = {number_text.count(N)} at {number_text.flops(C, digits=2)} FLOPs"
    style.legend_above(ax, title=title, columns=3)
    return ax


def _cells(recipe: RecipeLaw, cells: pd.DataFrame) -> pd.DataFrame:
    """One row a cell: learning rate, batch, excess over the bottom of the bowl in %, and runs."""
    N, D, rate, batch = (
        cells[name].to_numpy(float)
        for name in ("num_params", "num_tokens", "learning_rate", "batch_size")
    )
    height = recipe.excess(N, D, rate, batch)
    loss = log_losses(cells["loss"].to_numpy(float))
    known = np.isfinite(loss)
    weights = np.where(known, 1 / (LEAST**2 + (SHARE * height) ** 2), 0.0)
    # Runs of one seed begin alike: each seed has a level of its own.
    above = pd.DataFrame({"seed": cells["seed"].to_numpy(), "weight": weights})
    above["product"] = weights * np.where(known, loss - height, 0.0)
    sums = above.groupby("seed")[["product", "weight"]].transform("sum")
    level = (sums["product"] / sums["weight"].where(sums["weight"] > 0)).to_numpy()
    shown = cells.assign(excess=100 * np.expm1(loss - level), diverged=~known)
    found = shown.groupby(["learning_rate", "batch_size"], as_index=False)
    table = found.agg(
        N=("num_params", "mean"), D=("num_tokens", "mean"), excess=("excess", "mean"),
        runs=("excess", "size"), diverged=("diverged", "all"),
    )  # fmt: skip
    assert isinstance(table, pd.DataFrame)
    return table


def _bowl(ax: Axes, recipe: RecipeLaw, cells: pd.DataFrame) -> None:
    """Filled contours of the law, the cells in the same colours, and the best recipe."""
    from matplotlib import colormaps
    from matplotlib.colors import BoundaryNorm

    N, D = cells["N"].mean(), cells["D"].mean()
    rates, batches = (_around(cells[name]) for name in ("learning_rate", "batch_size"))
    height = 100 * np.expm1(recipe.excess(N, D, rates[None, :], batches[:, None]))
    colours = colormaps["YlGnBu_r"]
    norm = BoundaryNorm(LEVELS, colours.N, extend="max")
    drawn = ax.contourf(
        rates, batches, height, levels=LEVELS, norm=norm, cmap=colours, extend="max", alpha=0.85
    )
    ax.contour(rates, batches, height, levels=LEVELS[1:], colors="white", linewidths=0.6)
    known = cells[~cells["diverged"]]
    ax.scatter(
        known["learning_rate"], known["batch_size"], c=np.maximum(known["excess"], 0), norm=norm,
        cmap=colours, s=42, edgecolors="black", linewidths=0.9, zorder=3,
    )  # fmt: skip
    _diverged(ax, cells[cells["diverged"]], cells["batch_size"])
    _best(ax, recipe, N, D)
    for cell in known.to_dict("records") if len(known) <= MOST_WRITTEN else []:
        _write(ax, cell)
    ax.set(xscale="log", yscale="log", xlim=rates[[0, -1]], ylim=batches[[0, -1]])
    ax.set(xlabel=NAMES["learning_rate"], ylabel=NAMES["batch_size"])
    _label(ax.xaxis, "learning_rate")
    _label(ax.yaxis, "batch_size")
    assert ax.figure is not None
    bar = ax.figure.colorbar(drawn, ax=ax, label="loss above the least, %")
    bar.set_ticks(LEVELS)
    bar.set_ticklabels([f"{level:g}" for level in LEVELS])


def _write(ax: Axes, cell: Mapping[Any, Any]) -> None:
    """The excess of a cell in per cent above its mark, and how many runs it has."""
    runs = f" ({cell['runs']:.0f})" if cell["runs"] > 1 else ""
    label = ax.annotate(
        f"{round(cell['excess'], 1) + 0.0:.1f}{runs}", (cell["learning_rate"], cell["batch_size"]),
        xytext=(0, 7), textcoords="offset points", ha="center", fontsize="x-small", zorder=6,
    )  # fmt: skip
    _outline(label)


def _outline(label: object) -> None:
    """White edges, to be read on any colour."""
    from matplotlib.patheffects import withStroke
    from matplotlib.text import Text

    assert isinstance(label, Text)
    label.set_path_effects([withStroke(linewidth=2, foreground="white")])


def _best(ax: Axes, recipe: RecipeLaw, N: float, D: float) -> None:
    """The law's best recipe with its 95 % intervals."""
    rate, batch = recipe.learning_rate(N, D), recipe.batch_size(N, D)
    ends = recipe.learning_rate_interval(N, D), recipe.batch_size_interval(N, D)
    for width, colour in ((2.6, "white"), (1.2, "black")):
        ax.plot([*ends[0]], [batch, batch], color=colour, linewidth=width, zorder=4)
        ax.plot([rate, rate], [*ends[1]], color=colour, linewidth=width, zorder=4)
    ax.plot(
        rate, batch, "*", color=COLOURS[1], markersize=12, markeredgecolor="white", zorder=5,
        label="best by the law, 95 %",
    )  # fmt: skip


def _diverged(
    ax: Axes, cells: pd.DataFrame, heights: pd.Series, name: str = "learning_rate"
) -> None:
    """Cells that diverged, if there are any."""
    if len(cells):
        ax.plot(
            cells[name], heights[cells.index], "x", color=COLOURS[1], linestyle="none",
            label="diverged",
        )  # fmt: skip


def _parabola(ax: Axes, recipe: RecipeLaw, cells: pd.DataFrame, name: str) -> None:
    """The loss above the least against the one that was varied."""
    N, D = cells["N"].mean(), cells["D"].mean()
    across = _around(cells[name])
    other = "batch_size" if name == "learning_rate" else "learning_rate"
    given = {name: across, other: np.full_like(across, np.exp(np.log(cells[other]).mean()))}
    height = 100 * np.expm1(recipe.excess(N, D, given["learning_rate"], given["batch_size"]))
    known = cells[~cells["diverged"]]
    ax.plot(across, height, color=COLOURS[0], label="law")
    first, last = getattr(recipe, f"{name}_interval")(N, D)
    ax.axvspan(float(first), float(last), color=COLOURS[1], alpha=0.2, lw=0, label="best, 95 %")
    ax.plot(known[name], known["excess"], "o", color=COLOURS[0], markersize=6)
    top = 1.15 * max(float(known["excess"].max()), 0.5)
    _diverged(ax, cells[cells["diverged"]], pd.Series(0.97 * top, cells.index), name)
    low = min(-0.05 * top, 1.1 * float(known["excess"].min()))
    ax.set(xscale="log", xlim=across[[0, -1]], ylim=(low, top))
    ax.set(xlabel=NAMES[name], ylabel="loss above the least, %")
    _label(ax.xaxis, name)


def _around(values: pd.Series) -> Array:
    """A logarithmic grid that covers the values with a margin."""
    return np.geomspace(values.min() / MARGIN, values.max() * MARGIN, GRID)


def _label(axis: Axis, name: str) -> None:
    """Plain numbers as ticks: powers of two for batches, 1, 2 and 5 a decade for rates."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_view_interval()
    if name == "batch_size":
        axis.set_major_locator(LogLocator(2, numticks=10))
    else:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def plot_recipe_scaling(
    recipe: RecipeLaw,
    band: pd.DataFrame,
    runs: pd.DataFrame,
    name: str,
    *,
    data_unit: str = "tokens",
    ax: Axes | None = None,
) -> Axes:
    """The best learning rate or batch along the compute-optimal frontier, and the trained runs.

    Args:
        recipe: `Result.recipe_law`.
        band: The frontier, `Result.band(budgets)`.
        runs: `Result.runs`.
        name: "learning_rate" or "batch_size".
        data_unit: What D counts.
        ax: Axes to draw on; new ones if None.
    """
    ax = ax or style.new_axes()
    # Without a law of the loss there is no frontier, and the runs are drawn alone.
    known = band.reindex(columns=["compute_budget", "num_params", "num_tokens"]).dropna()
    C, N, D = known.to_numpy(float).T
    best, (low, high) = getattr(recipe, name)(N, D), getattr(recipe, f"{name}_interval")(N, D)
    ax.plot(C, best, color=COLOURS[0], linewidth=2, label="best on the frontier, 95 %")
    ax.fill_between(C, low, high, color=COLOURS[0], alpha=0.2, lw=0)
    _rule(ax, name, C, recipe.tokens_per_example, data_unit)
    if name == "batch_size":
        most = D / recipe.tokens_per_example / ENOUGH_STEPS
        if (most < best).any():
            ax.plot(C, most, ":", color="black", label=f"{ENOUGH_STEPS:,} steps")
    drawn = _runs(ax, runs, name)
    if len(C) and C.max() > recipe.largest_budget:
        ax.axvspan(
            recipe.largest_budget, C.max(), color=SHADE, alpha=0.15, lw=0, label="extrapolation"
        )
        ax.set_xlim(C.min(), max(C.max(), 1.3 * float(runs["compute_budget"].max())))
    ax.set(xscale="log", yscale="log", xlabel="compute budget C, FLOPs", ylabel=NAMES[name])
    style.frame(ax, np.concatenate([best, low, high, *drawn]), logarithmic=True)
    if name == "batch_size":
        _in_tokens(ax, recipe.tokens_per_example, data_unit)
    _label(ax.yaxis, name)
    style.legend_above(ax)
    return ax


def _rule(ax: Axes, name: str, C: Array, tokens_per_example: float, data_unit: str) -> None:
    """DeepSeek's rule, for comparison; its batch counts tokens."""
    if name == "batch_size" and data_unit != "tokens":
        return
    rules = np.array([deepseek(float(budget), 0.0, 0.0) for budget in C]).reshape(-1, 2)
    values = rules[:, 0] if name == "learning_rate" else rules[:, 1] / tokens_per_example
    ax.plot(C, values, "--", color=COLOURS[2], linewidth=1, label="rule of DeepSeek LLM")


def _runs(ax: Axes, runs: pd.DataFrame, name: str) -> Sequence[Array]:
    """Runs as marks by their role; returns the values drawn."""
    finished = runs[np.isfinite(runs["loss"].astype(float))]
    drawn = []
    for role, marker, colour, label in (
        ("pilot", "s", SHADE, "pilot"),
        ("check", "^", COLOURS[1], "check"),
        ("sweep", "o", COLOURS[0], "sweep"),
    ):
        part = finished[finished["role"] == role]
        if part.empty:
            continue
        values = part[name].to_numpy(float)
        ax.plot(
            part["compute_budget"], values, marker, color=colour, markersize=4, linestyle="none",
            markerfacecolor=colour if role == "sweep" else "none", label=label,
        )  # fmt: skip
        drawn.append(values)
    return drawn


def _in_tokens(ax: Axes, tokens_per_example: float, data_unit: str) -> None:
    """A second axis with the batch in units of D."""
    if tokens_per_example == 1:
        return

    def tokens(batch: ArrayLike) -> Array:
        return np.asarray(batch, float) * tokens_per_example

    def examples(tokens: ArrayLike) -> Array:
        return np.asarray(tokens, float) / tokens_per_example

    other = ax.secondary_yaxis("right", functions=(tokens, examples))
    other.set_ylabel(f"batch, {data_unit}")
    style.label_counts(other.yaxis)
