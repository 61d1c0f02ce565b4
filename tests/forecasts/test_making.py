"""Making a forecast: what it holds is what the result predicts."""

from dataclasses import replace

import numpy as np
import pytest
from planted import BUDGETS, runs

from flops_fit.errors import ArgumentError, FitError, FlopsFitWarning
from flops_fit.fit_table import fit
from flops_fit.forecasts.making import data_digest, is_same, make_forecast
from flops_fit.laws.check import Check


@pytest.fixture(scope="module")
def result():
    return fit(runs(), num_draws=100, name="gpt", meta={"data_unit": "words", "setting": "ab"})


def test_a_budget_is_forecast_as_it_is_predicted(result):
    made, predicted = make_forecast(result.findings, 1e15), result.predict(1e15)
    for name in ("num_params", "num_tokens", "loss", "size", "loss_interval", "extrapolation"):
        assert getattr(made, name) == getattr(predicted, name)
    assert made.num_params_interval == predicted.num_params_interval
    assert made.run_interval == predicted.new_run_interval
    assert (made.of_budget, made.name, made.data_unit, made.setting) == (True, "gpt", "words", "ab")


def test_a_model_is_forecast_as_its_loss_is_predicted(result):
    made = make_forecast(result.findings, num_params=1e5, num_tokens=1e9, note="large")
    row = result.predict_loss(1e5, 1e9).iloc[0]
    assert (made.loss, *made.loss_interval) == (row["loss"], row["loss_low"], row["loss_high"])
    assert made.run_interval == (row["run_low"], row["run_high"])
    assert made.compute_budget == pytest.approx(6e14, rel=1e-9)
    assert (made.num_params_interval, made.num_tokens_interval) == (None, None)
    assert (made.of_budget, made.note) == (False, "large")


def test_the_law_behind_it_is_kept(result):
    made = make_forecast(result.findings, 1e15)
    assert made.form == result.fits["headline"].form
    np.testing.assert_array_equal(made.law_vector, result.law.vector)
    assert len(made.law_vector) == 6
    assert made.num_runs == len(result.findings.fitted_runs)


def test_the_hash_of_the_data_changes_with_any_loss_and_not_with_the_order():
    table = runs()
    assert data_digest(table) == data_digest(table.sample(frac=1, random_state=0))
    other = table.copy()
    other.loc[3, "loss"] *= 1 + 1e-12
    assert data_digest(other) != data_digest(table)


@pytest.mark.parametrize(
    ("arguments", "known"),
    [
        ({"compute_budget": 1e15}, False),
        ({"compute_budget": float(BUDGETS[-1])}, True),
        ({"num_params": 1e5, "num_tokens": 1e9}, False),
    ],
)
def test_runs_that_the_data_held_are_counted(result, arguments, known):
    assert bool(make_forecast(result.findings, **arguments).known_runs) is known


@pytest.mark.parametrize(("factor", "known"), [(1.04, 1), (0.96, 1), (1.06, 0)])
def test_a_run_within_five_per_cent_was_known(result, factor, known):
    run = result.findings.fitted_runs.iloc[0]
    N, D = float(run["num_params"]) * factor, float(run["num_tokens"])
    assert make_forecast(result.findings, num_params=N, num_tokens=D).known_runs == known


def test_sizes_are_the_same_within_five_per_cent_either_way():
    found = is_same([94, 95.5, 100, 105, 106, np.nan, 0], 100)
    assert found.tolist() == [False, True, True, True, False, False, False]


@pytest.mark.parametrize(
    ("arguments", "problems"),
    [
        ({}, ["give compute_budget, or num_params and num_tokens together"]),
        ({"num_params": 1e5}, ["give compute_budget"]),
        ({"compute_budget": 1e15, "num_params": 1e5, "num_tokens": 1e9}, ["give compute_budget"]),
        ({"compute_budget": "1e15", "note": 3}, ["compute_budget: expected", "note: expected"]),
        ({"num_params": -1, "num_tokens": np.nan}, ["num_params: expected", "num_tokens: expect"]),
    ],
)
def test_bad_arguments_are_listed_together(result, arguments, problems):
    with pytest.raises(ArgumentError) as caught:
        make_forecast(result.findings, **arguments)
    found = caught.value.problems
    assert len(found) == len(problems)
    assert all(words in problem for words, problem in zip(problems, found, strict=True))


def test_without_a_law_there_is_no_forecast():
    with pytest.raises(FitError, match=r"a forecast needs a law with intervals: .* needs 8"):
        make_forecast(fit(runs().iloc[:7]).findings, 1e13)


@pytest.mark.parametrize(
    "arguments", [{"compute_budget": 1e16}, {"num_params": 1e6, "num_tokens": 1e10}]
)
def test_what_may_not_be_predicted_is_not_forecast(result, arguments):
    refusal = Check("wide-exponent", "refuse", "too wide.", "Stop.")
    withheld = replace(result.findings, checks=[refusal])
    with pytest.raises(FitError, match="beyond the largest budget"):
        make_forecast(withheld, **arguments)


@pytest.mark.parametrize(
    ("arguments", "doubt"),
    [
        ({"compute_budget": 1e17}, "times the largest one"),
        ({"num_params": 1e5, "num_tokens": 1e11}, "times the largest one"),
        ({"num_params": 1e9, "num_tokens": 1e3}, "num_params is"),
    ],
)
def test_a_forecast_far_beyond_the_runs_is_warned_of(result, arguments, doubt):
    with pytest.warns(FlopsFitWarning, match=f"the forecast: warn: .*{doubt}"):
        make_forecast(result.findings, **arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        {"compute_budget": 10**400},
        {"num_params": 10**400, "num_tokens": 1e9},
        {"num_params": 1e200, "num_tokens": 1e200},
        {"compute_budget": 1e305},
    ],
)
def test_numbers_that_overflow_are_no_forecast(result, arguments):
    with pytest.raises(ArgumentError, match=r"expected"):
        make_forecast(result.findings, **arguments, anyway=True)


@pytest.mark.parametrize("note", ["a" * 2001, "\ud800", "fine\udfff", None, 3])
def test_notes_are_unicode_of_bounded_length(result, note):
    with pytest.raises(ArgumentError, match="note: expected Unicode text of at most 2,000 char"):
        make_forecast(result.findings, 1e15, note=note)


@pytest.mark.parametrize("note", ["", "a" * 2000, "two\nlines \x1b[31m"])
def test_other_notes_are_kept_whole_and_shown_in_a_line(result, note):
    made = make_forecast(result.findings, 1e15, note=note)
    assert made.note == note
    assert max(map(len, str(made).splitlines())) < 320
    assert "\x1b" not in str(made)
