"""The ledger: what counts as done, what is shown, what is kept from view."""

import math
import re
from dataclasses import replace
from pathlib import Path

import pytest

from flops_fit import tracking
from flops_fit.errors import ArgumentError, SweepError
from flops_fit.records import Trial
from flops_fit.store import uri
from flops_fit.store.client import client_of
from flops_fit.store.uri import sqlite_file
from flops_fit.tracking import recording
from flops_fit.tracking.ledger import Ledger

TRIAL = Trial("ab" * 8, 1e12, 32, 3, 1000, 5000, 3e7, 10, 4, 0.01, 0)


@pytest.fixture
def ledger(store: Path) -> Ledger:
    return tracking.open_ledger("a sweep", f"sqlite:///{store}/mlflow.db")


def start(ledger: Ledger, trial: Trial = TRIAL) -> str:
    return recording.start_run(ledger, trial, "setting", {"size_param": "d"}, "host|1|2|x")


def test_a_complete_run_comes_back_as_it_was_recorded(ledger):
    run_id = start(ledger)
    metrics = {"loss": 2.5, "flops": 3e7, "wall_time_s": 1.5, "epochs": 2.0}
    recording.complete_run(ledger, run_id, metrics, TRIAL.num_tokens)
    (run,) = tracking.fetch_runs(ledger)
    assert (run.trial_id, run.state, run.loss, run.excluded) == ("ab" * 8, "complete", 2.5, "")
    assert (run.size, run.num_params, run.num_tokens, run.epochs) == (32, 1000, 5000, 2.0)
    assert tracking.fetch_runs(ledger, "another setting") == []


@pytest.mark.parametrize("role", ["sweep", "pilot", "check"])
def test_a_run_knows_what_it_was_trained_for_and_its_batch(ledger, role):
    start(ledger, replace(TRIAL, role=role))
    (run,) = tracking.fetch_runs(ledger)
    assert (run.role, run.batch_size) == (role, 4)


def test_a_run_without_a_role_is_of_the_sweep(ledger):
    run_id = start(ledger, replace(TRIAL, role="pilot"))
    client_of(ledger.tracking_uri).delete_tag(run_id, "flops_fit.role")
    (run,) = tracking.fetch_runs(ledger)
    assert run.role == "sweep"


@pytest.mark.parametrize("loss", [math.nan, None])
def test_finished_without_a_finite_loss_is_not_done(ledger, loss):
    recording.complete_run(ledger, start(ledger), {} if loss is None else {"loss": loss}, 1)
    (run,) = tracking.fetch_runs(ledger)
    assert run.state == "planned"
    assert run.excluded == "not finished"


def test_finished_without_the_last_tag_is_not_done(ledger):
    run_id = start(ledger)
    client = client_of(ledger.tracking_uri)
    client.log_metric(run_id, "loss", 2.0)
    client.set_terminated(run_id, "FINISHED")
    (run,) = tracking.fetch_runs(ledger)
    assert run.state == "running"
    assert math.isnan(run.loss)


def test_the_complete_run_of_a_trial_stands_for_it_whatever_came_later(ledger):
    recording.complete_run(ledger, start(ledger), {"loss": 2.0}, 1)
    recording.close_run(ledger, start(ledger), "failed", "RuntimeError: late")
    (run,) = tracking.fetch_runs(ledger)
    assert run.loss == 2.0


def test_a_failed_run_keeps_its_reason(ledger):
    recording.close_run(ledger, start(ledger), "failed", "RuntimeError: a broken disk", "Traceback")
    (run,) = tracking.fetch_runs(ledger)
    assert run.excluded == "failed: RuntimeError: a broken disk"


def test_opening_again_finds_the_same_sweep(ledger):
    again = tracking.open_ledger("a sweep", ledger.tracking_uri)
    assert again == ledger == tracking.find_ledger("a sweep", ledger.tracking_uri)


def test_a_sweep_that_is_not_there_is_said_with_those_that_are(ledger):
    with pytest.raises(SweepError, match=r"no sweep named 'other'.*it holds: a sweep"):
        tracking.find_ledger("other", ledger.tracking_uri)


def test_the_only_sweep_needs_no_name(ledger):
    assert tracking.find_ledger(None, ledger.tracking_uri) == ledger
    tracking.open_ledger("another", ledger.tracking_uri)
    with pytest.raises(SweepError, match=r"expected the name of a sweep: .* a sweep, another"):
        tracking.find_ledger(None, ledger.tracking_uri)


def test_a_store_without_a_sweep_says_so(store):
    with pytest.raises(SweepError, match="holds no sweep yet"):
        tracking.find_ledger(None, f"sqlite:///{store}/mlflow.db")


@pytest.mark.parametrize("under_mlflow_run", [True, False])
def test_under_mlflow_run_the_sweep_of_this_folder_is_found(
    ledger, monkeypatch, tmp_path, under_mlflow_run
):
    store = f"sqlite:///{tmp_path}/of_mlflow_run.db"
    client_of(store).create_experiment("of other programs")
    monkeypatch.setattr(uri, "_DEFAULT_FILE", sqlite_file(ledger.tracking_uri))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    monkeypatch.delenv("MLFLOW_RUN_ID", raising=False)
    if under_mlflow_run:
        monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
        assert tracking.find_ledger().parent_run_id == ledger.parent_run_id
    else:
        with pytest.raises(SweepError, match="holds no sweep yet"):
            tracking.find_ledger()


def test_runs_of_one_budget_have_one_colour_in_mlflow(ledger):
    client = client_of(ledger.tracking_uri)
    colours = []
    for place, C in enumerate((1e9, 2e9, 4e9, 1e10, 1e10)):
        run_id = start(ledger, replace(TRIAL, trial_id=f"{place:016x}", compute_budget=C))
        colours.append(client.get_run(run_id).data.tags["mlflow.runColor"])
    assert len(set(colours)) == 4
    assert colours[-1] == colours[-2]
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours)


def test_constants_that_older_versions_wrote_as_metrics_are_read(ledger):
    run_id = start(ledger)
    client = client_of(ledger.tracking_uri)
    constants = {"flops": 3e7, "wall_time_s": 1.5, "epochs": 2.0, "num_tokens": 4990.0}
    for name, value in constants.items():
        client.log_metric(run_id, name, value)
    recording.complete_run(ledger, run_id, {"loss": 2.5}, step=3)
    (run,) = tracking.fetch_runs(ledger)
    assert {name: getattr(run, name) for name in constants} == constants


def test_a_trial_that_is_trained_again_may_take_another_time(ledger):
    run_id = start(ledger)
    for seconds in (1.5, 2.5):  # the process was killed before the last tag was written
        metrics = {"loss": 2.5, "flops": 3e7, "wall_time_s": seconds}
        recording.complete_run(ledger, run_id, metrics, step=3)
    (run,) = tracking.fetch_runs(ledger)
    assert run.wall_time_s == 2.5


def test_what_is_constant_is_no_metric_of_which_mlflow_would_draw_a_chart(ledger):
    run_id = start(ledger)
    constants = {"flops": 3e7, "wall_time_s": 1.5, "epochs": 2.0, "num_tokens": 4990.0}
    recording.complete_run(ledger, run_id, {"loss": 2.5, **constants}, step=3)
    data = client_of(ledger.tracking_uri).get_run(run_id).data
    assert set(data.metrics) == {"loss"}
    (run,) = tracking.fetch_runs(ledger)
    assert {name: getattr(run, name) for name in constants} == constants
    assert float(data.params["epochs"]) == 2.0
    assert float(data.params["log10_num_params"]) == pytest.approx(
        math.log10(float(data.params["num_params"])), abs=1e-4
    )
    assert tracking.fetch_runs(ledger)[0].epochs == 2.0


def test_epochs_of_an_older_version_are_a_metric(ledger):
    run_id = start(ledger)
    client_of(ledger.tracking_uri).log_metric(run_id, "epochs", 1.5)
    recording.complete_run(ledger, run_id, {"loss": 2.5}, step=3)
    assert tracking.fetch_runs(ledger)[0].epochs == 1.5


def test_the_description_of_a_sweep_begins_with_a_link_to_its_report(ledger):
    tracking.write_note(ledger, "3 of 4 trials have ended")
    tags = client_of(ledger.tracking_uri).get_run(ledger.parent_run_id).data.tags
    first, *rest = tags["mlflow.note.content"].splitlines()
    page = f"runs/{ledger.parent_run_id}/artifacts/report.html?workflowType=machine_learning"
    assert page in first
    assert rest[-1] == "3 of 4 trials have ended"


def test_a_store_that_is_not_there_is_not_made_by_asking(tmp_path):
    with pytest.raises(SweepError, match="no store at"):
        tracking.find_ledger("a", f"sqlite:///{tmp_path}/none/mlflow.db")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["", "  ", "x" * 201, "line\nbreak", None, "nul\0"])
def test_names_that_mlflow_would_mangle_are_refused(name):
    with pytest.raises(ArgumentError, match="name: expected"):
        tracking.check_name(name)


@pytest.mark.parametrize("name", ['it\'s "both"', "../../up", "</script><img onerror=x>", "π 🚀"])
def test_odd_names_work(store, name):
    uri = f"sqlite:///{store}/mlflow.db"
    ledger = tracking.open_ledger(name, uri)
    recording.complete_run(ledger, start(ledger), {"loss": 2.0}, 1)
    found = tracking.find_ledger(name, uri)
    assert found == ledger
    assert len(tracking.fetch_runs(found)) == 1


def test_artifacts_lie_beside_the_store(ledger, store, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "note.txt").write_text("hello")
    tracking.log_analysis(ledger, folder, {"law_E": 1.0, "law_A": math.inf})
    kept = list((store / "artifacts").rglob("note.txt"))
    assert len(kept) == 1


def test_the_sweeps_of_a_store_are_listed(ledger):
    other = tracking.open_ledger("another", ledger.tracking_uri)
    client_of(ledger.tracking_uri).create_experiment("no sweep of ours")
    assert tracking.list_ledgers(ledger.tracking_uri) == [other, ledger]


def test_curves_come_back_thinned_in_order_with_their_ends(ledger):
    run_id = start(ledger)
    points = [(step, step, {"train_loss": 1 / step}) for step in range(1, 1001)]
    recording.log_points(ledger, run_id, points)
    recording.complete_run(ledger, run_id, {"loss": 2.5}, 1000)
    runs = tracking.fetch_runs(ledger)
    curves = tracking.fetch_curves(ledger, runs, most_points=200)
    assert set(curves["trial_id"]) == {TRIAL.trial_id}
    assert curves["num_tokens"].tolist() == list(range(5, 1001, 5))
    assert curves["loss"].iloc[-1] == 1e-3
    assert tracking.fetch_curves(ledger, []).empty


def test_an_artifact_of_a_local_store_is_told_by_its_path(ledger, store):
    place = Path(tracking.artifact_address(ledger, "report.html"))
    assert place.parent == store / "artifacts" / ledger.parent_run_id / "artifacts"
