"""Sweeps that grow while they run: the pilot, the grid by what it finds, and the check."""

import itertools
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from pilots import FOUND, planted_recipe
from sweeps import Net, SmallSweep, data, plan_of

import flops_fit
from flops_fit import tracking
from flops_fit.errors import DivergedError, FlopsFitWarning
from flops_fit.prepare import stages, with_pilot
from flops_fit.runtime import polling
from flops_fit.sweep.execution import status, trial_queue, worker
from flops_fit.sweep.execution.driver import join_sweep, run_sweep
from flops_fit.sweep_setup import join_job, open_job
from flops_fit.tracking.address import StoreAddress

BUDGETS = (6e7, 2.4e8)
SIZES = (50, 100, 200, 400)


class Growing:
    """A sweep of two budgets and four sizes whose recipe is to be found, on planted losses."""

    def __init__(self, folder, recipe=FOUND, sizes=SIZES):
        self.folder, self.address = folder, StoreAddress("planted", f"sqlite:///{folder}/mlflow.db")
        self.task, planned = plan_of(BUDGETS, sizes, recipe)
        self.planned = with_pilot(planned)

    def run(self):
        """Run what is missing, and return a run for each trial."""
        job = open_job(self.task, self.planned, self.address)
        run_sweep(job, source=self.planned.source, stages=stages(self.planned))
        return tracking.fetch_runs(job.ledger, self.planned.plan.setting)


def of_role(runs, role):
    return [run for run in runs if run.role == role]


@pytest.fixture
def growing(store, planted):
    planted.recipe = planted_recipe(rate=0.05)
    return Growing(store)


@pytest.mark.slow
def test_the_recipe_is_found_followed_and_nothing_is_trained_twice(growing, planted, capsys):
    runs = growing.run()
    assert {run.role for run in runs} == {"pilot", "sweep"}  # too small a sweep to be checked
    assert len(of_role(runs, "sweep")) >= 8
    for run in of_role(runs, "sweep"):
        excess = planted.recipe.excess(
            run.num_params, run.num_tokens, run.learning_rate, run.batch_size
        )
        assert excess < 0.03
    assert len(planted.trained) == len(set(planted.trained)) == len(runs)
    assert "Pilot (" in capsys.readouterr().err
    assert growing.run() == runs
    assert len(planted.trained) == len(runs)


@pytest.mark.slow
@pytest.mark.parametrize("stop_after", [2, 22])
def test_a_sweep_that_is_stopped_goes_on(growing, planted, monkeypatch, stop_after):
    """In the pilot, and in the grid."""

    def stop_there(*args, **options):
        if len(planted.trained) == stop_after:
            raise KeyboardInterrupt
        return planted(*args, **options)

    monkeypatch.setattr(worker, "train", stop_there)
    with pytest.raises(KeyboardInterrupt, match=r"trials (known so far )?are done"):
        growing.run()
    monkeypatch.setattr(worker, "train", planted)
    runs = growing.run()
    assert len(planted.trained) == len(set(planted.trained)) == len(runs)


@pytest.mark.slow
def test_what_an_abandoned_plan_left_in_the_queue_is_not_trained(growing, planted, monkeypatch):
    def stop_there(*args, **options):
        if len(planted.trained) == 3:
            raise KeyboardInterrupt
        return planted(*args, **options)

    monkeypatch.setattr(worker, "train", stop_there)
    with pytest.raises(KeyboardInterrupt):
        growing.run()
    monkeypatch.setattr(worker, "train", planted)
    other = Growing(growing.folder, sizes=(60, 120, 240, 480))
    runs = other.run()
    sizes = {run.size for run in runs if run.state == "complete"}
    assert len(sizes - {60, 120, 240, 480}) <= 1  # of the first pilot's, as far as it was trained


@pytest.mark.slow
def test_a_sweep_by_the_former_default_is_recognised(store, planted):
    by_rule = flops_fit.Recipe(max_epochs=1e9, pilot=False)
    SmallSweep(store, budgets=BUDGETS, sizes=SIZES, recipe=by_rule).run()
    with pytest.warns(FlopsFitWarning, match=re.escape('Recipe(learning_rate="deepseek"')):
        Growing(store).run()
    trained = len(planted.trained)
    named = flops_fit.Recipe(learning_rate="deepseek", batch_size="deepseek", max_epochs=1e9)
    with pytest.warns(FlopsFitWarning, match="since its last call something changed"):
        runs = SmallSweep(store, budgets=BUDGETS, sizes=SIZES, recipe=named).run()
    assert len(planted.trained) == trained
    assert len(runs) == 8


@pytest.mark.slow
def test_a_pilot_whose_trials_all_diverge_falls_back_on_the_rule(
    growing, planted, monkeypatch, capsys
):
    def diverge(task, source, trial, *args):
        if trial.role != "sweep":
            raise DivergedError("the loss is not finite", step=1)
        return planted(task, source, trial, *args)

    monkeypatch.setattr(worker, "train", diverge)
    with pytest.warns(FlopsFitWarning, match="have no loss"):
        runs = of_role(growing.run(), "sweep")
    rates = [run.learning_rate for run in runs]
    by_rule = [0.3118 * run.compute_budget**-0.125 for run in runs]
    np.testing.assert_allclose(rates, by_rule)
    assert "the rule of DeepSeek LLM is used" in capsys.readouterr().err


@pytest.mark.slow
def test_plan_result_and_another_worker_know_what_was_found(growing, monkeypatch, capsys):
    growing.run()
    uri = growing.address.tracking_uri
    plan = flops_fit.plan_sweep(
        Net, "width", dataset=data(), loss_fn=torch.nn.functional.cross_entropy,
        compute_budgets=BUDGETS, sizes=SIZES, recipe=FOUND, name="planted", tracking_uri=uri,
    )  # fmt: skip
    assert plan.found is not None
    assert not plan.to_do
    assert "as the pilot found them" in repr(plan)
    result = flops_fit.analyze("planted", uri)
    assert result.recipe_law is not None
    assert result.meta["schedule"] == "linear"
    assert set(result.runs.loc[result.runs["excluded"] == "", "role"]) == {"sweep"}
    monkeypatch.setattr(status, "BEGIN_S", 0.01)
    job = join_job(growing.task, growing.planned, growing.address)
    join_sweep(job, stages=stages(growing.planned))
    assert "Nothing waits" in capsys.readouterr().err


def test_a_joined_worker_waits_for_the_next_round_and_leaves_if_none_comes(growing, monkeypatch):
    job = open_job(growing.task, growing.planned, growing.address)
    study = trial_queue.open_study(job.study_name, job.storage)
    times = itertools.count(0.0, 20.0)
    clock = SimpleNamespace(monotonic=lambda: next(times), sleep=lambda seconds: None)
    monkeypatch.setattr(polling, "time", clock)
    assert status.wait_for_more(job, study) == 0

    def next_round(seconds):
        trial_queue.enqueue(study, job.trials[:2], job.plan)

    monkeypatch.setattr(polling, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=next_round))
    assert status.wait_for_more(job, study) == 2
