from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from named_laws import bent

from flops_fit.laws.fitting.parametric import fit_parametric
from flops_fit.laws.inference.repetition_constants import measure_repetition, unique_tokens
from flops_fit.laws.model.arrays import FADING, PARAMS_FADING
from flops_fit.laws.model.repetition_law import RepetitionLaw
from flops_fit.laws.runs.points import Points
from flops_fit.result import Result, fit

R_D, R_N = 8.0, 3.0


@pytest.fixture
def repeated(sweep, small):
    """A function that simulates a sweep on a given number of unique tokens."""

    def make(unique=3e6, r_data=R_D, r_params=np.inf, noise=0.003, seed=0):
        runs = sweep()
        U = np.full(len(runs), unique)
        law = RepetitionLaw(small, r_data, r_params)
        error = np.random.default_rng(seed).normal(0, noise, len(runs))
        loss = law.loss(runs["num_params"], runs["num_tokens"], U) * np.exp(error)
        return runs.assign(loss=loss, unique_tokens=U)

    return make


def by_epochs(runs):
    return runs.assign(epochs=runs["num_tokens"] / runs["unique_tokens"]).drop(
        columns="unique_tokens"
    )


def codes(result):
    return {check.code: check for check in result.checks}


def test_unique_tokens_are_read_from_either_column(repeated):
    runs = repeated()
    expected = np.minimum(runs["num_tokens"], 3e6)
    np.testing.assert_allclose(unique_tokens(runs), expected)
    np.testing.assert_allclose(unique_tokens(by_epochs(runs)), expected)
    assert unique_tokens(repeated(unique=1e12)) is None
    some = runs.assign(unique_tokens=runs["unique_tokens"].where(runs.index > 3))
    np.testing.assert_allclose(unique_tokens(some)[:4], runs["num_tokens"][:4])


def test_fit_recovers_a_planted_constant(repeated, small):
    result = fit(repeated(noise=0.0))
    assert result.intervals.loc["R_D*", "value"] == pytest.approx(R_D, rel=1e-5)
    assert result.law.a == pytest.approx(small.a, abs=1e-6)
    assert "excess-parameters" not in codes(result)


def test_fit_recovers_both_planted_constants(repeated, small):
    result = fit(repeated(noise=0.0, r_params=R_N))
    assert result.intervals.loc["R_D*", "value"] == pytest.approx(R_D, rel=1e-5)
    assert result.intervals.loc["R_N*", "value"] == pytest.approx(R_N, rel=1e-5)
    for name in ("E", "A", "B", "alpha", "beta"):
        assert getattr(result.law, name) == pytest.approx(getattr(small, name), rel=1e-5)
    expected = RepetitionLaw(small, R_D, R_N).optimum(1e15, 3e6)
    found = result.predict(1e15, unique_tokens=3e6)
    assert (found.num_params, found.num_tokens, found.loss) == pytest.approx(expected, rel=1e-4)
    assert [check.code for check in found.checks] == ["data-worn-out"]  # seen 28 times
    under = result.predict(1e14, tokens_per_param=1)
    N, D = under.num_params, under.num_tokens
    assert under.loss == pytest.approx(RepetitionLaw(small, R_D, R_N).loss(N, D, D), rel=1e-5)


@pytest.mark.slow
def test_excess_parameters_that_fade_are_fitted_with_the_law(repeated, small):
    runs = repeated(r_params=R_N)
    runs.loc[9, "loss"] *= 1.1
    result = fit(runs)
    assert result.runs.index[result.runs["excluded"] != ""].tolist() == [9]
    row = result.intervals.loc["R_N*"]
    assert row["low"] < R_N < row["high"]
    assert result.law.a == pytest.approx(small.a, abs=0.02)
    assert "R_N* = " in codes(result)["effective-tokens"].message
    assert "excess-parameters" not in codes(result)
    (spread,) = result.findings.spreads
    assert spread.centre[PARAMS_FADING] == pytest.approx(1 / row["value"])
    assert "R_N*" not in fit(repeated()).intervals.index
    assert "R_N*" not in fit(repeated(unique=1e12)).intervals.index


@pytest.mark.slow
def test_a_fit_that_counts_fading_parameters_in_full_warns(repeated):
    for options in ({"form": "tied"}, {"delta": 1e-3}):
        check = codes(fit(repeated(r_params=R_N), num_draws=100, **options))["excess-parameters"]
        assert check.severity == "warn"
        assert "R_N* near 3" in check.message or "R_N* near 2" in check.message
    assert "excess-parameters" not in codes(fit(repeated(), form="tied"))


@pytest.mark.slow
def test_joint_intervals_are_those_of_refits(repeated):
    """The delta method's spread of seven parameters, against simulated sweeps."""
    a, cap = [], []
    for seed in range(25):
        result = fit(repeated(r_params=R_N, seed=seed), num_draws=100)
        a.append(result.law.a)
        cap.append(np.log(result.predict(1e15, unique_tokens=3e6).num_params))
    low, high = result.predict(1e15, unique_tokens=3e6).num_params_interval
    expected = [result.intervals.loc["a", "standard_error"], np.log(high / low) / 4.1]
    np.testing.assert_allclose([np.std(a), np.std(cap)], expected, rtol=0.35)


def test_epochs_alone_determine_the_constant(repeated):
    runs = repeated()
    by_tokens, alone = fit(runs), fit(by_epochs(runs))
    assert alone.law.a == pytest.approx(by_tokens.law.a, rel=1e-6)
    assert (alone.runs["excluded"] == "").all()
    assert codes(alone)["many-epochs"].severity == "warn"
    assert "fitted to these runs" in codes(alone)["effective-tokens"].message


def test_an_outlier_does_not_set_the_constant(repeated):
    runs = repeated(seed=3)
    runs.loc[0, "loss"] *= 1.3  # the run with the most epochs
    with_outlier = fit(runs)
    assert with_outlier.runs.loc[0, "excluded"].startswith("outlier")
    without = fit(runs.drop(index=0))
    for result in (with_outlier, without):
        assert result.intervals.loc["R_D*", "value"] == pytest.approx(R_D, rel=0.2)
        assert result.law.a == pytest.approx(0.30 / 0.65, abs=0.02)


def test_with_few_epochs_the_published_constants_are_used_and_noted(repeated):
    result = fit(repeated(unique=3e7, r_data=15.39))
    assert "R_D*" not in result.intervals.index
    assert "R_D* = 15.39 (of Muennighoff et al. 2023, not fitted)" in (
        codes(result)["effective-tokens"].message
    )
    (note,) = result.predict(1e15, unique_tokens=1e7).checks
    assert note.code == "repetition-assumed"
    assert "R_D* = 15.39 and R_N* = 5.31" in note.message
    assert "leaves their uncertainty out" in note.message
    assert result.predict(1e15, unique_tokens=1e12).checks == ()


def test_a_fitted_constant_widens_predictions(repeated):
    result = fit(repeated())
    assert result.predict(1e15, unique_tokens=1e6).checks == ()
    (spread,) = result.findings.spreads
    assert spread.centre.shape == (7,)
    known = spread.draws["wild"].copy()
    known[:, FADING] = spread.centre[FADING]
    law = RepetitionLaw(result.law, r_params=np.inf)
    args = (np.array([1e15]), 1e6)
    widths = [law.capped(rows, *args)[2].std() for rows in (spread.draws["wild"], known)]
    assert abs(widths[0] / widths[1] - 1) > 0.05
    assert result.intervals.loc["R_D*", "low"] < R_D < result.intervals.loc["R_D*", "high"]


def test_runs_that_do_not_determine_r_params_use_the_published_constant(repeated):
    result = fit(repeated(), delta=1e-3, num_draws=100)
    *_, note = result.predict(1e15, unique_tokens=1e6).checks
    assert note.message.startswith("R_N* = 5.31 of Muennighoff et al. 2023, not fitted")
    assert result.findings.repetition.r_params == 5.31


def test_no_fading_is_an_infinite_constant(repeated):
    row = fit(repeated(unique=1e6, r_data=1e9)).intervals.loc["R_D*"]
    assert row["high"] == np.inf
    assert row["low"] > 50


def test_one_run_of_many_epochs_is_not_enough(sweep, small):
    runs = sweep(noise=0.002)
    points = Points.from_runs(runs)
    one = np.where(runs.index == 4, points.D / 20, points.D)
    for unique in (one, points.D / 3):
        assert measure_repetition(replace(points, unique=unique), small, None) is None


@pytest.mark.slow
@pytest.mark.parametrize("r_params", [np.inf, R_N])
def test_intervals_cover_under_repetition(repeated, small, r_params):
    """Intervals of a, R_D*, N and loss under a cap, and R_N* if it is fitted, in 60 sweeps."""
    best_N, _, best_loss = RepetitionLaw(small, R_D, r_params).optimum(1e15, 3e6)
    held = []
    for seed in range(60):
        result = fit(repeated(seed=seed, r_params=r_params), num_draws=300)
        capped = result.predict(1e15, unique_tokens=3e6)
        ends = [
            (small.a, *result.intervals.loc["a", ["low", "high"]]),
            (R_D, *result.intervals.loc["R_D*", ["low", "high"]]),
        ]
        ends += [(best_N, *capped.num_params_interval), (best_loss, *capped.loss_interval)]
        if np.isfinite(r_params):
            ends.append((R_N, *result.intervals.loc["R_N*", ["low", "high"]]))
        held.append([low <= truth <= high for truth, low, high in ends])
    assert (np.mean(held, axis=0) >= 0.87).all()


@pytest.mark.parametrize("r_params", [np.inf, R_N])
def test_a_repeated_sweep_survives_its_archive(repeated, tmp_path, r_params):
    result = fit(repeated(r_params=r_params))
    result.save(tmp_path)
    again = Result.load(tmp_path)
    assert again.findings.repetition == result.findings.repetition
    for terms in ({}, {"unique_tokens": 1e6}):
        assert again.predict(1e15, **terms) == result.predict(1e15, **terms)
    pd.testing.assert_frame_equal(again.intervals, result.intervals)


def test_losses_of_any_sign_use_the_published_constant(repeated):
    runs = repeated()
    result = fit(runs.assign(loss=runs["loss"] - 3.0))
    assert result.findings.repetition.fading_error is None
    law = fit_parametric(Points.from_runs(runs)).law
    assert result.law.a != pytest.approx(law.a, abs=1e-3)


@pytest.mark.parametrize("r_params", [np.inf, R_N])
def test_constants_are_fitted_together_with_gamma(sweep, small, r_params):
    law = bent(small, 0.5)
    runs = sweep(budgets=7, sizes=9)
    U = np.full(len(runs), 3e6)
    truth = RepetitionLaw(law, R_D, r_params)
    loss = truth.loss(runs["num_params"], runs["num_tokens"], U)
    noise = np.exp(np.random.default_rng(1).normal(0, 0.0005, len(runs)))
    result = fit(runs.assign(loss=loss * noise, unique_tokens=U), form="bent", num_draws=100)
    row = result.intervals.loc[["gamma", "R_D*"]]
    assert ((row["low"] < [0.5, R_D]) & (row["high"] > [0.5, R_D])).all()
    assert ("R_N*" in result.intervals.index) == np.isfinite(r_params)
    (spread,) = result.findings.spreads
    assert spread.form == "bent"
    assert spread.centre.shape == (7 + np.isfinite(r_params),)
    expected = truth.optimum(1e15, 3e6)
    found = result.predict(1e15, unique_tokens=3e6)
    assert found.num_params == pytest.approx(expected[0], rel=0.1)
    assert found.loss == pytest.approx(expected[2], rel=0.005)


def test_predictions_from_repeated_data_follow_one_form(repeated):
    """Effective tokens are those of one law: another form would see other runs."""
    runs = repeated()
    runs["loss"] *= np.exp(np.random.default_rng(0).normal(0, 0.01, len(runs)))
    findings = fit(runs, num_draws=100).findings
    assert findings.repetition is not None
    (law,) = findings.misfit.laws
    assert law.fit == findings.fits["headline"]
