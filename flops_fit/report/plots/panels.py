"""The figures of a `Result`: which panels there are, and what each is drawn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from flops_fit.errors import ArgumentError, FitError
from flops_fit.report.plots import style
from flops_fit.report.plots.backtest import plot_backtest
from flops_fit.report.plots.contours import plot_contours
from flops_fit.report.plots.curves import plot_curves
from flops_fit.report.plots.isoflops import plot_isoflops
from flops_fit.report.plots.residuals import excess_over_law, plot_residuals
from flops_fit.report.plots.scaling import plot_scaling

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "plot_backtest",
    "plot_contours",
    "plot_curves",
    "plot_isoflops",
    "plot_residuals",
    "plot_result",
    "plot_scaling",
]

BEYOND = 100.0
BAND_POINTS = 60


@dataclass(frozen=True)
class Panel:
    """One panel of a result.

    Attributes:
        name: Of its file.
        kind: What `Result.plot` calls it.
        title: What it shows, in a sentence.
        draw: Draws it on axes; raises FitError, saying why, where it has nothing to show.
    """

    name: str
    kind: str
    title: str
    draw: Callable[[Any, Axes], object]


def _isoflops(result: Any, ax: Axes) -> None:
    plot_isoflops(result.runs, result.optima, ax=ax)


def _scaling(quantity: str, law: str) -> Callable[[Any, Axes], object]:
    def draw(result: Any, ax: Axes) -> None:
        through = result.envelope_laws
        plot_scaling(
            frontier(result),
            result.optima,
            quantity,
            data_unit=_unit(result),
            largest_budget=result.largest_budget,
            power_law=getattr(result.power_laws, law),
            envelope=result.envelope,
            envelope_law=None if through is None else getattr(through, law),
            ax=ax,
        )

    return draw


def _contours(result: Any, ax: Axes) -> None:
    _require_law(result)
    plot_contours(
        result.law,
        result.runs,
        frontier(result),
        data_unit=_unit(result),
        largest_budget=result.largest_budget,
        ax=ax,
    )


def _residuals(result: Any, ax: Axes) -> None:
    _require_law(result)
    std = result.fits["headline"].residual_std
    plot_residuals(result.runs, excess_over_law(result.findings), std, ax=ax)


def _curves(result: Any, ax: Axes) -> None:
    _require(len(result.curves) > 0, "No training curves were given.")
    plot_curves(result.curves, result.runs, ax=ax)


def _backtest(result: Any, ax: Axes) -> None:
    _require_law(result)
    _require(len(result.backtest) > 0, "Too few budgets to hold any out.")
    plot_backtest(result.backtest, ax=ax)


PANELS = (
    Panel("isoflops", "isoflops", "Loss against size, a curve a budget", _isoflops),
    Panel("n_opt", "scaling", "Parameters to train, by budget", _scaling("num_params", "n_opt")),
    Panel("d_opt", "scaling", "Data to train on, by budget", _scaling("num_tokens", "d_opt")),
    Panel("l_opt", "scaling", "Loss to expect, by budget", _scaling("loss", "l_opt")),
    Panel("contours", "contours", "Loss of the law over size and data", _contours),
    Panel("residuals", "residuals", "How far each run lies from the law", _residuals),
    Panel("curves", "curves", "Training curves", _curves),
    Panel("backtest", "backtest", "Errors on the largest budgets, held out", _backtest),
)
KINDS = tuple(dict.fromkeys(panel.kind for panel in PANELS))
MAIN = ("isoflops", "scaling")


def plot_result(result: Any, kind: str | None = None) -> Figure:
    """The figure of a `Result`: one of `KINDS`, or IsoFLOP curves and scaling laws (None).

    Raises:
        ArgumentError: If `kind` is none of these.
    """
    if kind is not None and kind not in KINDS:
        raise ArgumentError(f"kind: expected one of {', '.join(KINDS)} or None, got {kind!r}")
    shown = [panel for panel in PANELS if panel.kind in ((kind,) if kind else MAIN)]
    figure, axes = style.new_figure(len(shown))
    for panel, ax in zip(shown, axes, strict=True):
        _draw(panel, result, ax)
    figure.suptitle(result.meta.get("name", ""), fontsize="medium", parse_math=False)
    return figure


def figures(result: Any) -> dict[str, tuple[str, Figure | str]]:
    """Every panel alone, by name: its title, and its figure or why it has nothing to show."""
    drawn: dict[str, tuple[str, Figure | str]] = {}
    for panel in PANELS:
        figure, (ax,) = style.new_figure(1)
        try:
            panel.draw(result, ax)
        except FitError as error:
            drawn[panel.name] = (panel.title, str(error))
        else:
            drawn[panel.name] = (panel.title, figure)
    return drawn


def frontier(result: Any) -> pd.DataFrame:
    """The law's band from below the smallest budget to a hundred times the largest.

    Where there is no parametric law, those budgets alone.
    """
    low = float(result.runs["compute_budget"].astype(float).min()) / 1.5
    C = np.geomspace(low, BEYOND * result.largest_budget, BAND_POINTS)
    band: pd.DataFrame = result.band(C) if result.law else pd.DataFrame({"compute_budget": C})
    return band


def _draw(panel: Panel, result: Any, ax: Axes) -> None:
    try:
        panel.draw(result, ax)
    except FitError as error:
        style.say_instead(ax, str(error))


def _unit(result: Any) -> str:
    return str(result.meta.get("data_unit", "tokens"))


def _require_law(result: Any) -> None:
    _require(result.law is not None, "No parametric law stands on these runs.")


def _require(there: bool, why_not: str) -> None:
    if not there:
        raise FitError(why_not)
