"""A sweep whose MLflow store goes away and comes back: a server, killed; a database, broken."""

import os
import sqlite3

import pytest
from served import served
from sweeps import Planted, real_sweep

from flops_fit import tracking
from flops_fit.errors import StoreError
from flops_fit.store.client import client_of
from flops_fit.sweep.execution import worker
from flops_fit.tracking import outbox


class Eventful(Planted):
    """A planted trainer before whose n-th trial something happens."""

    def __init__(self, events):
        super().__init__()
        self.events = events

    def __call__(self, *args, **kwargs):
        self.events.pop(len(self.trained), lambda: None)()
        return super().__call__(*args, **kwargs)


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.slow
def test_a_server_that_goes_away_and_comes_back_costs_nothing(store, monkeypatch, caplog):
    """Away as trials begin, end and are interrupted; back at the next start, and in mid-sweep."""
    monkeypatch.setenv("FLOPS_FIT_TIMEOUT", "2")
    with served(store) as server:
        options = {"tracking_uri": server.uri, "storage": f"sqlite:///{store}/optuna.db"}
        monkeypatch.chdir(store)
        trainer = Eventful({2: server.kill, 4: interrupt})
        monkeypatch.setattr(worker, "train", trainer)
        with pytest.raises(KeyboardInterrupt, match="does not answer; finished work is kept"):
            real_sweep(store, **options)
        assert len(trainer.trained) == 4  # the last two of them without a server
        assert caplog.text.count("no answer") == 1
        with pytest.raises(StoreError, match=r"does not answer .*; start it"):
            real_sweep(store, **options)
        server.start()
        trainer.events = {
            5: server.kill,
            6: lambda: server.start(wait=False),
            8: server.wait,
            11: server.kill,
        }
        with pytest.raises(StoreError, match=r"no answer .*; start the server, then call again"):
            real_sweep(store, **options)
        assert len(trainer.trained) == 12
        server.start()
        result = real_sweep(store, **options)
        assert len(trainer.trained) == len(set(trainer.trained)) == 12
        assert list(result.runs["state"]) == ["complete"] * 12
        ledger = tracking.find_ledger("planted", server.uri)
        attempts = tracking.fetch_all_runs(ledger)
        assert [run.state for run in attempts].count("complete") == 12
        assert [run.state for run in attempts if run.state != "complete"] == ["planned"]
        for run in attempts:
            curve = client_of(server.uri).get_metric_history(run.run_id, "train_loss")
            assert len(curve) == (run.state == "complete")
    assert [path for path in store.rglob("spool/*/*") if os.path.isfile(path)] == []


def test_a_database_that_breaks_in_mid_sweep_is_said_and_mended_loses_nothing(store, monkeypatch):
    database = sqlite3.connect(store / "mlflow.db", isolation_level=None)
    trainer = Eventful({3: lambda: database.execute("ALTER TABLE metrics RENAME TO gone")})
    monkeypatch.setattr(worker, "train", trainer)
    monkeypatch.setattr(outbox, "_LOCAL_S", 0.1)
    with pytest.raises(StoreError, match=r"MLflow store sqlite.*no such table.*then call again"):
        real_sweep(store)
    assert len(trainer.trained) == 4
    database.execute("ALTER TABLE gone RENAME TO metrics")
    database.close()
    result = real_sweep(store)
    assert len(trainer.trained) == len(set(trainer.trained)) == 12
    assert list(result.runs["state"]) == ["complete"] * 12
