"""`mlflow run` on this repository: the same command line, in this process, with real children."""

import os
import runpy
import shlex
import shutil
import sys
import warnings
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

import flops_fit
from flops_fit import tracking
from flops_fit.cli import main
from flops_fit.store.client import client_of
from flops_fit.sweep.execution import status

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def mlflow_run(*words: str, code: int = 0) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mlflow.cli import cli  # warns as it is imported

        done = CliRunner().invoke(cli, ["run", str(ROOT), *words, "--env-manager", "local"])
    assert done.exit_code == code, done.output


def test_a_sweep_is_a_child_of_the_run_that_mlflow_run_opens(store, monkeypatch):
    uri = f"sqlite:///{store}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    tiny = ["budgets=5e8", "sizes=1,2,3", "n_layer=1", "name=tiny", "workers=1"]
    mlflow_run(*[word for pair in tiny for word in ("-P", pair)], code=1)  # no law stands

    client, ledger = client_of(uri), tracking.find_ledger("tiny", uri)
    (opened,) = client.search_runs(["0"])
    parent = client.get_run(ledger.parent_run_id)
    assert parent.data.tags["mlflow.parentRunId"] == opened.info.run_id
    assert opened.data.tags["flops_fit.sweep"] == "tiny"
    assert opened.data.params["n_layer"] == "1"
    runs = tracking.fetch_runs(ledger)
    assert [run.state for run in runs if run.role == "sweep"] == ["complete"] * 3
    assert {run.state for run in runs} == {"complete"}  # those of the pilot too
    num_runs = len(client.search_runs([ledger.experiment_id]))
    assert num_runs == len(runs) + 1

    shutil.rmtree(store / "artifacts" / ledger.parent_run_id)
    mlflow_run("-e", "analyze", "-P", "name=tiny")
    logged = {file.path for file in client.list_artifacts(ledger.parent_run_id)}
    assert {"summary.txt", "laws", "report.html"} <= logged
    assert len(client.search_runs([ledger.experiment_id])) == num_runs


def test_every_entry_point_has_typed_parameters_with_defaults():
    project = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))
    points = project["entry_points"]
    assert set(points) == {"main", "vit", "plan", "analyze", "predict", "compare", "worker"}
    for point in points.values():
        names = {name: "x" for name in point["parameters"]}
        assert "{" not in point["command"].format(**names)
        for parameter in point["parameters"].values():
            assert set(parameter) == {"type", "default"}


def entry(entry_point: str, **given: str) -> list[str]:
    """An entry point's command, as a shell would split it."""
    project = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))
    point = project["entry_points"][entry_point]
    values = {key: str(parameter["default"]) for key, parameter in point["parameters"].items()}
    quoted = {key: shlex.quote(value) for key, value in {**values, **given}.items()}
    return shlex.split(point["command"].format(**quoted))


def test_the_other_entry_points_are_commands_that_work(store, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{store}/mlflow.db")
    monkeypatch.setattr(status, "BEGIN_S", 0)
    tiny = {"budgets": "5e8", "sizes": "1,2,3", "n_layer": "1"}
    planned = CliRunner().invoke(main, entry("plan", **tiny)[3:])
    assert planned.stdout.startswith("SweepPlan: 3 trials")
    done = CliRunner().invoke(main, entry("compare", first="one")[3:])
    assert (done.exit_code, "names of two sweeps" in done.output) == (2, True)
    for words in (entry("predict", name="none"), entry("worker", **tiny, name="none")):
        done = CliRunner().invoke(main, words[3:])
        assert done.exit_code == 1, done.output
        assert "none" in done.stderr or "no store" in done.stderr


def test_the_vision_transformers_entry_point_hands_its_parameters_on(monkeypatch):
    asked = {}

    def stop(**given):
        asked.update(given)
        raise KeyboardInterrupt

    monkeypatch.setattr(flops_fit, "find_optimal", stop)
    for given in ({}, {"budgets": "1e9, 2e9", "sizes": "8,16", "batch": "32"}):
        _, script, *words = entry("vit", **given)
        with pytest.raises(KeyboardInterrupt):
            runpy.run_path(str(ROOT / script))["main"](words)
        expected = (
            ([1e9, 2e9], [8, 16], 32) if given else ([4e9, 6e9, 1e10, 2.5e10, 6e10], None, "auto")
        )
        assert (asked["compute_budgets"], asked["sizes"], asked["recipe"].batch_size) == expected
