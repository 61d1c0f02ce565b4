"""Sweeps that grow while they run: the pilot, the grid by what it finds, and the check."""

import math
import re

import numpy as np
import pytest
from pilots import FOUND, planted_recipe
from sweeps import LAW, UNLIMITED, data, sweep

import flops_fit
from flops_fit import tracking
from flops_fit.errors import FlopsFitWarning
from flops_fit.sweep.execution import worker
from flops_fit.sweep.execution.driver import join_sweep

DECADE = [6e7, 1.3e8, 2.8e8, 6e8]


@pytest.fixture
def grown(store, planted):
    """A finished sweep by default, on planted losses."""
    planted.recipe = planted_recipe(rate=0.05)
    return sweep(store, DECADE, recipe=FOUND, extend=False)


def test_the_recipe_is_found_and_followed(grown, planted):
    runs = grown.runs
    assert list(runs["role"].unique()) == ["pilot", "sweep", "check"] or set(runs["role"]) == {
        "pilot", "sweep", "check",
    }  # fmt: skip
    assert set(runs.loc[runs["role"] == "sweep", "excluded"]) == {""}
    assert (runs.loc[runs["role"] != "sweep", "excluded"] != "").all()
    N, D = grown.recipe_law.centre
    low, high = grown.recipe_law.learning_rate_interval(N, D)
    assert low < planted.recipe.learning_rate(N, D) < high
    for name in ("alpha", "beta"):
        assert getattr(grown.law, name) == pytest.approx(getattr(LAW, name), rel=0.1)


def test_nothing_is_trained_twice(grown, planted, store):
    assert len(planted.trained) == len(set(planted.trained))
    trained = list(planted.trained)
    sweep(store, DECADE, recipe=FOUND, extend=False)
    assert planted.trained == trained


@pytest.mark.parametrize("stop_after", [2, 30, 55])
def test_a_sweep_that_is_stopped_goes_on(store, planted, monkeypatch, stop_after):
    """In the pilot, in the grid, and near the check."""
    planted.recipe = planted_recipe(rate=0.05)

    def stop_there(*args, **options):
        if len(planted.trained) == stop_after:
            raise KeyboardInterrupt
        return planted(*args, **options)

    monkeypatch.setattr(worker, "train", stop_there)
    with pytest.raises(KeyboardInterrupt, match="trials are done"):
        sweep(store, DECADE, recipe=FOUND, extend=False)
    monkeypatch.setattr(worker, "train", planted)
    result = sweep(store, DECADE, recipe=FOUND, extend=False)
    assert len(planted.trained) == len(set(planted.trained)) == len(result.runs)


def test_roles_are_tags_and_recipes_params_of_the_runs(grown, store):
    ledger = tracking.find_ledger("planted", f"sqlite:///{store}/mlflow.db")
    found = {run.data.tags[tracking.ledger.ROLE] for run in tracking.trial_runs(ledger)}
    assert found == {"pilot", "sweep", "check"}
    assert all(run.data.params["batch_size"] for run in tracking.trial_runs(ledger))


def test_the_plan_shows_what_was_found(grown, store, planted):
    from sweeps import Net  # the class of the sweep

    plan = flops_fit.plan_sweep(
        Net, "width", dataset=data(), loss_fn=__import__("torch").nn.functional.cross_entropy,
        compute_budgets=DECADE, recipe=FOUND, name="planted",
        tracking_uri=f"sqlite:///{store}/mlflow.db",
    )  # fmt: skip
    assert plan.found is not None
    assert not plan.to_do
    assert "as the pilot found them" in repr(plan)


def test_a_sweep_by_the_former_default_is_recognised(store, planted):
    sweep(store, DECADE, recipe=UNLIMITED, extend=False)
    with pytest.warns(FlopsFitWarning, match=re.escape('Recipe(learning_rate="deepseek"')):
        sweep(store, DECADE, recipe=FOUND, extend=False)
    trained = len(planted.trained)
    by_rule = flops_fit.Recipe(learning_rate="deepseek", batch_size="deepseek", max_epochs=1e9)
    with pytest.warns(FlopsFitWarning, match="since its last call something changed"):
        result = sweep(store, DECADE, recipe=by_rule, extend=False)
    assert len(planted.trained) == trained
    assert len(result.runs) == 28


def test_a_pilot_whose_trials_all_diverge_falls_back_on_the_rule(store, monkeypatch, planted):
    from flops_fit.errors import DivergedError

    def diverge(task, source, trial, *args):
        if trial.role == "pilot":
            raise DivergedError("the loss is not finite")
        return planted(task, source, trial, *args)

    monkeypatch.setattr(worker, "train", diverge)
    with pytest.warns(FlopsFitWarning, match="have no loss"):
        result = sweep(store, DECADE, recipe=FOUND, extend=False)
    rates = result.runs.loc[result.runs["role"] == "sweep", "learning_rate"]
    C = result.runs.loc[result.runs["role"] == "sweep", "compute_budget"]
    np.testing.assert_allclose(rates, 0.3118 * C**-0.125)
    assert result.recipe_law is None
    assert math.isnan(result.runs.loc[result.runs["role"] == "pilot", "loss"].min())


def test_a_worker_that_joins_a_finished_sweep_finds_nothing(grown, store, monkeypatch, capsys):
    from pilots import stages_of
    from sweeps import plan_of

    from flops_fit.sweep.execution import status
    from flops_fit.sweep_setup import join_job
    from flops_fit.tracking.address import StoreAddress

    monkeypatch.setattr(status, "BEGIN_S", 0.01)
    task, planned = plan_of(tuple(DECADE), None, FOUND)
    address = StoreAddress("planted", f"sqlite:///{store}/mlflow.db")
    join_sweep(join_job(task, planned, address), stages=stages_of(tuple(DECADE)))
    assert "Nothing waits" in capsys.readouterr().err
