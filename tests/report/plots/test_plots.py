"""The plots show the numbers of the result."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from planted import BUDGETS, LAW, runs

import flops_fit
from flops_fit.errors import ArgumentError
from flops_fit.laws.model.repetition_law import RepetitionLaw
from flops_fit.laws.runs.simulate import simulate_isoflop
from flops_fit.report.plots import panels, style
from flops_fit.report.plots.residuals import excess_over_law


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
    ax = panels.plot_isoflops(result.runs, result.optima)
    points = [line for line in ax.lines if line.get_marker() in style.MARKERS]
    assert sum(len(line.get_xdata()) for line in points) == len(result.runs)
    stars = [float(line.get_xdata()[0]) for line in ax.lines if line.get_marker() == "*"]
    np.testing.assert_allclose(sorted(stars), sorted(result.optima["num_params"]))


def test_the_prediction_at_the_largest_budget_is_marked_with_its_intervals(result):
    ax = result.plot("isoflops").axes[0]
    (cross,) = (line for line in ax.lines if line.get_marker() == "x")
    prediction = result.predict(result.largest_budget)
    assert float(cross.get_xdata()[0]) == pytest.approx(prediction.num_params)
    assert float(cross.get_ydata()[0]) == pytest.approx(prediction.loss)
    ends = [tuple(path.vertices.ravel()) for part in ax.collections for path in part.get_paths()]
    N, loss = prediction.num_params, prediction.loss
    across = (prediction.num_params_interval[0], loss, prediction.num_params_interval[1], loss)
    upright = (N, prediction.loss_interval[0], N, prediction.loss_interval[1])
    for line in (across, upright):
        assert any(np.allclose(line, end) for end in ends)
    assert "prediction" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_excluded_runs_are_hollow(result):
    runs = result.runs.copy()
    runs.loc[3, "excluded"] = "an outlier"
    ax = panels.plot_isoflops(runs, result.optima)
    hollow = [ln for ln in ax.lines if ln.get_markerfacecolor() == "none" and len(ln.get_xdata())]
    assert [float(line.get_xdata()[0]) for line in hollow] == [runs.loc[3, "num_params"]]


def test_the_legend_shows_what_is_drawn(result):
    runs, optima = result.runs.copy(), result.optima.copy()
    runs.loc[3, "excluded"] = "an outlier"
    optima.loc[0, "c0"] = np.nan  # no curve
    optima.loc[1, "refused"] = "too flat to see"
    optima = optima.drop(index=2)
    legend = panels.plot_isoflops(runs, optima).get_legend()
    styles = {
        text.get_text(): handle.get_linestyle()
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }
    assert styles == {"1e+12": "None", "1e+13": ":", "1e+14": "None", "excluded": "None"}


def test_very_many_budgets_take_a_colour_bar():
    C = np.geomspace(1e12, 1e14, 20)
    runs = simulate_isoflop(LAW, C, num_sizes=4)
    figure = flops_fit.fit(runs, num_draws=100).plot("isoflops")
    figure.draw_without_rendering()
    panel, bar = figure.axes
    assert [text.get_text() for text in panel.get_legend().get_texts()] == ["prediction"]
    assert bar.get_ylim() == pytest.approx((1e12, 1e14))
    assert panel.get_position().height > 0.5


@pytest.mark.parametrize("quantity", ["num_params", "loss"])
def test_the_power_law_has_its_band_and_does_not_set_the_frame(result, quantity):
    C = np.geomspace(1e12, 1e16, 20)
    law = {"num_params": result.power_laws.n_opt, "loss": result.power_laws.l_opt}[quantity]
    vague = replace(law, covariance=tuple(1e4 * v for v in law.covariance))
    limits = []
    for drawn in (law, vague):
        ax = panels.plot_scaling(result.band(C), result.optima, quantity, power_law=drawn)
        # Nothing but the prediction's own band is filled, and no approach hides its line.
        (filled,) = [area for area in ax.collections if isinstance(area, PolyCollection)]
        assert to_hex(filled.get_facecolor()[0]) == style.COLOURS[0].lower()
        prediction, *of_law = ax.lines[:4]
        assert prediction.get_zorder() > max(line.get_zorder() for line in of_law)
        for end, line in zip(drawn.interval(C), of_law[1:], strict=True):
            np.testing.assert_allclose(line.get_ydata(), np.maximum(end, line.get_ydata().min()))
        limits.append(ax.get_ylim())
    assert limits[0] == limits[1]
    np.testing.assert_allclose(ax.lines[1].get_ydata(), law(C))


@pytest.mark.parametrize("quantity", ["num_params", "num_tokens", "loss"])
def test_the_law_and_its_band_are_drawn(result, quantity):
    band = result.band(np.geomspace(1e12, 1e16, 20))
    ax = panels.plot_scaling(band, result.optima, quantity, largest_budget=1e14)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), band[quantity])
    labels = ax.get_legend_handles_labels()[1]
    assert {"extrapolation", "IsoFLOP optima"} <= set(labels)


def test_intervals_of_the_optima_are_their_own(result):
    optima = result.optima.assign(
        num_params_low=0.5 * result.optima["num_params"],
        num_params_high=3 * result.optima["num_params"],
    )
    ax = panels.plot_scaling(result.band(BUDGETS), optima, "num_params")
    (bars,) = ax.containers
    ends = [segment[:, 1] for segment in bars[2][0].get_segments()]
    expected = optima[["num_params_low", "num_params_high"]]
    np.testing.assert_allclose(ends, expected)


def test_contours_are_the_laws_and_the_path_is_the_bands(result):
    path = result.band(np.geomspace(1e12, 1e16, 20))
    runs = result.runs.copy()
    runs.loc[3, "excluded"] = "an outlier"
    ax = panels.plot_contours(result.law, runs, path, largest_budget=1e14)
    (drawn,) = [c for c in ax.collections if hasattr(c, "levels")]
    for level, outline in zip(drawn.levels, drawn.get_paths(), strict=True):
        N, D = outline.vertices.T
        np.testing.assert_allclose(result.law.loss(N, D), level, rtol=2e-3)
    whole, within = ax.lines[:2]
    np.testing.assert_allclose(whole.get_xydata(), path[["num_params", "num_tokens"]])
    assert whole.get_linestyle() == "--"
    assert len(within.get_xdata()) == (path["compute_budget"] <= 1e14).sum()
    full, hollow = ax.lines[2:4]
    assert len(full.get_xdata()) == len(runs) - 1
    assert float(hollow.get_ydata()[0]) == runs.loc[3, "num_tokens"]
    assert hollow.get_markerfacecolor() == "none"


def test_residuals_are_those_of_the_fit_and_far_ones_stay_in_the_frame(result):
    excess = excess_over_law(result.findings)
    std = result.fits["headline"].residual_std
    used = (result.runs["excluded"] == "").to_numpy()
    assert np.sqrt((excess[used] ** 2).sum() / (used.sum() - 5)) == pytest.approx(std, rel=1e-6)
    runs = result.runs.copy()
    excess[5] = 1.0
    runs.loc[5, "excluded"] = "an outlier"
    ax = panels.plot_residuals(runs, excess, std)
    shown = np.concatenate([ln.get_ydata() for ln in ax.lines if ln.get_marker() in style.MARKERS])
    np.testing.assert_allclose(np.sort(shown), np.sort(100 * np.delete(excess, 5)))
    (arrow,) = [ln for ln in ax.lines if ln.get_marker() == "$\\uparrow$" and len(ln.get_xdata())]
    assert float(arrow.get_ydata()[0]) == pytest.approx(100 * 8 * std)
    assert max(ax.get_ylim()) < 100


def test_residuals_of_repeated_data_are_of_the_law_in_effective_tokens():
    law = RepetitionLaw(LAW)
    table = simulate_isoflop(LAW, np.geomspace(1e12, 1e14, 5), noise=0.0, half_width=0.75)
    table["unique_tokens"] = table["num_tokens"] / np.tile([1.0, 3, 1, 2, 1, 4, 1], 5)
    N, D, U = (table[name] for name in ("num_params", "num_tokens", "unique_tokens"))
    noise = 1 + 1e-3 * np.random.default_rng(0).standard_normal(len(table))
    found = flops_fit.fit(table.assign(loss=law.loss(N, D, U) * noise), num_draws=100)
    assert found.findings.repetition is not None
    std = found.fits["headline"].residual_std
    used = (found.runs["excluded"] == "").to_numpy()
    assert np.std(excess_over_law(found.findings)[used]) == pytest.approx(std, rel=0.2)


CURVES = pd.DataFrame(
    {
        "trial_id": ["a"] * 3 + ["b"] * 3 + ["stranger"] * 2,
        "num_tokens": [1.0, 10, 100, 1, 10, 100, 1, 2],
        "loss": [4.0, 3.0, 2.5, 5.0, 2.9, 2.0, 0.1, 0.1],
    }
)
ENDED = pd.DataFrame(
    {
        "trial_id": ["a", "b", ""],
        "num_params": [10.0, 30.0, 1.0],
        "num_tokens": [100.0, 100.0, 1.0],
        "flops": [6e3, 18e3, 1.0],
        "compute_budget": [6.1e3, 18.1e3, 1.0],
        "loss": [2.6, 2.1, 9.0],
        "excluded": ["", "an outlier", ""],
    }
)


def test_training_curves_are_drawn_against_compute():
    ax = panels.plot_curves(CURVES, ENDED)
    (lines,) = [c for c in ax.collections if hasattr(c, "get_segments")]
    a, b = lines.get_segments()
    np.testing.assert_allclose(a, [[60, 4], [600, 3], [6000, 2.5]])
    np.testing.assert_allclose(b, [[180, 5], [1800, 2.9], [18000, 2]])
    envelope, full, hollow = (line for line in ax.lines if len(line.get_xdata()))
    C, lowest = envelope.get_xdata(), envelope.get_ydata()
    assert (C[0], C[-1]) == pytest.approx((60, 18000))
    assert (lowest[0], lowest[-1]) == pytest.approx((4, 2))
    assert (np.diff(lowest) <= 0).all()
    between = np.interp(np.log(C), np.log([60, 600, 6000]), [4, 3, 2.5])
    assert (lowest[C < 6000] <= between[C < 6000] + 1e-9).all()
    assert [tuple(p) for p in full.get_xydata()] == [(6e3, 2.6)]
    assert [tuple(p) for p in hollow.get_xydata()] == [(18e3, 2.1)]


def test_a_curve_is_drawn_with_as_many_points_as_can_be_seen():
    D = np.arange(1.0, 20_001)
    long = pd.DataFrame({"trial_id": "a", "num_tokens": D, "loss": 3 + 2 / D**0.5})
    (lines, *_) = panels.plot_curves(long, ENDED).collections
    (shown,) = lines.get_segments()
    assert 40 < len(shown) <= 60
    assert shown[[0, -1], 0] == pytest.approx([60, 60 * 20_000])
    assert np.diff(np.log(shown[:, 0])).max() < 0.7
    smooth = np.interp(shown[30:, 0], 60 * D, long["loss"])
    np.testing.assert_allclose(shown[30:, 1], smooth, rtol=0.02)


@pytest.mark.slow
def test_very_many_points_are_drawn_as_a_picture():
    more = [CURVES[:3].assign(trial_id=f"{k}") for k in range(2000)]
    runs = [ENDED[:1].assign(trial_id=f"{k}") for k in range(2000)]
    for curves, ended, as_picture in (
        (CURVES, ENDED, False),
        (pd.concat(more), pd.concat(runs), True),
    ):
        (lines, *_) = panels.plot_curves(curves, ended).collections
        assert bool(lines.get_rasterized()) == as_picture


def test_the_back_test_is_drawn_against_chance(result):
    table = result.backtest
    ax = panels.plot_backtest(table)
    chance = [bar.get_width() for bar in ax.patches]
    np.testing.assert_allclose(chance, 100 * table["limit"] * table["in_sample_std"])
    residuals, five, tied = (line.get_xdata() for line in ax.lines)
    np.testing.assert_allclose(residuals, 100 * table["in_sample_std"])
    errors = 100 * table.set_index("form")["loss_rmse"]
    np.testing.assert_allclose([*five, *tied], [*errors[["five"]], *errors[["tied"]]])


def test_the_envelope_is_a_third_approach(result):
    band = result.band(np.geomspace(1e12, 1e16, 20))
    envelope = result.optima[["compute_budget", "num_params"]]
    law = replace(result.power_laws.n_opt, k=2 * result.power_laws.n_opt.k)
    ax = panels.plot_scaling(band, result.optima, "num_params", envelope=envelope, envelope_law=law)
    drawn = {line.get_label(): line for line in ax.lines}
    through = drawn["power law of envelope, 95 %"]
    np.testing.assert_allclose(through.get_ydata(), law(band["compute_budget"]))
    np.testing.assert_allclose(drawn["envelope"].get_xydata(), envelope)


@pytest.mark.parametrize("kind", ["scaling", "contours", "residuals", "curves", "backtest"])
def test_a_panel_without_data_shows_the_reason(kind):
    few = flops_fit.fit(runs().iloc[:3])
    for ax in few.plot(kind).axes:
        assert ax.texts
        assert not any(len(line.get_xdata()) for line in ax.lines)


def test_without_a_parametric_law_the_other_approaches_are_drawn():
    table = runs()
    table.loc[3, "loss"] = 1e9
    found = flops_fit.fit(table)
    assert found.law is None
    for ax in found.plot("scaling").axes:
        labels = set(ax.get_legend_handles_labels()[1])
        assert {"no parametric law", "IsoFLOP optima", "extrapolation"} <= labels
        assert "power law of optima, 95 %" in labels
        assert "prediction, 95 %" not in labels
    table = runs().iloc[:21].copy()
    table.loc[3, "loss"] = 1e9
    ax = flops_fit.fit(table).plot("scaling").axes[2]  # two optima: no power law of the loss
    assert "IsoFLOP optima" in ax.get_legend_handles_labels()[1]


def test_a_loss_gone_astray_is_an_arrow_and_does_not_set_the_axis(result):
    plain = panels.plot_isoflops(result.runs, result.optima)
    table = result.runs.copy()
    table.loc[3, "loss"] = 1e9
    ax = panels.plot_isoflops(table, result.optima)
    others = table["loss"].drop(index=3)
    low, high = ax.get_ylim()
    assert low < others.min() < others.max() < high
    assert high - low < 1.5 * np.ptp(others)
    (arrow,) = [ln for ln in ax.lines if ln.get_marker() == style.UP and len(ln.get_xdata())]
    assert [tuple(p) for p in arrow.get_xydata()] == [(table.loc[3, "num_params"], high)]
    told = [[text.get_text() for text in a.get_legend().get_texts()] for a in (plain, ax)]
    assert told[1] == [*told[0], "beyond the frame"]


@pytest.mark.parametrize("status", ["failed", "finished"])
def test_an_arrow_leaves_the_panels_their_room_and_adds_no_budget(result, status):
    names = ["num_params", "num_tokens", "loss", "status"]
    astray = {"num_params": 1e4, "num_tokens": 1e5, "loss": 99.0, "status": status}
    table = pd.concat([result.runs.assign(status="finished")[names], pd.DataFrame([astray])])
    found = flops_fit.fit(table)
    assert (found.runs["excluded"] != "").sum() == 1
    plain, figure = result.plot(), found.plot()
    for drawn in (plain, figure):
        drawn.canvas.draw()
    for before, ax in zip(plain.axes, figure.axes, strict=True):
        np.testing.assert_allclose(ax.get_position().size, before.get_position().size, atol=0.03)
        if ax is not figure.axes[0]:
            np.testing.assert_allclose(ax.get_xlim(), before.get_xlim())
    told = [[t.get_text() for t in f.axes[0].get_legend().get_texts()] for f in (plain, figure)]
    assert told[1] == [*told[0], "beyond the frame"]


@pytest.mark.parametrize(
    ("kind", "panels"),
    [
        (None, 4),
        ("isoflops", 1),
        ("scaling", 3),
        ("contours", 1),
        ("residuals", 1),
        ("backtest", 1),
    ],
)
def test_the_figures_of_a_result(result, kind, panels, tmp_path):
    figure = result.plot(kind)
    assert len(figure.axes) == panels
    assert all(ax.get_xlabel() and ax.get_ylabel() for ax in figure.axes)
    figure.savefig(tmp_path / "figure.svg")  # a hostile name is drawn as text
    assert "<script" not in (tmp_path / "figure.svg").read_text()


def test_an_unknown_kind_is_refused(result):
    with pytest.raises(ArgumentError, match="kind: expected one of isoflops, scaling"):
        result.plot("pie")
