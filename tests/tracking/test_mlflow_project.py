"""Sweeps within `mlflow run`."""

from pathlib import Path

import pytest

from flops_fit import tracking
from flops_fit.store.client import client_of
from flops_fit.tracking import mlflow_project
from flops_fit.tracking.ledger import Ledger


@pytest.fixture
def ledger(store: Path) -> Ledger:
    return tracking.open_ledger("a sweep", f"sqlite:///{store}/mlflow.db")


def test_a_sweep_is_a_child_of_the_run_of_mlflow_run_whatever_its_experiment(ledger, monkeypatch):
    client = client_of(ledger.tracking_uri)
    for experiment_id in (ledger.experiment_id, "0"):
        opened = client.create_run(experiment_id).info.run_id
        monkeypatch.setenv("MLFLOW_RUN_ID", opened)
        mlflow_project.nest_under_project_run(ledger)
        parent = client.get_run(ledger.parent_run_id)
        assert parent.data.tags["mlflow.parentRunId"] == opened
        assert client.get_run(opened).data.tags["flops_fit.sweep"] == "a sweep"
        assert tracking.find_ledger("a sweep", ledger.tracking_uri) == ledger
    assert tracking.fetch_runs(ledger) == []


@pytest.mark.parametrize("run_id", ["", "0" * 32, "no run"])
def test_a_run_that_is_not_of_this_store_is_passed_over(ledger, monkeypatch, run_id):
    monkeypatch.setenv("MLFLOW_RUN_ID", run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "123")
    mlflow_project.nest_under_project_run(ledger)
    assert mlflow_project.project_experiment(ledger.tracking_uri) is None
    parent = client_of(ledger.tracking_uri).get_run(ledger.parent_run_id)
    assert "mlflow.parentRunId" not in parent.data.tags
    assert tracking.open_ledger("a sweep", ledger.tracking_uri) == ledger


def test_the_experiment_of_mlflow_run_gives_the_name_unless_nobody_chose_it(ledger, monkeypatch):
    client = client_of(ledger.tracking_uri)
    monkeypatch.setenv("MLFLOW_RUN_ID", client.create_run(ledger.experiment_id).info.run_id)
    assert mlflow_project.project_experiment(ledger.tracking_uri) == "a sweep"
    monkeypatch.setenv("MLFLOW_RUN_ID", client.create_run("0").info.run_id)
    assert mlflow_project.project_experiment(ledger.tracking_uri) is None


def test_no_store_is_made_to_look_for_the_run_of_mlflow_run(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    assert mlflow_project.project_experiment(f"sqlite:///{tmp_path}/mlflow.db") is None
    assert not list(tmp_path.iterdir())
