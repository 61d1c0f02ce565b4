"""The queue of trials: its storage's faults, claims by several workers, and dead workers."""

import contextlib
import json
import socket
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace

import pytest
from optuna.trial import TrialState
from sweeps import SmallSweep

from flops_fit.errors import StoreError
from flops_fit.records import Trial
from flops_fit.runtime.process_id import at_work
from flops_fit.sweep.execution import trial_queue
from flops_fit.sweep.execution.trial_queue import enqueue, open_study, work_through

TRIAL = Trial("ab" * 8, 1e12, 32, 3, 1000, 5000, 3e7, 10, 4, 0.01, 0)
# By budget and steps; as they are planned: budgets ascending, sizes ascending.
PLANNED = [
    replace(TRIAL, trial_id=f"{budget:g} {steps}", compute_budget=budget, steps=steps)
    for budget in (1e12, 3e12)
    for steps in (400, 200, 100)
]


def test_a_database_of_mlflow_s_is_no_storage_for_optuna(store):
    with pytest.raises(StoreError, match="give it a database of its own, beside MLflow's"):
        open_study("a study", f"sqlite:///{store}/mlflow.db")


def test_a_file_that_is_no_database_is_said(tmp_path):
    (tmp_path / "optuna.db").write_text("no database at all" * 100)
    with pytest.raises(StoreError, match=r"Optuna storage .*not a database; restore it"):
        open_study("a study", f"sqlite:///{tmp_path}/optuna.db")


def test_a_storage_that_breaks_under_a_trial_ends_the_work_with_what_to_do(store):
    own = open_study("a study", f"sqlite:///{store}/optuna.db")
    enqueue(own, [TRIAL])
    with sqlite3.connect(store / "optuna.db") as database:

        def train(trial):
            database.execute("DROP TABLE trial_values")
            database.commit()
            return 1.0

        with pytest.raises(StoreError, match=r"Optuna storage .*no such table.*then call again"):
            work_through(own, {TRIAL.trial_id}, "me", train, lambda: True, lambda trial: False)
    database.close()


def test_a_claim_that_others_have_taken_for_dead_costs_only_itself(store, caplog):
    own = open_study("a study", f"sqlite:///{store}/optuna.db")
    enqueue(own, [TRIAL])

    def train(trial):
        (claimed,) = own.get_trials(states=(TrialState.RUNNING,))
        own.tell(claimed.number, state=TrialState.FAIL)
        return 1.0

    work_through(own, {TRIAL.trial_id}, "me", train, lambda: True, lambda trial: False)
    assert "claim was released as a dead worker's" in caplog.text


def test_two_workers_that_ask_at_one_moment_do_not_get_one_trial(store, monkeypatch):
    url = f"sqlite:///{store}/optuna.db"
    enqueue(open_study("a study", url), [TRIAL])
    together = threading.Barrier(2)

    def look(storage, trial_id, state):
        with contextlib.suppress(threading.BrokenBarrierError):
            together.wait(timeout=1.0)  # both have seen the trial wait, unless one has to queue

    monkeypatch.setattr(trial_queue._Storage, "check_trial_is_updatable", look)
    studies = [open_study("a study", url) for _ in range(2)]
    (waiting,) = studies[0].get_trials(states=(TrialState.WAITING,))

    def claim(own):
        return own._storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING)

    with ThreadPoolExecutor(2) as pool:
        assert sorted(pool.map(claim, studies)) == [False, True]


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_beat_that_fails_does_not_end_the_heart(store, monkeypatch):
    own = open_study("a study", f"sqlite:///{store}/optuna.db")
    number = own.ask()._trial_id
    with sqlite3.connect(store / "optuna.db") as database:
        database.execute("ALTER TABLE trial_heartbeats RENAME TO gone")
        database.commit()
        trial_queue._Storage.record_heartbeat(own._storage._backend, number)
        database.execute("ALTER TABLE gone RENAME TO trial_heartbeats")
        database.commit()
        own._storage.record_heartbeat(number)
        assert database.execute("SELECT count(*) FROM trial_heartbeats").fetchone() == (1,)
    database.close()


@pytest.mark.slow
def test_trials_enqueued_by_two_drivers_at_once_run_once_each(small: SmallSweep, planted):
    job = small.open()
    study = open_study(job.study_name, job.storage)
    for trial in [*job.trials, *job.trials]:
        place = {"compute_budget": trial.compute_budget, "size_index": trial.size_index}
        study.enqueue_trial(place, user_attrs={"trial": json.dumps(asdict(trial))})
    assert len(small.run()) == len(planted.trained) == len(set(planted.trained)) == 8


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
@pytest.mark.parametrize(("lives", "state"), [(True, "RUNNING"), (False, "FAIL")])
def test_a_silent_worker_that_is_seen_to_live_keeps_its_trial(store, lives, state):
    """As after the machine slept: every heartbeat looks old."""
    study = open_study("silent", f"sqlite:///{store}/optuna.db")
    claimed = study.ask()
    study._storage.record_heartbeat(claimed._trial_id)
    with contextlib.closing(sqlite3.connect(store / "optuna.db")) as connection, connection:
        connection.execute("UPDATE trial_heartbeats SET heartbeat = '2020-01-01 00:00:00'")
    with at_work() as owner:
        claimed.set_user_attr("owner", owner if lives else "elsewhere|1|1.00|ab")
        trial_queue.release_dead(study)
        assert study.trials[0].state.name == state


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_another_driver_may_have_released_the_dead_first(store, monkeypatch):
    study = open_study("released", f"sqlite:///{store}/optuna.db")
    study.ask().set_user_attr("owner", f"{socket.gethostname()}|4000000|1.00|abcdef01")
    seen = study.get_trials(states=(TrialState.RUNNING,))
    trial_queue.release_dead(study)
    assert [found.state for found in study.trials] == [TrialState.FAIL]
    monkeypatch.setattr(study, "get_trials", lambda **_: seen)
    trial_queue.release_dead(study)


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_a_claim_that_never_got_a_name_is_released_soon(store, monkeypatch):
    """Its worker was killed just as it claimed."""
    study = open_study("nameless", f"sqlite:///{store}/optuna.db")
    study.ask()
    trial_queue.release_dead(study)
    assert [found.state for found in study.trials] == [TrialState.RUNNING]
    monkeypatch.setattr(trial_queue, "_age_s", lambda claim: trial_queue.NAMELESS_S + 1)
    trial_queue.release_dead(study)
    assert [found.state for found in study.trials] == [TrialState.FAIL]


def order_of(study, owner="me"):
    """Ids of the trials in the order in which one worker trains them."""
    trained = []

    def train(trial):
        trained.append(trial.trial_id)
        return 1.0

    wanted = {trial.trial_id for trial in PLANNED}
    work_through(study, wanted, owner, train, lambda: True, lambda trial: trial.trial_id in trained)
    return trained


@pytest.mark.parametrize(
    ("longest_first", "expected"),
    [
        (False, ["1e+12 400", "1e+12 200", "1e+12 100", "3e+12 400", "3e+12 200", "3e+12 100"]),
        (True, ["3e+12 400", "3e+12 200", "3e+12 100", "1e+12 400", "1e+12 200", "1e+12 100"]),
    ],
)
def test_several_workers_take_the_longest_trial_first(store, longest_first, expected):
    study = open_study("ordered", f"sqlite:///{store}/optuna.db", longest_first=longest_first)
    enqueue(study, PLANNED)
    assert order_of(study) == expected


def test_a_long_trial_that_was_interrupted_does_not_come_last(store):
    """What was left waiting was enqueued before it."""
    study = open_study("resumed", f"sqlite:///{store}/optuna.db", longest_first=True)
    enqueue(study, PLANNED[:2])
    enqueue(study, PLANNED[3:])
    assert order_of(study) == [PLANNED[n].trial_id for n in (3, 4, 5, 0, 1)]


def test_a_trial_of_somebody_else_s_comes_last_and_is_dropped(store):
    study = open_study("foreign", f"sqlite:///{store}/optuna.db", longest_first=True)
    study.enqueue_trial({"compute_budget": 1e30})
    enqueue(study, PLANNED[:1])
    assert order_of(study) == [PLANNED[0].trial_id]
    assert {found.state.name for found in study.trials} == {"COMPLETE", "PRUNED"}


@pytest.mark.filterwarnings("ignore:Heartbeat of storage")
def test_two_workers_from_either_end_train_each_trial_once(store):
    """As a driver that works alone does, and a worker that joins it."""
    url = f"sqlite:///{store}/optuna.db"
    alone = open_study("both", url)
    enqueue(alone, PLANNED)
    joined = open_study("both", url, longest_first=True)
    claimed = [study.ask().user_attrs["trial"] for study in (alone, joined) * 3]
    ids = [json.loads(text)["trial_id"] for text in claimed]
    assert ids[:4] == ["1e+12 400", "3e+12 400", "1e+12 200", "3e+12 200"]
    assert len(set(ids)) == 6
