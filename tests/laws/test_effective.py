import numpy as np
import pandas as pd
import pytest

from flops_fit.laws.effective import measure_repetition, unique_tokens
from flops_fit.laws.parametric import fit_parametric
from flops_fit.laws.repetition import RepetitionLaw
from flops_fit.result import Result, fit

R_D, R_N = 8.0, 3.0


@pytest.fixture
def repeated(sweep, small):
    """A function that simulates a sweep on so many unique tokens."""

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


def test_planted_constant_comes_through_the_front_door(repeated, small):
    result = fit(repeated(noise=0.0))
    assert result.intervals.loc["R_D*", "value"] == pytest.approx(R_D, rel=1e-5)
    assert result.law.a == pytest.approx(small.a, abs=1e-6)
    assert "excess-parameters" not in codes(result)


def test_excess_parameters_that_fade_are_told(repeated):
    check = codes(fit(repeated(r_params=R_N)))["excess-parameters"]
    assert check.severity == "warn"
    assert "R_N* near 3" in check.message or "R_N* near 2" in check.message
    assert "excess-parameters" not in codes(fit(repeated()))


def test_epochs_alone_are_enough_where_they_tell(repeated):
    runs = repeated()
    by_tokens, alone = fit(runs), fit(by_epochs(runs))
    assert alone.law.a == pytest.approx(by_tokens.law.a, rel=1e-6)
    assert (alone.runs["excluded"] == "").all()
    assert codes(alone)["many-epochs"].severity == "warn"
    assert "fitted to these runs" in codes(alone)["effective-tokens"].message


def test_an_outlier_does_not_set_the_constant(repeated):
    runs = repeated(seed=3)
    runs.loc[0, "loss"] *= 1.3  # the run of most epochs
    spoilt = fit(runs)
    assert spoilt.runs.loc[0, "excluded"].startswith("outlier")
    without = fit(runs.drop(index=0))
    for result in (spoilt, without):
        assert result.intervals.loc["R_D*", "value"] == pytest.approx(R_D, rel=0.2)
        assert result.law.a == pytest.approx(0.30 / 0.65, abs=0.02)


def test_few_epochs_take_the_published_constants_and_say_so(repeated):
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


def test_a_fitted_constant_widens_what_is_predicted(repeated):
    result = fit(repeated())
    (note,) = result.predict(1e15, unique_tokens=1e6).checks
    assert "R_D*" not in note.message
    (spread,) = result.findings.spreads
    assert spread.centre.shape == (6,)
    known = spread.draws["wild"].copy()
    known[:, 5] = spread.centre[5]
    law = RepetitionLaw(result.law)
    args = (np.array([1e15]), result.law.cost, 1e6)
    widths = [law.capped(rows, *args)[2].std() for rows in (spread.draws["wild"], known)]
    assert abs(widths[0] / widths[1] - 1) > 0.05
    assert result.intervals.loc["R_D*", "low"] < R_D < result.intervals.loc["R_D*", "high"]


def test_no_fading_is_an_infinite_constant(repeated):
    row = fit(repeated(unique=1e6, r_data=1e9)).intervals.loc["R_D*"]
    assert row["high"] == np.inf
    assert row["low"] > 50


def test_one_run_of_many_epochs_is_not_enough(sweep, small):
    runs = sweep(noise=0.002)
    N, D, loss = (runs[c].to_numpy() for c in ("num_params", "num_tokens", "loss"))
    U = np.where(runs.index == 4, D / 20, D)
    assert measure_repetition(N, D, loss, U, small, None) is None
    assert measure_repetition(N, D, loss, D / 3, small, None) is None


@pytest.mark.slow
def test_intervals_cover_under_repetition(repeated, small):
    """Of a, R_D* and the loss under a cap, in 60 sweeps; 95 % are hoped for."""
    truth = RepetitionLaw(small, R_D).optimum(1e15, 3e6)[2]
    held = []
    for seed in range(60):
        result = fit(repeated(seed=seed), num_draws=300)
        table = result.intervals
        low, high = result.predict(1e15, unique_tokens=3e6).loss_interval
        held.append(
            [
                table.loc["a", "low"] <= small.a <= table.loc["a", "high"],
                table.loc["R_D*", "low"] <= R_D <= table.loc["R_D*", "high"],
                low <= truth <= high,
            ]
        )
    assert (np.mean(held, axis=0) >= 0.87).all()


def test_a_repeated_sweep_survives_its_archive(repeated, tmp_path):
    result = fit(repeated())
    result.save(tmp_path)
    again = Result.load(tmp_path)
    assert again.findings.repetition == result.findings.repetition
    for terms in ({}, {"unique_tokens": 1e6}):
        assert again.predict(1e15, **terms) == result.predict(1e15, **terms)
    pd.testing.assert_frame_equal(again.intervals, result.intervals)


def test_losses_of_any_sign_take_the_published_constant(repeated):
    runs = repeated()
    result = fit(runs.assign(loss=runs["loss"] - 3.0))
    assert result.findings.repetition.fading_error is None
    law = fit_parametric(*(runs[c] for c in ("num_params", "num_tokens", "loss"))).law
    assert result.law.a != pytest.approx(law.a, abs=1e-3)
