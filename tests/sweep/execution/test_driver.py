"""The driver: what is run, what is run again, and when a sweep stops."""

import json
from dataclasses import replace

import pytest
import sweeps
from sweeps import (
    BUDGETS,
    LAW,
    SMALL_BUDGETS,
    SMALL_SIZES,
    UNLIMITED,
    SmallSweep,
    sweep,
    true_optimum,
)

import flops_fit
from flops_fit import tracking
from flops_fit.analysis import fit_ledger
from flops_fit.errors import DivergedError, FlopsFitWarning, NoRunsError, SweepError
from flops_fit.laws.design.goal import Goal
from flops_fit.store.client import client_of
from flops_fit.sweep.execution import worker
from flops_fit.sweep.growth.rounds import Rounds
from flops_fit.sweep.growth.stages import Stages


def test_a_planted_law_comes_back_within_one_per_cent(store, planted):
    result = sweep(store)
    for name in ("E", "A", "B", "alpha", "beta"):
        assert getattr(result.law, name) == pytest.approx(getattr(LAW, name), rel=0.01)
    for budget in BUDGETS:
        N, loss = true_optimum(result, budget)
        predicted = result.predict(budget)
        assert predicted.num_params == pytest.approx(N, rel=0.01)
        assert predicted.loss == pytest.approx(loss, rel=0.01)
    assert isinstance(result.predict(1e12).size, int)
    again = flops_fit.analyze("planted", f"sqlite:///{store}/mlflow.db")  # from the store alone
    assert again.law == result.law
    columns = ["compute_budget", "num_params", "loss"]
    assert again.chinchilla_table()[columns].equals(result.chinchilla_table()[columns])


def test_nothing_finished_is_run_again_and_a_new_budget_reuses_the_rest(store, planted):
    one_budget = SmallSweep(store, budgets=SMALL_BUDGETS[:1])
    one_budget.run()
    one_budget.run()
    assert len(planted.trained) == len(set(planted.trained)) == 4
    both_budgets = SmallSweep(store)
    both_budgets.run()
    assert len(planted.trained) == len(set(planted.trained)) == 8
    assert len(one_budget.run()) == 8  # all runs of the setting are used


def test_whether_the_goal_is_reached_is_said_though_nothing_is_left_to_train(small, capsys):
    goal = Goal(10 * SMALL_BUDGETS[-1], 1.0001, max_flops=1.0, budgets=tuple(SMALL_BUDGETS))
    rows, trials = small.planned.rows, small.planned.plan.trials
    said = "The sweep ends: "
    for nothing_left in (0, 1):
        small.run(stages=Stages(rows, trials, None, extend=True, rounds=Rounds(goal)))
        told = capsys.readouterr().err
        assert told.count("nothing is left to train") == nothing_left
        assert told.count(said) == 1


@pytest.mark.slow
def test_rows_with_the_least_loss_at_an_edge_get_two_sizes_more(store, planted, capsys):
    planted.law = replace(LAW, A=LAW.A / 50)  # the best models are far smaller than expected
    chosen = SmallSweep(store, sizes=None)
    plain = chosen.run()
    stages = Stages(chosen.planned.rows, chosen.planned.plan.trials, None, extend=True)
    whole = chosen.run(stages=stages)
    added = planted.trained[len(plain) :]
    assert len(added) == 2 * len(SMALL_BUDGETS)
    message = "the optimum lies at the smallest size of its row or beyond: 2 smaller sizes added"
    assert capsys.readouterr().err.count(message) == 2
    assert len(chosen.run(stages=stages)) == len(planted.trained)
    smallest = {budget: min(r.num_params for r in plain if r.compute_budget == budget)
                for budget in SMALL_BUDGETS}  # fmt: skip
    for run in whole:
        if run.trial_id in added:
            assert run.num_params < smallest[run.compute_budget]
            assert run.flops == pytest.approx(run.compute_budget, rel=0.01)


@pytest.mark.slow
def test_learning_rates_added_later_reuse_the_rest_and_the_best_of_each_size_counts(
    finished, planted
):
    before = {run.trial_id for run in finished.runs()}
    recipe = replace(UNLIMITED, lr_multipliers=(0.5, 1, 2))
    tuned = SmallSweep(finished.folder, recipe=recipe)
    tuned.run()
    assert len(planted.trained) == 2 * len(before)
    runs = fit_ledger(tuned.ledger).runs
    worse = runs[runs["excluded"] == "another learning rate did better"]
    assert sorted(worse["lr_multiplier"].unique()) == [0.5, 2.0]
    assert set(runs["trial_id"]) - set(worse["trial_id"]) == before
    assert runs["steps"].min() > 0


def test_another_recipe_is_another_setting_and_is_not_mixed_in(finished):
    other = SmallSweep(finished.folder, recipe=replace(UNLIMITED, warmup=0.2))
    with pytest.warns(FlopsFitWarning, match=r"something changed \(recipe\).*earlier") as caught:
        other.open()
    assert caught[0].filename == sweeps.__file__
    assert not other.planned.plan.setting == finished.planned.plan.setting
    assert other.runs() == []
    ids = [{trial.trial_id for trial in each.planned.plan.trials} for each in (finished, other)]
    assert not ids[0] & ids[1]


@pytest.mark.slow
def test_failed_trials_are_tried_three_times_and_diverged_ones_once(small, planted, train_with):
    tries = []

    def fail(trial, keeper):
        if trial.compute_budget == SMALL_BUDGETS[0] and trial.size_index < 2:
            tries.append(trial.size_index)
        if tries and trial.trial_id == failing[tries[-1]]:
            raise (DivergedError("nan at step 7", 7) if tries[-1] else OSError("a broken disk"))

    failing = [trial.trial_id for trial in small.planned.plan.trials[:2]]
    train_with(fail)
    with pytest.warns(FlopsFitWarning, match="2 of 8 trials have no loss"):
        runs = small.run()
    reasons = {run.state: run.excluded for run in runs if run.state != "complete"}
    assert reasons["failed"] == "failed: OSError: a broken disk"
    assert reasons["diverged"] == "diverged: nan at step 7"
    assert sorted(tries) == [0, 0, 0, 1]
    with pytest.warns(FlopsFitWarning, match="2 of 8 trials have no loss"):
        small.run()
    assert len(tries) == 4
    train_with(lambda trial, keeper: None)
    with pytest.warns(FlopsFitWarning, match="1 of 8 trials have no loss"):
        again = small.run(retry_failed=True)
    assert sorted(run.state for run in again) == ["complete"] * 7 + ["diverged"]
    assert len(planted.trained) == len(set(planted.trained))


@pytest.mark.slow
def test_a_trial_that_fails_once_is_tried_again_in_the_same_call(small, train_with):
    failed = set()

    def fail_once(trial, keeper):
        if trial.size_index == 3 and trial.trial_id not in failed:
            failed.add(trial.trial_id)
            raise OSError("the file server was away")

    train_with(fail_once)
    runs = small.run()
    assert len(failed) == len(SMALL_BUDGETS)
    assert {run.state for run in runs} == {"complete"}


@pytest.mark.slow
def test_many_trials_that_always_fail_alike_do_not_end_the_sweep(small, train_with):
    failures = []

    def fail(trial, keeper):
        if trial.size_index >= 2:
            failures.append(trial.trial_id)
            raise RuntimeError("out of something")

    train_with(fail)
    with pytest.warns(FlopsFitWarning, match="4 of 8 trials have no loss"):
        runs = small.run()
    assert [run.state for run in runs].count("complete") == 4
    assert sorted(map(failures.count, set(failures))) == [3] * 4


def test_a_sweep_whose_first_trials_all_fail_stops_and_says_why(small, train_with):
    def fail(trial, keeper):
        raise RuntimeError("a broken disk")

    train_with(fail)
    for _ in range(2):  # the second call tries again
        with pytest.raises(SweepError, match=r"first 3 trials all failed, .* 5 .*a broken disk"):
            small.run()


def test_a_sweep_where_all_diverge_is_not_told_to_call_again(store, monkeypatch):
    def diverge(*_):
        raise DivergedError("the training loss is nan at step 7", 7)

    monkeypatch.setattr(worker, "train", diverge)
    with (
        pytest.warns(FlopsFitWarning, match="diverged ones are not tried") as caught,
        pytest.raises(NoRunsError, match="lower Recipe"),
    ):
        sweep(store, list(SMALL_BUDGETS), sizes=SMALL_SIZES)
    assert caught[0].filename == sweeps.__file__


@pytest.mark.slow
def test_a_change_of_code_is_said_refused_or_run_again(finished, planted, monkeypatch):
    before = {run.trial_id: run.run_id for run in finished.runs()}
    monkeypatch.setattr(sweeps, "GAIN", 2.0)
    with pytest.warns(FlopsFitWarning, match="source of model is not what 8 of") as caught:
        finished.run()
    assert caught[0].filename == sweeps.__file__
    with pytest.raises(SweepError, match=r"source of model is not .*; pass another name="):
        finished.run(on_code_change="error")
    assert planted.trained == []
    with pytest.warns(FlopsFitWarning, match="they are trained again"):
        again = finished.run(on_code_change="rerun")
    assert len(planted.trained) == 8
    assert {run.trial_id for run in again} == set(before)
    assert not {run.run_id for run in again} & set(before.values())
    finished.run(on_code_change="error")  # all runs are of this code now
    assert len(planted.trained) == 8


def test_the_parent_run_shows_how_far_the_sweep_is_and_its_data(small, planted):
    planted.counts_epochs = True
    small.run()
    parent = client_of(small.uri).get_run(small.ledger.parent_run_id)
    note = parent.data.tags["mlflow.note.content"]
    link, _, rest = note.partition("\n\n")
    assert "artifacts/report.html" in link
    assert rest.startswith("8 of 8 trials have ended, 100 % of the FLOPs are spent.\n- C=6e+07: ")
    # Which runs of a row count is as in the result.
    excluded = fit_ledger(small.ledger).runs.groupby("compute_budget")["excluded"]
    for (_, reasons), line in zip(excluded, rest.splitlines()[1:], strict=False):
        num_out = int((reasons != "").sum())
        assert line.endswith(f"; {num_out} of 4 runs left out (saw its data over 16 times)")
    assert "SweepPlan: 8 trials" in note
    assert parent.data.tags[tracking.STATE] == "complete"
    small.run()  # with nothing left to run, the note is the same
    parent = client_of(small.uri).get_run(small.ledger.parent_run_id)
    assert parent.data.tags["mlflow.note.content"] == note
    (given,) = parent.inputs.dataset_inputs
    assert given.dataset.name == "torch.utils.data.dataset.TensorDataset"
    assert json.loads(given.dataset.profile) == {"num_examples": 380}
