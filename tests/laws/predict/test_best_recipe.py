from dataclasses import replace

import numpy as np
import pytest
from recipes import TOKENS, recipe_law, with_pilot

from flops_fit.laws.findings import TUNED_FIT
from flops_fit.laws.predict.best_recipe import recipe_at
from flops_fit.result import Result, fit


@pytest.fixture(scope="module")
def result():
    return fit(with_pilot(), meta={"tokens_per_example": str(TOKENS)}, num_draws=100)


@pytest.fixture(scope="module")
def without(result):
    """The same result without its recipe."""
    return Result(replace(result.findings, recipe_law=None))


def place(tokens):
    """C, N and D of one model."""
    return np.array([6e5 * tokens]), np.array([1e5]), np.array([tokens])


@pytest.mark.parametrize("tokens", [1e5, 3.3e6, 1e9])
def test_the_rate_suits_the_batch_in_whole_examples(tokens):
    law = recipe_law()
    found = {name: float(v[0]) for name, v in recipe_at(law, *place(tokens)).items()}
    best = float(law.batch_size(1e5, tokens))
    assert found["batch_size"] == max(round(best), 1)
    assert found["learning_rate"] == law.learning_rate(1e5, tokens, found["batch_size"])
    for name in ("learning_rate", "batch_size"):
        assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"]


@pytest.mark.parametrize(("tokens", "batch"), [(1e3, 1), (2e4, 1), (5e4, 3), (1e8, 2759)])
def test_a_batch_leaves_a_thousand_steps(tokens, batch):
    values = recipe_law().vector
    flat = np.log(1e-6)  # batches cost nothing
    law = recipe_law(vector=(*values[:3], np.log(400), *values[4:6], flat, values[7]))
    found = recipe_at(law, *place(tokens))
    assert found["batch_size"] == batch
    assert batch == 1 or tokens / TOKENS / batch >= 1000


def test_what_was_given_is_told_where_it_was_the_same_for_all_runs():
    values = recipe_law().vector
    at = place(5e4)
    by_rule = recipe_law(tuned=("learning_rate",))
    names = ("learning_rate", "learning_rate_low", "learning_rate_high")
    assert tuple(recipe_at(by_rule, *at)) == names
    number = replace(by_rule, vector=(*values[:3], np.log(24), 0.0, *values[5:]))
    assert recipe_at(number, *at)["batch_size"] == 24
    rates = recipe_law(tuned=("batch_size",))
    assert tuple(recipe_at(rates, *at)) == ("batch_size", "batch_size_low", "batch_size_high")


def test_a_batch_by_a_rule_follows_it():
    law = recipe_law(tuned=("learning_rate",), batch_rule="deepseek", tokens_per_example=128.0)
    found = recipe_at(law, np.array([2e10, 6e11]), np.array([2e4, 8e4]), np.array([2e5, 1e6]))
    assert list(found["batch_size"]) == [5.0, 16.0]  # 0.292 C^0.3271 tokens
    assert list(found["batch_size_low"]) == list(found["batch_size_high"]) == [5.0, 16.0]


def test_a_prediction_carries_the_recipe(result):
    prediction = result.predict(1e15)
    row = result.chinchilla_table([1e15]).iloc[0]
    N, D = prediction.num_params, prediction.num_tokens
    batch = round(float(result.recipe_law.batch_size(N, D)))
    assert (prediction.batch_size, type(prediction.batch_size)) == (batch, int)
    assert prediction.learning_rate == float(result.recipe_law.learning_rate(N, D, batch))
    for name in ("learning_rate", "batch_size"):
        assert getattr(prediction, name) == row[name]
        assert getattr(prediction, f"{name}_interval") == (row[f"{name}_low"], row[f"{name}_high"])
    text = str(prediction)
    assert f"  learning rate {prediction.learning_rate:.3g} (95 %: " in text
    assert f"  batch         {batch} (95 %: " in text


def test_without_a_recipe_there_is_none(without):
    prediction = without.predict(1e15)
    assert prediction.learning_rate is prediction.batch_size is None
    assert "learning_rate" not in without.chinchilla_table()
    assert "recipe" not in prediction.interval_parts["loss"]
    assert "learning rate" not in str(prediction)


def test_where_no_law_was_fitted_the_power_laws_get_a_recipe_too(result):
    alone = Result(replace(result.findings, law=None, checks=[]))
    prediction = alone.predict(1e15)
    assert np.isnan(prediction.loss_interval[0])
    N, D = prediction.num_params, prediction.num_tokens
    expected = result.recipe_law.learning_rate(N, D, prediction.batch_size)
    assert prediction.learning_rate == float(expected)


def test_what_the_recipe_costs_further_away_widens_the_loss(result, without):
    parts = [result.predict(C).interval_parts["loss"]["recipe"] for C in (1e14, 1e15, 1e17)]
    assert parts[0] < 1e-3
    assert parts[0] < parts[1] < parts[2]
    (low, high), loss = result.predict(1e17).loss_interval, result.predict(1e17).loss
    plain = without.predict(1e17)
    assert loss == plain.loss
    assert high - loss == pytest.approx(np.hypot(plain.loss_interval[1] - loss, parts[2]))
    assert loss - low == pytest.approx(np.hypot(loss - plain.loss_interval[0], parts[2]))
    of_model, as_before = (
        r.predict_loss(plain.num_params, plain.num_tokens).iloc[0] for r in (result, without)
    )
    assert of_model["loss"] == as_before["loss"]
    wider = np.hypot(as_before["loss_high"] - as_before["loss"], parts[2])
    assert of_model["loss_high"] - of_model["loss"] == pytest.approx(wider)


@pytest.mark.parametrize("off", [1.5, 2.0])
def test_what_the_runs_lost_by_their_recipe_is_an_error_of_the_loss(off):
    found = fit(with_pilot(off=off), meta={"tokens_per_example": str(TOKENS)}, num_draws=100)
    prediction = found.predict(1e14)
    part = prediction.interval_parts["loss"]["recipe"] / prediction.loss
    assert part == pytest.approx(0.05 * np.log(off) ** 2, rel=0.25)
    assert prediction.interval_parts["log_num_params"]["recipe"] < 0.02


def test_the_size_is_as_uncertain_as_it_moves_with_the_best_recipe(result):
    law, tuned = result.law, result.fits[TUNED_FIT].law
    moved = abs(np.log(tuned.n_opt(1e16) / law.n_opt(1e16)))
    parts = result.predict(1e16).interval_parts["log_num_params"]
    assert parts["recipe"] == pytest.approx(moved)
    low, high = result.predict(1e16).num_params_interval
    whole = np.log(high / low) / 2
    assert whole**2 == pytest.approx(sum(part**2 for part in parts.values()))
    given = result.predict(1e16, tokens_per_param=20)
    assert given.num_params_interval == (given.num_params, given.num_params)
