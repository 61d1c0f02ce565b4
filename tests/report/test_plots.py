"""What the plots draw is what the result says."""

from dataclasses import replace

import numpy as np
import pytest

import flops_fit
from flops_fit.errors import ArgumentError
from flops_fit.laws.parametric import ParametricLaw
from flops_fit.laws.simulate import simulate_isoflop
from flops_fit.report import canvas, plots

LAW = ParametricLaw(E=1.0, A=66.0, B=100.0, alpha=0.35, beta=0.30)


@pytest.fixture(scope="module")
def result() -> flops_fit.Result:
    """A fit to a planted law with a little noise, one run of which failed."""
    noise = np.random.default_rng(0)
    rows = []
    for C in (1e12, 1e13, 1e14):
        for N in float(LAW.n_opt(C)) * np.geomspace(0.2, 5, 7):
            loss = float(LAW.loss(N, C / 6 / N)) * (1 + 0.002 * noise.standard_normal())
            rows.append({"N": N, "D": C / 6 / N, "loss": loss})
    return flops_fit.fit(rows, name="</script> $x$")


def test_each_finished_run_is_a_point_and_each_minimum_a_star(result):
    ax = plots.plot_isoflops(result.runs, result.optima)
    points = [line for line in ax.lines if line.get_marker() in canvas.MARKERS]
    assert sum(len(line.get_xdata()) for line in points) == len(result.runs)
    stars = [float(line.get_xdata()[0]) for line in ax.lines if line.get_marker() == "*"]
    np.testing.assert_allclose(sorted(stars), sorted(result.optima["num_params"]))


def test_excluded_runs_are_hollow(result):
    runs = result.runs.copy()
    runs.loc[3, "excluded"] = "an outlier"
    ax = plots.plot_isoflops(runs, result.optima)
    hollow = [ln for ln in ax.lines if ln.get_markerfacecolor() == "none" and len(ln.get_xdata())]
    assert [float(line.get_xdata()[0]) for line in hollow] == [runs.loc[3, "num_params"]]


def test_the_legend_shows_what_is_drawn(result):
    runs, optima = result.runs.copy(), result.optima.copy()
    runs.loc[3, "excluded"] = "an outlier"
    optima.loc[1, "c0"] = np.nan  # no curve
    optima.loc[2, "refused"] = "too flat to see"
    legend = plots.plot_isoflops(runs, optima).get_legend()
    styles = {
        text.get_text(): handle.get_linestyle()
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }
    assert styles == {"1e+12": "-", "1e+13": "None", "1e+14": ":", "left out": "None"}


def test_very_many_budgets_take_a_colour_bar():
    C = np.geomspace(1e12, 1e14, 20)
    runs = simulate_isoflop(LAW, C, num_sizes=4)
    figure = flops_fit.fit(runs, num_draws=100).plot("isoflops")
    figure.draw_without_rendering()
    panel, bar = figure.axes
    assert panel.get_legend() is None
    assert bar.get_ylim() == pytest.approx((1e12, 1e14))
    assert panel.get_position().height > 0.5


@pytest.mark.parametrize("quantity", ["num_params", "loss"])
def test_the_power_law_has_its_band_and_does_not_set_the_frame(result, quantity):
    C = np.geomspace(1e12, 1e16, 20)
    law = {"num_params": result.power_laws.n_opt, "loss": result.power_laws.l_opt}[quantity]
    vague = replace(law, covariance=tuple(1e4 * v for v in law.covariance))
    limits = []
    for drawn in (law, vague):
        ax = plots.plot_scaling(result.band(C), result.optima, quantity, power_law=drawn)
        assert len(ax.collections) >= 2
        limits.append(ax.get_ylim())
    assert limits[0] == limits[1]
    np.testing.assert_allclose(ax.lines[1].get_ydata(), law(C))


@pytest.mark.parametrize("quantity", ["num_params", "num_tokens", "loss"])
def test_the_law_and_its_band_are_drawn(result, quantity):
    band = result.band(np.geomspace(1e12, 1e16, 20))
    ax = plots.plot_scaling(band, result.optima, quantity, largest_budget=1e14)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), band[quantity])
    labels = ax.get_legend_handles_labels()[1]
    assert {"extrapolation", "IsoFLOP optima"} <= set(labels)


@pytest.mark.parametrize(("kind", "panels"), [(None, 4), ("isoflops", 1), ("scaling", 3)])
def test_the_figures_of_a_result(result, kind, panels, tmp_path):
    figure = result.plot(kind)
    assert len(figure.axes) == panels
    assert all(ax.get_xlabel() and ax.get_ylabel() for ax in figure.axes)
    figure.savefig(tmp_path / "figure.svg")  # a hostile name is drawn as text
    assert "<script" not in (tmp_path / "figure.svg").read_text()


def test_an_unknown_kind_is_refused(result):
    with pytest.raises(ArgumentError, match="kind: expected one of isoflops, scaling"):
        result.plot("pie")
