"""The sweep as a whole, with a planted law in place of training."""

import contextlib
import json
import shutil
import signal
import socket
import sqlite3
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import sweeps
import torch
from optuna.trial import TrialState
from sweeps import BUDGETS, LAW, Net, Planted, data, real_sweep, sweep, true_optimum
from torch import nn

import flops_fit
from flops_fit import tracking
from flops_fit.errors import DivergedError, FitError, FlopsFitWarning, NoRunsError, SweepError
from flops_fit.runtime.process_id import at_work
from flops_fit.store.client import client_of
from flops_fit.sweep.execution import progress, trial_queue, worker
from flops_fit.sweep.training.train import Outcome


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Planted:
    trainer = Planted()
    monkeypatch.setattr(worker, "train", trainer)
    return trainer


def test_a_planted_law_comes_back_within_one_per_cent(store, planted):
    result = sweep(store)
    for name in ("E", "A", "B", "alpha", "beta"):
        assert getattr(result.law, name) == pytest.approx(getattr(LAW, name), rel=0.01)
    for budget in BUDGETS:
        N, loss = true_optimum(result, budget)
        predicted = result.predict(budget)
        assert predicted.num_params == pytest.approx(N, rel=0.01)
        assert predicted.loss == pytest.approx(loss, rel=0.01)
    assert isinstance(result.predict(3e13).size, int)
    ledger = tracking.find_ledger("planted", f"sqlite:///{store}/mlflow.db")
    parent = client_of(ledger.tracking_uri).get_run(ledger.parent_run_id)
    note = parent.data.tags["mlflow.note.content"]
    assert note.startswith(
        "28 of 28 trials have ended, 100% of the FLOPs are spent.\n- C=1e+10: th"
    )
    assert "SweepPlan: 28 trials" in note
    sweep(store)  # with nothing left to run, the same is said
    parent = client_of(ledger.tracking_uri).get_run(ledger.parent_run_id)
    assert parent.data.tags["mlflow.note.content"] == note
    (given,) = parent.inputs.dataset_inputs
    assert given.dataset.name == "torch.utils.data.dataset.TensorDataset"
    assert json.loads(given.dataset.profile) == {"num_examples": 380}


def test_nothing_finished_is_run_again_and_a_new_budget_reuses_the_rest(store, planted):
    first = sweep(store, BUDGETS[:3])
    count = len(planted.trained)
    assert count == len(first.runs) == len(set(planted.trained))
    sweep(store, BUDGETS[:3])
    assert len(planted.trained) == count
    longer = sweep(store, BUDGETS)
    assert len(longer.runs) == len(planted.trained) == len(set(planted.trained))
    fewer = sweep(store, BUDGETS[:3])
    assert len(fewer.runs) == len(longer.runs)  # what is known of this setting is used


def test_rows_with_the_least_loss_at_an_edge_get_two_sizes_more(store, planted, capsys):
    planted.law = replace(LAW, A=LAW.A / 50)  # the best models are far smaller than expected
    plain = sweep(store, extend=False)
    assert (plain.optima["refused"].str.contains("edge")).sum() == 4
    planned = len(planted.trained)
    sweep(store)
    added = planted.trained[planned:]
    assert len(added) == 2 * len(BUDGETS)
    said = "the optimum lies at the smallest size of its row or beyond: 2 smaller sizes added"
    assert capsys.readouterr().err.count(said) == 4
    whole = sweep(store)
    assert len(planted.trained) == planned + len(added) == len(whole.runs)
    for budget in BUDGETS:
        N = plain.runs.loc[plain.runs["compute_budget"] == budget, "num_params"].min()
        row = whole.runs[whole.runs["compute_budget"] == budget]
        assert (row["num_params"] < N).sum() == 2
        assert row.loc[row["num_params"] < N, "flops"].to_numpy() == pytest.approx(budget, rel=0.01)


def test_learning_rates_added_later_reuse_the_rest_and_the_best_of_each_size_counts(store, planted):
    recipe = flops_fit.Recipe(max_epochs=1e9)
    before = sweep(store, recipe=recipe)
    after = sweep(store, recipe=replace(recipe, lr_multipliers=(0.5, 1, 2)))
    assert len(planted.trained) == 3 * len(before.runs)
    tuned = after.runs[after.runs["excluded"] == "another learning rate did better"]
    assert sorted(tuned["lr_multiplier"].unique()) == [0.5, 2.0]
    assert len(tuned) == 2 * len(before.runs)
    assert after.law.alpha == pytest.approx(before.law.alpha, rel=1e-6)
    assert after.runs["steps"].min() > 0


def test_another_recipe_is_another_setting_and_is_not_mixed_in(store, planted):
    one = sweep(store, BUDGETS[:3])
    with pytest.warns(
        FlopsFitWarning, match=r"something changed \(recipe\), so its earlier"
    ) as seen:
        other = sweep(store, BUDGETS[:3], recipe=flops_fit.Recipe(max_epochs=1e9, warmup=0.2))
    assert seen[0].filename == sweeps.__file__
    assert not set(one.runs["trial_id"]) & set(other.runs["trial_id"])
    assert len(planted.trained) == len(one.runs) + len(other.runs)


def test_an_interrupt_keeps_what_is_done_says_how_to_go_on_and_loses_nothing(
    store, planted, monkeypatch, capsys
):
    def interrupted(task, source, trial, recipe, report, keeper=None, stop=None):
        if len(planted.trained) == 5:
            raise KeyboardInterrupt
        return planted(task, source, trial, recipe, report, keeper, stop)

    monkeypatch.setattr(worker, "train", interrupted)
    with pytest.raises(KeyboardInterrupt, match=r"Stopped: 5 of .* Start it again to go on"):
        sweep(store)
    assert "SweepPlan: " in capsys.readouterr().err
    monkeypatch.setattr(worker, "train", planted)
    result = sweep(store)
    assert len(planted.trained) == len(set(planted.trained)) == len(result.runs)
    assert set(result.runs["state"]) == {"complete"}


def test_failed_and_diverged_trials_are_named_and_failed_ones_tried_again(
    store, planted, monkeypatch
):
    failures = []

    def faulty(task, source, trial, recipe, report, keeper=None, stop=None):
        if (trial.compute_budget, trial.size_index) == (BUDGETS[0], 0):
            failures.append(trial.trial_id)
            raise RuntimeError("a broken disk")
        if (trial.compute_budget, trial.size_index) == (BUDGETS[0], 1):
            raise DivergedError("the training loss is nan at step 7", 7)
        return planted(task, source, trial, recipe, report, keeper, stop)

    monkeypatch.setattr(worker, "train", faulty)
    with pytest.warns(FlopsFitWarning, match="2 of .* trials have no loss"):
        result = sweep(store)
    bad = result.runs[result.runs["state"] != "complete"].set_index("state")
    assert "a broken disk" in bad.loc["failed", "excluded"]
    assert "nan at step 7" in bad.loc["diverged", "excluded"]
    assert len(failures) == 3
    with pytest.warns(FlopsFitWarning, match="2 of .* trials have no loss"):
        sweep(store)
    assert len(failures) == 3
    monkeypatch.setattr(worker, "train", planted)
    with pytest.warns(FlopsFitWarning, match="1 of .* trials have no loss"):
        again = sweep(store, retry_failed=True)
    assert sorted(set(again.runs["state"])) == ["complete", "diverged"]
    assert len(planted.trained) == len(set(planted.trained))


def test_a_trial_that_fails_once_is_tried_again_in_the_same_call(store, planted, monkeypatch):
    failed = []

    def flaky(task, source, trial, recipe, report, keeper=None, stop=None):
        if trial.size_index == 3 and trial.trial_id not in failed:
            failed.append(trial.trial_id)
            raise OSError("the file server was away")
        return planted(task, source, trial, recipe, report, keeper, stop)

    monkeypatch.setattr(worker, "train", flaky)
    result = sweep(store)
    assert len(failed) == len(BUDGETS)
    assert set(result.runs["state"]) == {"complete"}


def test_a_change_of_code_is_said_refused_or_run_again(store, planted, monkeypatch):
    first = sweep(store, BUDGETS[:3])
    count = len(planted.trained)
    monkeypatch.setattr(sweeps, "GAIN", 2.0)
    with pytest.warns(FlopsFitWarning, match=f"source of model is not what {count} of") as seen:
        sweep(store, BUDGETS[:3])
    assert seen[0].filename == sweeps.__file__
    with pytest.raises(SweepError, match=r"source of model is not .*; pass another name="):
        sweep(store, BUDGETS[:3], on_code_change="error")
    assert len(planted.trained) == count
    with pytest.warns(FlopsFitWarning, match="they are trained again"):
        again = sweep(store, BUDGETS[:3], on_code_change="rerun")
    assert len(planted.trained) == 2 * count
    assert set(again.runs["trial_id"]) == set(first.runs["trial_id"])
    assert not set(again.runs["run_id"]) & set(first.runs["run_id"])
    sweep(store, BUDGETS[:3], on_code_change="error")  # all are of this code now
    assert len(planted.trained) == 2 * count


def test_many_trials_that_always_fail_alike_do_not_end_the_sweep(store, planted, monkeypatch):
    failures = []

    def too_large(task, source, trial, recipe, report, keeper=None, stop=None):
        if trial.size_index >= 5:
            failures.append(trial.trial_id)
            raise RuntimeError("out of something")
        return planted(task, source, trial, recipe, report, keeper, stop)

    monkeypatch.setattr(worker, "train", too_large)
    with pytest.warns(FlopsFitWarning, match="8 of 28 trials have no loss"):
        result = sweep(store)
    assert (result.runs["state"] == "complete").sum() == 20
    assert sorted(map(failures.count, set(failures))) == [3] * 8


def test_a_sweep_whose_first_trials_all_fail_stops_and_says_why(store, monkeypatch):
    def broken(*_):
        raise RuntimeError("a broken disk")

    monkeypatch.setattr(worker, "train", broken)
    with pytest.raises(SweepError, match=r"first 3 trials all failed, .* 25 .*a broken disk"):
        sweep(store)
    with pytest.raises(SweepError, match="first 3 trials all failed"):  # tried again
        sweep(store)


def test_a_sweep_where_all_diverge_is_not_told_to_call_again(store, monkeypatch):
    def diverging(*_):
        raise DivergedError("the training loss is nan at step 7", 7)

    monkeypatch.setattr(worker, "train", diverging)
    with (
        pytest.warns(FlopsFitWarning, match="diverged ones are not tried") as caught,
        pytest.raises(NoRunsError, match="lower Recipe"),
    ):
        sweep(store)
    assert caught[0].filename == sweeps.__file__


def test_analyze_answers_from_the_store_alone(store, planted):
    result = sweep(store)
    again = flops_fit.analyze("planted", f"sqlite:///{store}/mlflow.db")
    assert again.law == result.law
    columns = ["compute_budget", "num_params", "loss"]
    assert again.chinchilla_table()[columns].equals(result.chinchilla_table()[columns])


@pytest.fixture(scope="module")
def whole(empty_store, tmp_path_factory) -> flops_fit.Result:
    """The real sweep, run in one process without a break."""
    return real_sweep(
        Path(shutil.copytree(empty_store, tmp_path_factory.mktemp("whole") / "store"))
    )


def test_a_checkpoint_left_by_a_worker_killed_after_its_trials_end_is_removed(store, planted):
    result = sweep(store)
    ended, other = (store / "checkpoints" / f"{name}-0" for name in (planted.trained[0], "0" * 16))
    for folder in (ended, other):
        folder.mkdir(parents=True)
        (folder / "state.json").touch()
    assert len(sweep(store).runs) == len(result.runs) == len(planted.trained)
    assert not ended.exists()
    assert other.exists()  # another sweep's


def test_a_fault_as_a_trial_is_taken_up_again_fails_it_and_leaves_nothing_to_wait_for(
    store, planted, monkeypatch
):
    def deaf(self, event):
        if event.state == "resumed":
            raise BrokenPipeError("nobody listens")

    monkeypatch.setattr(worker.Keeper, "exists", lambda self: True)
    monkeypatch.setattr(progress.Progress, "__call__", deaf)
    monkeypatch.setenv("FLOPS_FIT_TIMEOUT", "5")
    with pytest.raises(
        flops_fit.FlopsFitError, match=r"first \d+ trials all failed.*nobody listens"
    ):
        sweep(store)
    assert not [path for path in store.glob("spool/*/*") if path.is_file()]


def test_trials_enqueued_by_two_drivers_at_once_run_once_each(store, planted):
    uri, recipe = f"sqlite:///{store}/optuna.db", flops_fit.Recipe(max_epochs=1e9)
    plan = flops_fit.plan_sweep(
        Net, "width", None, data(), nn.functional.cross_entropy, BUDGETS, recipe=recipe
    )
    waiting = trial_queue.open_study(f"planted {plan.setting}", uri)
    for trial in [*plan.trials, *plan.trials]:
        place = {"compute_budget": trial.compute_budget, "size_index": trial.size_index}
        waiting.enqueue_trial(place, user_attrs={"trial": json.dumps(asdict(trial))})
    result = sweep(store)
    assert len(planted.trained) == len(set(planted.trained)) == len(result.runs)


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
@pytest.mark.parametrize(("lives", "state"), [(True, "RUNNING"), (False, "FAIL")])
def test_a_silent_worker_that_is_seen_to_live_keeps_its_trial(store, lives, state):
    """As after a machine slept: every heart seems to have stopped."""
    own = trial_queue.open_study("silent", f"sqlite:///{store}/optuna.db")
    claimed = own.ask()
    own._storage.record_heartbeat(claimed._trial_id)
    with contextlib.closing(sqlite3.connect(store / "optuna.db")) as connection, connection:
        connection.execute("UPDATE trial_heartbeats SET heartbeat = '2020-01-01 00:00:00'")
    with at_work() as owner:
        claimed.set_user_attr("owner", owner if lives else "elsewhere|1|1.00|ab")
        trial_queue.release_dead(own)
        assert own.trials[0].state.name == state


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_another_driver_may_have_released_the_dead_first(store, monkeypatch):
    own = trial_queue.open_study("released", f"sqlite:///{store}/optuna.db")
    own.ask().set_user_attr("owner", f"{socket.gethostname()}|4000000|1.00|abcdef01")
    seen = own.get_trials(states=(TrialState.RUNNING,))
    trial_queue.release_dead(own)
    assert [found.state for found in own.trials] == [TrialState.FAIL]
    monkeypatch.setattr(own, "get_trials", lambda **_: seen)
    trial_queue.release_dead(own)


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_claim_that_never_got_a_name_is_released_soon(store, monkeypatch):
    """Its worker was killed just as it claimed."""
    own = trial_queue.open_study("nameless", f"sqlite:///{store}/optuna.db")
    own.ask()
    trial_queue.release_dead(own)
    assert [found.state for found in own.trials] == [TrialState.RUNNING]
    monkeypatch.setattr(trial_queue, "_age_s", lambda found: trial_queue.NAMELESS_S + 1)
    trial_queue.release_dead(own)
    assert [found.state for found in own.trials] == [TrialState.FAIL]


def test_a_run_whose_claim_has_lapsed_is_closed_and_its_trial_run_again(store, planted):
    """As when a worker on another host, which only its heartbeat can tell of, is gone."""
    first = sweep(store, BUDGETS[:3])
    ledger = tracking.find_ledger("planted", f"sqlite:///{store}/mlflow.db")
    client = client_of(ledger.tracking_uri)
    lost = first.runs["run_id"].iloc[0]
    client.set_tag(lost, tracking.STATE, "running")
    client.set_tag(lost, tracking.WORKER, "elsewhere|123|1.00|abcdef01")
    client.update_run(lost, status="RUNNING")
    again = sweep(store, BUDGETS[:3])
    assert set(again.runs["state"]) == {"complete"}
    assert lost not in set(again.runs["run_id"])
    assert client.get_run(lost).info.status == "KILLED"
    assert len(planted.trained) == len(first.runs) + 1


def test_an_interrupted_trial_goes_on_in_its_own_run(store, monkeypatch):
    """From the step where it stopped, and its training curve without a gap."""
    stopped = []

    def report_and_interrupt(job, event, curve, listener):
        report = reporter(job, event, curve, listener)

        def interrupting(point):
            report(point)
            if not stopped and point.num_tokens > 1000:
                stopped.append(event.trial_id)
                signal.raise_signal(signal.SIGINT)

        return interrupting

    reporter = worker._reporter
    monkeypatch.setattr(worker, "_reporter", report_and_interrupt)
    with pytest.raises(KeyboardInterrupt):
        real_sweep(store)
    ledger = tracking.find_ledger("planted", f"sqlite:///{store}/mlflow.db")
    (trial_id,) = stopped
    (before,) = (
        r for r in tracking.trial_runs(ledger) if r.data.tags[tracking.TRIAL_ID] == trial_id
    )
    assert before.info.status == "KILLED"
    result = real_sweep(store)
    (run,) = (r for r in tracking.trial_runs(ledger) if r.data.tags[tracking.TRIAL_ID] == trial_id)
    assert (run.info.run_id, run.info.status) == (before.info.run_id, "FINISHED")
    curve = client_of(ledger.tracking_uri).get_metric_history(run.info.run_id, "train_loss")
    steps = [point.step for point in curve]
    assert len(set(steps)) == len(steps)
    assert (
        max(np.diff(sorted(steps))) <= result.runs.set_index("trial_id").num_tokens[trial_id] / 50
    )


def test_a_trial_begun_by_other_code_starts_over(store, monkeypatch, caplog):
    trained = []

    def interrupted(task, source, trial, recipe, report, keeper=None, stop=None):
        trained.append((trial.trial_id, keeper.exists()))
        if len(trained) == 1:
            keeper.save(1, {"weight": torch.zeros(1)})
            raise KeyboardInterrupt
        return Outcome(1.0, 1.0, trial.flops, 0.5, 100.0, 1.0, "cpu")

    monkeypatch.setattr(worker, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep(store)
    first, _ = trained[0]
    monkeypatch.setattr(sweeps, "GAIN", 2.0)
    with contextlib.suppress(FitError):
        sweep(store)
    assert dict(trained[1:])[first] is False
    assert "was written by other code" in caplog.text
    assert not any((store / "checkpoints").glob("*"))
