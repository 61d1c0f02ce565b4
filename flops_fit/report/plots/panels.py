"""The panels of a result: which plots there are, and what each is drawn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from flops_fit.errors import ArgumentError, FitError
from flops_fit.laws.findings import Findings
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.predict.tables import frontier_to_draw
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
    "plot_findings",
    "plot_isoflops",
    "plot_residuals",
    "plot_scaling",
]

BEYOND = 100.0  # plots of the frontier end at this multiple of the largest budget
BAND_POINTS = 60


@dataclass(frozen=True)
class Panel:
    """One panel of a result.

    Attributes:
        name: Name of the panel, and of its file.
        kind: The kind of `Result.plot` that it belongs to.
        title: What it shows.
        draw: Draws it on axes; raises FitError with the reason if there is nothing to show.
    """

    name: str
    kind: str
    title: str
    draw: Callable[[Findings, Axes], object]


def _isoflops(findings: Findings, ax: Axes) -> None:
    predicted = None
    if findings.law is not None:
        predicted = frontier_to_draw(findings, findings.largest_budget)
    plot_isoflops(findings.runs, findings.optima, predicted=predicted, ax=ax)


def _scaling(quantity: str, law: str) -> Callable[[Findings, Axes], object]:
    """The panel of one quantity; `law` names its power law in `PowerLaws`."""

    def draw(findings: Findings, ax: Axes) -> None:
        through_envelope = findings.envelope_laws
        plot_scaling(
            frontier(findings),
            findings.optima,
            quantity,
            data_unit=_unit(findings),
            largest_budget=findings.largest_budget,
            power_law=getattr(findings.power_laws, law),
            envelope=findings.envelope,
            envelope_law=None if through_envelope is None else getattr(through_envelope, law),
            ax=ax,
        )

    return draw


def _contours(findings: Findings, ax: Axes) -> None:
    plot_contours(
        _required_law(findings),
        findings.runs,
        frontier(findings),
        data_unit=_unit(findings),
        largest_budget=findings.largest_budget,
        ax=ax,
    )


def _residuals(findings: Findings, ax: Axes) -> None:
    _required_law(findings)
    std = findings.fits["headline"].residual_std
    plot_residuals(findings.runs, excess_over_law(findings), std, ax=ax)


def _curves(findings: Findings, ax: Axes) -> None:
    _require(len(findings.curves) > 0, "No training curves were given.")
    plot_curves(findings.curves, findings.runs, ax=ax)


def _backtest(findings: Findings, ax: Axes) -> None:
    _required_law(findings)
    _require(len(findings.backtest) > 0, "There are too few budgets to hold any out.")
    plot_backtest(findings.backtest, ax=ax)


PANELS = (
    Panel("isoflops", "isoflops", "Loss against size, one curve per budget", _isoflops),
    Panel("n_opt", "scaling", "Parameters to train, by budget", _scaling("num_params", "n_opt")),
    Panel("d_opt", "scaling", "Data to train on, by budget", _scaling("num_tokens", "d_opt")),
    Panel("l_opt", "scaling", "Loss to expect, by budget", _scaling("loss", "l_opt")),
    Panel("contours", "contours", "Loss of the law over size and data", _contours),
    Panel("residuals", "residuals", "Distance of each run from the law", _residuals),
    Panel("curves", "curves", "Training curves", _curves),
    Panel("backtest", "backtest", "Errors on the held-out largest budgets", _backtest),
)
KINDS = tuple(dict.fromkeys(panel.kind for panel in PANELS))
MAIN = ("isoflops", "scaling")


def plot_findings(findings: Findings, kind: str | None = None) -> Figure:
    """The figure of a result: one of `KINDS`, or IsoFLOP curves and scaling laws (None).

    Raises:
        ArgumentError: The kind is unknown.
    """
    if kind is not None and kind not in KINDS:
        raise ArgumentError(f"kind: expected one of {', '.join(KINDS)} or None, got {kind!r}")
    shown = [panel for panel in PANELS if panel.kind in ((kind,) if kind else MAIN)]
    figure, axes = style.new_figure(len(shown))
    for panel, ax in zip(shown, axes, strict=True):
        _draw(panel, findings, ax)
    # Names are text: `$` starts no formula.
    figure.suptitle(findings.meta.get("name", ""), fontsize="medium", parse_math=False)
    return figure


def figures(findings: Findings) -> dict[str, tuple[str, Figure | str]]:
    """Every panel as its own figure, by name: its title, and the figure or why there is none."""
    drawn: dict[str, tuple[str, Figure | str]] = {}
    for panel in PANELS:
        figure, (ax,) = style.new_figure(1)
        try:
            panel.draw(findings, ax)
        except FitError as error:
            drawn[panel.name] = (panel.title, str(error))
        else:
            drawn[panel.name] = (panel.title, figure)
    return drawn


def frontier(findings: Findings) -> pd.DataFrame:
    """Predictions from below the smallest budget to a hundred times the largest.

    Without a parametric law, only the column of budgets.
    """
    # All runs, also those excluded from the fits, lie within the plot.
    low = float(findings.runs["compute_budget"].astype(float).min()) / 1.5
    C = np.geomspace(low, BEYOND * findings.largest_budget, BAND_POINTS)
    if findings.law is None:
        return pd.DataFrame({"compute_budget": C})
    return frontier_to_draw(findings, C)


def _draw(panel: Panel, findings: Findings, ax: Axes) -> None:
    try:
        panel.draw(findings, ax)
    except FitError as error:
        style.say_instead(ax, str(error))


def _unit(findings: Findings) -> str:
    return findings.meta.get("data_unit", "tokens")


def _required_law(findings: Findings) -> ParametricLaw:
    if findings.law is None:
        raise FitError("No parametric law could be fitted to these runs.")
    return findings.law


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise FitError(reason)
