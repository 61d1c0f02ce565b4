import numpy as np
import pandas as pd
import pytest
from recipes import TOKENS, recipe_law, with_pilot

from flops_fit.laws.model.recipe_rules import batch_by_rule
from flops_fit.laws.pipeline.found_recipe import (
    find_recipe,
    recipe_cells,
    tokens_per_example,
    tuned_in,
)
from flops_fit.laws.runs.table import read_runs
from flops_fit.result import fit

META = {"tokens_per_example": str(TOKENS)}


@pytest.fixture(scope="module")
def table():
    return with_pilot(noise=0.0)


@pytest.fixture(scope="module")
def result(table):
    return fit(table, meta=META, num_draws=100)


def test_cells_are_pilot_and_check_and_the_sweeps_own_that_were_checked(table):
    cells = recipe_cells(read_runs(table)[0])
    assert cells["role"].value_counts().to_dict() == {"pilot": 45, "check": 8, "sweep": 2}


def test_a_diverged_cell_counts_without_a_loss_and_one_that_failed_does_not(table):
    pilot = table.index[table["role"] == "pilot"]
    states = {pilot[0]: "diverged", pilot[1]: "failed", pilot[2]: "planned"}
    state = ["complete" if i not in states else states[i] for i in table.index]
    loss = table["loss"].mask(table.index.isin(list(states)))
    cells = recipe_cells(read_runs(table.assign(state=state, loss=loss))[0])
    assert len(cells) == 55 - 2
    assert cells["loss"].isna().sum() == 1


@pytest.mark.parametrize("tuned", [("learning_rate",), ("batch_size",), ()])
def test_what_the_pilot_did_not_vary_was_not_tuned(table, tuned):
    for name in {"learning_rate", "batch_size"} - set(tuned):
        table = table.assign(**{name: 0.01 if name == "learning_rate" else 4})
    runs = read_runs(
        table.drop_duplicates(
            ["compute_budget", "num_params", "learning_rate", "batch_size", "role"]
        )
    )[0]
    assert tuned_in(recipe_cells(runs)) == tuned
    law = find_recipe(runs, 1.0)
    assert (law is None) == (not tuned)
    assert law is None or law.tuned == tuned


def test_the_planted_recipe_is_found(result):
    law, planted = result.recipe_law, recipe_law()
    assert law.tokens_per_example == TOKENS
    for N, D in ((1e5, 1e6), (1e6, 2e7)):
        assert law.learning_rate(N, D) == pytest.approx(planted.learning_rate(N, D), rel=0.05)
        assert law.batch_size(N, D) == pytest.approx(planted.batch_size(N, D), rel=0.1)


def test_the_laws_of_the_loss_are_those_of_the_sweeps_own_runs(table, result):
    alone = fit(table[table["role"] == "sweep"], num_draws=100)
    assert alone.recipe_law is None
    assert result.law == alone.law
    assert result.checks == alone.checks
    pd.testing.assert_frame_equal(result.optima, alone.optima)


def test_runs_that_are_all_off_alike_move_the_loss_and_not_the_size(result):
    off = fit(with_pilot(noise=0.0, off=1.5), meta=META, num_draws=100)
    C = np.array([1e12, 1e14])
    assert off.law.loss(1e6, 1e7) > 1.002 * result.law.loss(1e6, 1e7)
    tuned = off.fits["best recipe"].law
    assert tuned.n_opt(C) == pytest.approx(result.law.n_opt(C), rel=0.02)
    # Of the part of the loss that can be reduced; E is the same for all.
    assert tuned.loss(1e6, 1e7) == pytest.approx(result.law.loss(1e6, 1e7), rel=0.004)


@pytest.mark.parametrize("text", ["", "many", "-3", "nan"])
def test_metadata_that_do_not_tell_the_length_of_an_example(text):
    assert tokens_per_example({"tokens_per_example": text}) == 1
    assert tokens_per_example({}) == 1
    assert tokens_per_example({"tokens_per_example": "64.5"}) == 64.5


def test_batches_that_follow_a_rule_are_told_at_other_budgets(table):
    one = table[table["role"] != "check"].copy()
    one["batch_size"] = [
        batch_by_rule("deepseek", *place, "tokens", TOKENS)
        for place in one[["compute_budget", "num_params", "num_tokens"]].to_numpy(float)
    ]
    law = find_recipe(read_runs(one)[0], TOKENS)
    assert (law.tuned, law.batch_rule) == (("learning_rate",), "deepseek")
