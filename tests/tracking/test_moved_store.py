"""Stores that were deleted, copied, renamed or locked, and experiments that were renamed."""

import os
import shutil
from pathlib import Path

import pytest
from sweeps import LAW

from flops_fit import analysis, tracking
from flops_fit.errors import FlopsFitWarning, StoreError, SweepError
from flops_fit.laws.runs.simulate import simulate_isoflop
from flops_fit.result import fit
from flops_fit.store import client
from flops_fit.store.client import client_of, exclusive
from flops_fit.tracking.artifacts import made_in


def uri_in(folder):
    return f"sqlite:///{folder}/mlflow.db"


@pytest.fixture
def report(tmp_path):
    """A folder with a report."""
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "report.html").write_text("a report")
    return tmp_path / "new"


def test_artifacts_lie_beside_a_store_that_did_not_move(store, report):
    ledger = tracking.open_ledger("a", uri_in(store))
    tracking.log_analysis(ledger, report, {})
    path = Path(tracking.artifact_address(ledger, "report.html"))
    assert path.read_text() == "a report"
    assert path.is_relative_to(store / "artifacts")
    assert ledger.made_in == ""
    assert ledger.first_uri == ledger.tracking_uri


@pytest.mark.parametrize("old_place", ["gone", "there", "a file"])
def test_artifacts_lie_beside_a_store_that_moved(store, report, tmp_path, old_place):
    before = tracking.open_ledger("a", uri_in(store))
    moved = tmp_path / "moved"
    shutil.copytree(store, moved)
    if old_place != "there":
        shutil.rmtree(store)
    if old_place == "a file":
        store.write_text("")
    ledger = tracking.find_ledger("a", uri_in(moved))
    with pytest.warns(FlopsFitWarning, match=f"written to {moved}/artifacts.*not to {store}/art"):
        tracking.log_analysis(ledger, report, {"law_E": 1.0})
    path = Path(tracking.artifact_address(ledger, "report.html"))
    assert path.is_relative_to(moved)
    assert path.read_text() == "a report"
    assert not (store / "artifacts").exists()
    assert ledger.first_uri == before.tracking_uri  # names the folder of undelivered records


def test_a_link_is_the_same_place(store, report, tmp_path):
    tracking.open_ledger("a", uri_in(store))
    (tmp_path / "link").symlink_to(store)
    ledger = tracking.find_ledger("a", uri_in(tmp_path / "link"))
    tracking.log_analysis(ledger, report, {})
    assert ledger.made_in == ""


@pytest.mark.parametrize("location", ["s3://bucket/artifacts", "file:///data/runs", "mlruns/1"])
def test_artifacts_that_never_lay_beside_the_store_stay_where_they_are(location, tmp_path):
    assert made_in(location, tmp_path) is None


def test_a_result_that_cannot_be_logged_is_a_result(monkeypatch, store):
    def refuse(*args):
        raise StoreError("readonly database", refused=True)

    runs = simulate_isoflop(LAW, [1e17, 1e18, 1e19, 1e20])
    result = fit(runs, meta={"report": "/old/report.html", "a": "b"})
    fitted = analysis._Fitted(result, "key", lambda report: "", is_logged=False)
    monkeypatch.setattr(analysis, "_fit", lambda *args, **kwargs: fitted)
    monkeypatch.setattr(analysis, "_write_report", lambda *args: None)
    monkeypatch.setattr(tracking, "log_analysis", refuse)
    ledger = tracking.open_ledger("a", uri_in(store))
    with pytest.warns(
        FlopsFitWarning, match=r"could not be logged .readonly database.*result.save"
    ):
        logged = analysis.analyze_ledger(ledger)
    assert "report" not in logged.meta
    assert logged.meta["a"] == "b"
    assert logged.runs.equals(result.runs)


def test_a_store_that_was_deleted_is_made_anew(store, empty_store, monkeypatch):
    """Its schema is copied here, for MLflow takes seconds to make one."""
    uri = uri_in(store)
    first = tracking.open_ledger("a", uri)
    for again in range(2):
        shutil.rmtree(store)
        shutil.copytree(empty_store, store)
        ledger = tracking.open_ledger(f"b{again}", uri)
        assert ledger.parent_run_id != first.parent_run_id
        assert [found.name for found in tracking.list_ledgers(uri)] == [f"b{again}"]


def test_while_a_store_is_gone_nothing_is_written_to_a_new_one(store):
    ledger = tracking.open_ledger("a", uri_in(store))
    shutil.rmtree(store)
    with pytest.raises(StoreError, match="its file was deleted"):
        tracking.write_note(ledger, "a note")
    assert not store.exists()


@pytest.mark.parametrize("end", [None, KeyboardInterrupt])
def test_the_schema_of_a_store_is_made_with_fresh_connections(tmp_path, monkeypatch, end):
    made = []

    class Client:
        def __init__(self, tracking_uri):
            self.uri = tracking_uri

        def search_experiments(self):
            made.append(self.uri)
            Path(self.uri.removeprefix("sqlite:///")).touch()
            if end and len(made) == 1:
                raise end

    monkeypatch.setattr(client, "MlflowClient", Client)
    uri = uri_in(tmp_path)
    for _ in range(2):
        try:
            with exclusive(uri):
                pass
        except KeyboardInterrupt:
            assert not (tmp_path / "mlflow.db").exists()
        (tmp_path / "mlflow.db").unlink(missing_ok=True)
    assert len(made) == 2
    assert not [known for known in client._CLIENTS if str(tmp_path) in known]


def test_a_renamed_experiment_is_found_by_its_sweep(store):
    uri = uri_in(store)
    ledger = tracking.open_ledger('it\'s "a"', uri)
    client_of(uri).rename_experiment(ledger.experiment_id, "archive")
    for find in (tracking.open_ledger, tracking.find_ledger):
        with pytest.warns(FlopsFitWarning, match="is called 'archive' in MLflow now"):
            assert find('it\'s "a"', uri) == ledger
    assert tracking.find_ledger("archive", uri).parent_run_id == ledger.parent_run_id


def test_a_new_experiment_of_the_old_name_is_a_sweep_of_its_own(store):
    uri = uri_in(store)
    ledger = tracking.open_ledger("a", uri)
    client_of(uri).rename_experiment(ledger.experiment_id, "archive")
    client_of(uri).create_experiment("a")
    with pytest.warns(FlopsFitWarning, match="called 'archive' in MLflow now: pass name='archive'"):
        new = tracking.open_ledger("a", uri)
    assert new.experiment_id != ledger.experiment_id


def test_a_name_that_another_sweep_has_taken_is_refused(store):
    uri = uri_in(store)
    old, other = tracking.open_ledger("a", uri), tracking.open_ledger("b", uri)
    client_of(uri).rename_experiment(old.experiment_id, "archive")
    client_of(uri).rename_experiment(other.experiment_id, "a")
    for find in (tracking.open_ledger, tracking.find_ledger):
        with pytest.raises(SweepError, match="begun as 'b', and 'archive', which was begun as 'a'"):
            find("a", uri)
    assert tracking.open_ledger("archive", uri).experiment_id == old.experiment_id
    with pytest.warns(FlopsFitWarning, match="is called 'a' in MLflow now"):
        assert tracking.open_ledger("b", uri).experiment_id == other.experiment_id


@pytest.mark.parametrize("renamed", [False, True])
def test_a_deleted_experiment_is_said(store, renamed):
    uri = uri_in(store)
    ledger = tracking.open_ledger("a", uri)
    if renamed:
        client_of(uri).rename_experiment(ledger.experiment_id, "archive")
    client_of(uri).delete_experiment(ledger.experiment_id)
    with pytest.raises(SweepError, match="of the sweep 'a' was deleted in MLflow; restore it"):
        tracking.open_ledger("a", uri)


def test_a_renamed_parent_run_is_the_parent_run(store):
    uri = uri_in(store)
    ledger = tracking.open_ledger("a", uri)
    client_of(uri).update_run(ledger.parent_run_id, name="my best sweep")
    assert tracking.open_ledger("a", uri) == ledger


def test_the_folder_of_a_notebook_may_change_between_cells(store, monkeypatch, tmp_path):
    monkeypatch.chdir(store)
    ledger = tracking.open_ledger("a", "sqlite:///mlflow.db")
    os.chdir(tmp_path)
    assert tracking.read_meta(ledger) == {}
    assert tracking.find_ledger("a", store / "mlflow.db") == ledger
