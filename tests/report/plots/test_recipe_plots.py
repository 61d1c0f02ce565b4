"""The plots of the recipe show the pilot's runs and the law."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from recipes import TOKENS, with_pilot

from flops_fit.laws.pipeline.found_recipe import recipe_cells
from flops_fit.report.plots import panels, style
from flops_fit.report.plots.panels import frontier, plot_findings
from flops_fit.report.plots.recipe import plot_bowl, plot_recipe_scaling
from flops_fit.result import fit


@pytest.fixture(scope="module")
def findings():
    table = with_pilot()
    table["state"] = np.where(table.index == 40, "diverged", "complete")
    table["loss"] = table["loss"].mask(table.index == 40)
    return fit(table, meta={"tokens_per_example": str(TOKENS)}, num_draws=100).findings


@pytest.fixture(scope="module")
def bowl(findings):
    cells = recipe_cells(findings.runs)
    return next(group for _, group in cells.groupby(["compute_budget", "num_params"]))


def lines(ax):
    return {line.get_label(): line for line in ax.lines}


def test_cells_are_marks_in_the_colours_of_the_law(findings, bowl):
    known = bowl[np.isfinite(bowl["loss"])]
    again = known[:1].assign(seed=1, loss=2 * known["loss"].iloc[0])  # of a seed that is far worse
    ax = plot_bowl(findings.recipe_law, pd.concat([bowl, again]))
    marks = ax.collections[-1]
    drawn = {tuple(map(float, at)) for at in marks.get_offsets()}
    assert drawn == set(zip(known["learning_rate"], known["batch_size"], strict=True))
    assert len(lines(ax)["diverged"].get_xdata()) == 1
    texts = [float(text.get_text().split()[0]) for text in ax.texts]
    assert len(texts) == len(drawn)
    # Two runs of one cell, each compared with those of its own seed.
    assert sum("(2)" in text.get_text() for text in ax.texts) == 1
    assert min(texts) == pytest.approx(0, abs=0.5)


def test_the_star_is_the_law(findings, bowl):
    ax = plot_bowl(findings.recipe_law, bowl)
    star = lines(ax)["best by the law, 95 %"]
    N, D = bowl["num_params"].mean(), bowl["num_tokens"].mean()
    law = findings.recipe_law
    assert float(star.get_xdata()[0]) == pytest.approx(law.learning_rate(N, D), rel=1e-3)
    assert float(star.get_ydata()[0]) == pytest.approx(law.batch_size(N, D), rel=1e-3)


@pytest.mark.parametrize("name", ["learning_rate", "batch_size"])
def test_what_alone_was_tuned_is_a_curve(findings, bowl, name):
    ax = plot_bowl(replace(findings.recipe_law, tuned=(name,)), bowl)
    assert ax.get_ylabel() == "loss above the least, %"
    assert "law" in lines(ax)
    assert len(lines(ax)["diverged"].get_xdata()) == 1


@pytest.mark.parametrize("name", ["learning_rate", "batch_size"])
def test_the_law_is_drawn_along_the_frontier(findings, name):
    band, law = frontier(findings), findings.recipe_law
    ax = plot_recipe_scaling(law, band, findings.runs, name)
    drawn = lines(ax)["best on the frontier, 95 %"]
    expected = getattr(law, name)(band["num_params"], band["num_tokens"])
    np.testing.assert_allclose(drawn.get_ydata(), expected)
    counts = {role: len(lines(ax)[role].get_xdata()) for role in ("sweep", "pilot", "check")}
    assert counts == {"sweep": 35, "pilot": 44, "check": 8}


def test_roles_that_no_run_has_are_not_in_the_legend(findings):
    runs = findings.runs[findings.runs["role"] != "check"]
    ax = plot_recipe_scaling(findings.recipe_law, frontier(findings), runs, "learning_rate")
    assert {"sweep", "pilot", "check"} & set(lines(ax)) == {"sweep", "pilot"}


def test_without_a_law_of_the_loss_the_runs_are_drawn_alone(findings):
    for panel in panels.RECIPE_PANELS:
        ax = style.new_axes()
        panel.draw(replace(findings, law=None), ax)
        assert len(lines(ax)["sweep"].get_xdata()) == 35
        assert len(lines(ax)["best on the frontier, 95 %"].get_xdata()) == 0


@pytest.mark.parametrize(("unit", "drawn"), [("tokens", True), ("images", False)])
def test_a_rule_for_tokens_is_not_drawn_for_other_data(findings, unit, drawn):
    ax = plot_recipe_scaling(
        findings.recipe_law, frontier(findings), findings.runs, "batch_size", data_unit=unit
    )
    assert ("rule of DeepSeek LLM" in lines(ax)) == drawn
    (tokens,) = ax.child_axes
    assert tokens.get_ylabel() == f"batch, {unit}"


def test_a_recipe_has_its_panels_and_other_results_none(findings):
    # The kind decides: drawing every panel of both would take seconds.
    kinds = {panel.name: panel.kind for panel in panels.panels_of(findings)}
    names = [name for name, kind in kinds.items() if kind == "recipe"]
    assert names == ["bowl_0", "bowl_1", "bowl_2", "learning_rate", "batch_size"]
    assert panels.panels_of(without(findings)) == panels.PANELS
    assert len([ax for ax in plot_findings(findings, "recipe").axes if ax.get_xlabel()]) == 5
    (alone,) = plot_findings(without(findings), "recipe").axes
    assert alone.texts[0].get_text() == "No runs were trained to find a recipe."


def test_other_plots_leave_the_pilot_out(findings):
    ax = plot_findings(findings, "residuals").axes[0]
    assert sum(len(line.get_xdata()) for line in ax.lines if line.get_marker() in "osD^vPX") == 35


def without(findings):
    return replace(findings, recipe_law=None)
