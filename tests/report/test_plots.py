"""What the plots draw is what the result says."""

import numpy as np
import pytest

import flops_fit
from flops_fit.errors import ArgumentError
from flops_fit.laws.parametric import ParametricLaw
from flops_fit.report import plots

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
    points = [line for line in ax.lines if line.get_marker() in plots.MARKERS]
    assert sum(len(line.get_xdata()) for line in points) == len(result.runs)
    stars = [float(line.get_xdata()[0]) for line in ax.lines if line.get_marker() == "*"]
    np.testing.assert_allclose(sorted(stars), sorted(result.optima["num_params"]))


def test_excluded_runs_are_hollow(result):
    runs = result.runs.copy()
    runs.loc[3, "excluded"] = "an outlier"
    ax = plots.plot_isoflops(runs, result.optima)
    hollow = [ln for ln in ax.lines if ln.get_markerfacecolor() == "none" and len(ln.get_xdata())]
    assert [float(line.get_xdata()[0]) for line in hollow] == [runs.loc[3, "num_params"]]


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
