"""The panels of a result: which plots there are, and what each is drawn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from flops_fit.errors import ArgumentError, FitError
from flops_fit.laws.findings import Findings
from flops_fit.laws.metrics.law import MetricLaw
from flops_fit.laws.metrics.values import at_losses, forecast
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.model.recipe_law import RecipeLaw
from flops_fit.laws.pipeline.found_recipe import recipe_cells
from flops_fit.laws.predict.intervals import predict_intervals
from flops_fit.laws.predict.tables import frontier_to_draw
from flops_fit.report.plots import style
from flops_fit.report.plots.backtest import plot_backtest
from flops_fit.report.plots.contours import plot_contours
from flops_fit.report.plots.curves import plot_curves
from flops_fit.report.plots.isoflops import plot_isoflops
from flops_fit.report.plots.metrics import plot_against_loss, plot_metric
from flops_fit.report.plots.recipe import plot_bowl, plot_recipe_scaling
from flops_fit.report.plots.residuals import excess_over_law, plot_residuals
from flops_fit.report.plots.scaling import plot_scaling
from flops_fit.report.plots.sweeps.rounds import plot_rounds

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
# Most sizes of the pilot whose bowl is drawn, and the fewest cells that show one.
MOST_BOWLS = 3
MOST_METRICS = 6  # that are drawn
FEWEST_CELLS = 3


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
    plot_isoflops(findings.sweep_runs, findings.optima, predicted=predicted, ax=ax)


def _scaling(quantity: str, law: str) -> Callable[[Findings, Axes], object]:
    """The panel of one quantity; `law` names its power law in `PowerLaws`."""

    def draw(findings: Findings, ax: Axes) -> None:
        through_envelope = findings.envelope_laws
        plot_scaling(
            frontier(findings, used=True),
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
        findings.sweep_runs,
        frontier(findings),
        data_unit=_unit(findings),
        largest_budget=findings.largest_budget,
        ax=ax,
    )


def _residuals(findings: Findings, ax: Axes) -> None:
    _required_law(findings)
    std = findings.fits["headline"].residual_std
    plot_residuals(findings.sweep_runs, excess_over_law(findings), std, ax=ax)


def _curves(findings: Findings, ax: Axes) -> None:
    _require(len(findings.curves) > 0, "No training curves were given.")
    plot_curves(findings.curves, findings.sweep_runs, ax=ax)


def _backtest(findings: Findings, ax: Axes) -> None:
    _required_law(findings)
    _require(len(findings.backtest) > 0, "There are too few budgets to hold any out.")
    plot_backtest(findings.backtest, ax=ax)


def _bowl(cells: pd.DataFrame) -> Callable[[Findings, Axes], object]:
    return lambda findings, ax: plot_bowl(_required_recipe(findings), cells, ax=ax)


def _recipe(name: str) -> Callable[[Findings, Axes], object]:
    """The panel of the learning rate or of the batch size."""

    def draw(findings: Findings, ax: Axes) -> None:
        plot_recipe_scaling(
            _required_recipe(findings),
            frontier(findings),
            findings.runs,
            name,
            data_unit=_unit(findings),
            ax=ax,
        )

    return draw


def _metric(law: MetricLaw) -> Callable[[Findings, Axes], object]:
    """The panel of a metric against compute."""

    def draw(findings: Findings, ax: Axes) -> None:
        _require(not law.refused, f"No forecast of {law.name}: {law.refused}")
        loss_law = _required_law(findings)
        runs = _with_metric(findings, law)
        C = frontier(findings)["compute_budget"].to_numpy(float)
        found = forecast(law, loss_law, predict_intervals(findings, C))
        largest = findings.largest_budget
        plot_metric(law, C, found, runs, largest_budget=largest, ax=ax)

    return draw


def _against_loss(law: MetricLaw) -> Callable[[Findings, Axes], object]:
    """The panel of a metric against the loss."""

    def draw(findings: Findings, ax: Axes) -> None:
        runs = _with_metric(findings, law)
        _require(len(runs) > 0, f"No run has {law.name}.")
        of_loss = [form.of == "loss" for form in law.forms]
        losses = runs.loc[runs["excluded"] == "", "loss"].to_numpy(float)
        along, low = np.empty(0), float(np.min(losses, initial=np.inf))
        drawn = None
        if any(of_loss):
            along = np.linspace(low - 0.15 * np.ptp(losses), losses.max(), BAND_POINTS)
            drawn = at_losses(law, along)
        plot_against_loss(law, along, drawn, runs, ax=ax)

    return draw


def _rounds(findings: Findings, ax: Axes) -> None:
    plot_rounds(findings.rounds, ax=ax)


def _no_metrics(findings: Findings, ax: Axes) -> None:
    raise FitError("The runs have no metrics: pass metrics= to find_optimal or fit.")


def _with_metric(findings: Findings, law: MetricLaw) -> pd.DataFrame:
    """The runs of the sweep that have a metric."""
    runs = findings.sweep_runs
    return runs[np.isfinite(runs[law.column].astype(float))]


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
ROUNDS_PANEL = Panel("rounds", "rounds", "How precise the answer became, round by round", _rounds)
NO_METRICS = Panel("metric", "metrics", "Metrics", _no_metrics)
RECIPE_PANELS = (
    Panel("learning_rate", "recipe", "Learning rate to train with", _recipe("learning_rate")),
    Panel("batch_size", "recipe", "Batch size to train with", _recipe("batch_size")),
)
METRICS = "metrics"
KINDS = (*dict.fromkeys(panel.kind for panel in (*PANELS, *RECIPE_PANELS)), METRICS, "rounds")
MAIN = ("isoflops", "scaling")


def plot_findings(findings: Findings, kind: str | None = None) -> Figure:
    """The figure of a result: one of `KINDS`, or IsoFLOP curves and scaling laws (None).

    Raises:
        ArgumentError: The kind is unknown.
    """
    if kind is not None and kind not in KINDS:
        raise ArgumentError(f"kind: expected one of {', '.join(KINDS)} or None, got {kind!r}")
    shown = [panel for panel in panels_of(findings) if panel.kind in ((kind,) if kind else MAIN)]
    if not shown:  # of runs that have none
        shown = [{METRICS: NO_METRICS, "rounds": ROUNDS_PANEL}.get(kind or "", RECIPE_PANELS[0])]
    figure, axes = style.new_figure(len(shown))
    for panel, ax in zip(shown, axes, strict=True):
        _draw(panel, findings, ax)
    # Names are text: `$` starts no formula.
    figure.suptitle(findings.meta.get("name", ""), fontsize="medium", parse_math=False)
    return figure


def panels_of(findings: Findings) -> tuple[Panel, ...]:
    """The panels of a result; those of its metrics and of the recipe if it has them."""
    rounds = () if findings.rounds.empty else (ROUNDS_PANEL,)
    panels = (*PANELS, *rounds, *_metric_panels(findings))
    if findings.recipe_law is None:
        return panels
    cells = recipe_cells(findings.runs)
    groups = cells.groupby(["compute_budget", "num_params"])
    of_pilot = [
        group
        for _, group in groups
        if (group["role"] == "pilot").any() and len(group) >= FEWEST_CELLS
    ]
    most = sorted(of_pilot, key=len, reverse=True)[:MOST_BOWLS]
    most.sort(key=lambda group: (group["compute_budget"].iloc[0], group["num_params"].iloc[0]))
    title = "Loss over learning rate and batch: the pilot's runs, and the law"
    bowls = [Panel(f"bowl_{i}", "recipe", title, _bowl(group)) for i, group in enumerate(most)]
    found = [panel for panel in RECIPE_PANELS if panel.name in findings.recipe_law.tuned]
    return (*panels, *bowls, *found)


def _metric_panels(findings: Findings) -> list[Panel]:
    """Two panels of each metric; the names of files do not hold those of users."""
    panels = []
    for i, law in enumerate(list(findings.metrics.values())[:MOST_METRICS]):
        against, through = f"{law.name}, by budget", f"{law.name} of each run against its loss"
        panels.append(Panel(f"metric_{i}", METRICS, against, _metric(law)))
        panels.append(Panel(f"metric_{i}_loss", METRICS, through, _against_loss(law)))
    return panels


def figures(findings: Findings) -> dict[str, tuple[str, Figure | str]]:
    """Every panel as its own figure, by name: its title, and the figure or why there is none."""
    drawn: dict[str, tuple[str, Figure | str]] = {}
    for panel in panels_of(findings):
        figure, (ax,) = style.new_figure(1)
        try:
            panel.draw(findings, ax)
        except FitError as error:
            drawn[panel.name] = (panel.title, str(error))
        else:
            drawn[panel.name] = (panel.title, figure)
    return drawn


def frontier(findings: Findings, *, used: bool = False) -> pd.DataFrame:
    """Predictions from below the smallest budget to a hundred times the largest.

    Without a parametric law, only the column of budgets.

    Args:
        findings: The laws and their runs.
        used: From the smallest budget of the runs in the fits, for plots that draw no others.
            Otherwise all runs, also those excluded from the fits, lie within the plot.
    """
    runs = findings.runs[findings.runs["excluded"] == ""] if used else findings.runs
    low = float(runs["compute_budget"].astype(float).min()) / 1.5
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


def _required_recipe(findings: Findings) -> RecipeLaw:
    if findings.recipe_law is None:
        raise FitError("No runs were trained to find a recipe.")
    return findings.recipe_law


def _require(condition: bool, reason: str) -> None:
    if not condition:
        raise FitError(reason)
