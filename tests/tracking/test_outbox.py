"""What a worker records arrives once, in order, whatever breaks on the way."""

import pytest

from flops_fit import tracking
from flops_fit.errors import StoreError
from flops_fit.records import Trial
from flops_fit.store.client import client_of
from flops_fit.tracking import journal, outbox, recording
from flops_fit.tracking.outbox import Outbox, deliver_left

TRIAL = Trial("ab" * 8, 1e12, 32, 3, 1000, 5000, 3e7, 10, 4, 0.01, 0)
WORKER = "host|1|2|x"


@pytest.fixture
def ledger(store):
    return tracking.open_ledger("a sweep", f"sqlite:///{store}/mlflow.db")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "spool"


@pytest.fixture
def remote(ledger, monkeypatch):
    """The same ledger, taken for a server's."""
    monkeypatch.setattr(tracking.Ledger, "home", None)
    return ledger


def begin(sending, **options):
    return sending.begin(TRIAL, "setting", {"size_param": "d"}, WORKER, **options)


def complete(attempt, loss=2.5):
    attempt.end("complete", metrics={"loss": loss}, step=TRIAL.num_tokens)


def failing(monkeypatch, name, times):
    """Let a function of `recording` do its work and then lose the answer, so many times."""
    function, left = getattr(recording, name), [times]

    def lost(*args, **kwargs):
        answer = function(*args, **kwargs)
        if left[0]:
            left[0] -= 1
            raise StoreError("the connection is lost")
        return answer

    monkeypatch.setattr(recording, name, lost)


def away(monkeypatch):
    def refuse(*args, **kwargs):
        raise StoreError("nobody answers")

    monkeypatch.setattr(recording, "start_run", refuse)


def curve_of(ledger, run_id):
    points = client_of(ledger.tracking_uri).get_metric_history(run_id, "train_loss")
    return sorted(point.step for point in points)


def test_a_run_and_its_curve_are_delivered_whole(ledger, folder):
    with Outbox(ledger, folder, interval=0.05) as sending:
        attempt = begin(sending)
        for step in range(2500):
            attempt.add(step, train_loss=float(step))
        complete(attempt)
        assert sending.all_delivered(0)
    (run,) = tracking.fetch_runs(ledger)
    assert (run.state, run.loss, run.size) == ("complete", 2.5, 32)
    assert curve_of(ledger, run.run_id) == list(range(2500))
    assert list((folder).iterdir()) == []


@pytest.mark.parametrize("name", ["start_run", "log_points", "complete_run"])
def test_an_answer_that_is_lost_doubles_nothing(ledger, folder, monkeypatch, caplog, name):
    monkeypatch.setattr(outbox, "_RETRY_S", 0.01)
    failing(monkeypatch, name, 2)
    with Outbox(ledger, folder) as sending:
        attempt = begin(sending)
        for step in range(10):
            attempt.add(step, train_loss=float(step))
        complete(attempt)
    (run,) = tracking.fetch_all_runs(ledger)
    assert (run.state, run.loss) == ("complete", 2.5)
    assert curve_of(ledger, run.run_id) == list(range(10))
    assert caplog.text.count("the connection is lost") == 1
    assert "is back, and has received" in caplog.text


def test_what_a_server_never_got_is_delivered_by_the_next_to_look(remote, folder, monkeypatch):
    away(monkeypatch)
    with Outbox(remote, folder) as sending:
        attempt = begin(sending)
        attempt.add(7, train_loss=3.0)
        complete(attempt)
        assert not sending.all_delivered(0)
        assert [entry.state for entry in journal.entries(folder)] == ["complete"]
    monkeypatch.undo()
    deliver_left(remote, folder)
    (run,) = tracking.fetch_all_runs(remote)
    assert (run.state, run.loss) == ("complete", 2.5)
    assert curve_of(remote, run.run_id) == [7]
    assert list(folder.iterdir()) == []


def test_a_result_that_comes_after_another_of_its_trial_does_not_count(remote, folder, monkeypatch):
    away(monkeypatch)
    with Outbox(remote, folder) as sending:
        complete(begin(sending), loss=1.0)
    monkeypatch.undo()
    with Outbox(remote, folder / "elsewhere") as sending:
        complete(begin(sending), loss=2.0)
        assert sending.all_delivered(120)
    deliver_left(remote, folder)
    runs = tracking.fetch_all_runs(remote)
    assert sorted(run.state for run in runs) == ["complete", "planned"]
    assert tracking.fetch_runs(remote)[0].loss == 2.0


def test_an_attempt_that_goes_on_goes_on_in_its_own_run(ledger, folder):
    with Outbox(ledger, folder) as sending:
        first = begin(sending)
        first.add(1, train_loss=1.0)
        first.end("planned", "interrupted")
        second = begin(sending, resumes=True)
        second.add(2, train_loss=2.0)
        complete(second)
    (run,) = tracking.fetch_all_runs(ledger)
    assert run.state == "complete"
    assert curve_of(ledger, run.run_id) == [1, 2]


def test_an_interrupt_while_the_end_is_on_its_way_does_not_take_it_back(ledger, folder):
    with Outbox(ledger, folder) as sending:
        attempt = begin(sending)
        complete(attempt)
        attempt.end("planned", "interrupted")
    assert tracking.fetch_runs(ledger)[0].state == "complete"


def test_what_the_ledger_declines_is_set_aside_and_said(ledger, folder, caplog):
    with Outbox(ledger, folder) as sending:
        attempt = begin(sending)
        while not (runs := tracking.fetch_all_runs(ledger)):
            assert not sending.all_delivered(0.1)
        (run,) = runs
        client_of(ledger.tracking_uri).delete_run(run.run_id)
        with pytest.raises(StoreError, match="must be in the 'active' state"):
            complete(attempt)
        assert sending.all_delivered(0)
    assert "declines" in caplog.text
    assert [path.suffix for path in folder.iterdir()] == [".refused"]


def test_a_file_that_cannot_be_written_is_said_and_the_end_is_kept(ledger, folder, monkeypatch):
    monkeypatch.setattr(outbox, "_LOCAL_S", 0.1)
    failing(monkeypatch, "complete_run", 1000)
    with Outbox(ledger, folder) as sending:
        with pytest.raises(StoreError, match="the connection is lost"):
            complete(begin(sending))
    monkeypatch.undo()
    deliver_left(ledger, folder)
    assert tracking.fetch_runs(ledger)[0].state == "complete"
