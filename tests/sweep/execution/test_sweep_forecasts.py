"""Forecasts of a sweep: on its parent run, and scored when the runs arrive."""

import json
import pickle
from pathlib import Path

import pytest
from sweeps import SMALL_BUDGETS, SMALL_SIZES, plan_of, sweep

import flops_fit
from flops_fit import tracking
from flops_fit.analysis import fit_ledger
from flops_fit.errors import FlopsFitWarning, StoreError
from flops_fit.tracking import artifacts

LATER = 6e8


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def lies_at(ledger) -> Path:
    """The folder of the forecasts in the store."""
    return Path(tracking.artifact_address(ledger, "forecasts"))


@pytest.mark.slow
def test_a_run_that_arrives_later_is_the_outcome(small, planted):
    small.run()
    result = fit_ledger(small.ledger)
    assert result.forecasts.empty
    (trial,) = plan_of((*SMALL_BUDGETS, LATER))[1].plan.trials[-2:-1]
    N, D = float(trial.num_params), float(trial.num_tokens)
    made = result.forecast(num_params=N, num_tokens=D, note="before it ran")
    assert Path(made.artifact).read_text() == made.path.read_text()
    assert Path(made.artifact).is_relative_to(lies_at(small.ledger))
    assert result.forecasts.empty  # of an analysis that is over; the next one lists it
    waiting = fit_ledger(small.ledger)
    assert waiting.forecasts["status"].tolist() == ["not yet run"]
    assert "Forecasts: 1 not yet run" in repr(waiting)

    later = sweep(small.folder, [*SMALL_BUDGETS, LATER], sizes=SMALL_SIZES, extend=False)
    (row,) = later.forecasts.to_dict("records")
    assert (row["status"], row["note"], row["id"]) == ("scored", "before it ran", made.id)
    came = later.runs[later.runs["trial_id"] == trial.trial_id]["loss"].item()
    assert row["outcome"] == pytest.approx(came, rel=1e-9)
    assert row["error"] == pytest.approx(made.loss / came - 1)
    assert "Forecasts: 1 of 1 inside" in repr(later)
    later.save("saved")
    assert repr(flops_fit.Result.load("saved")) == repr(later)


def test_a_forecast_of_what_is_there_is_not_counted(finished):
    result = fit_ledger(finished.ledger)
    result.forecast(SMALL_BUDGETS[1])
    again = fit_ledger(finished.ledger)
    assert again.forecasts["status"].tolist() == ["the run was already in the data"]
    assert "Forecasts: 1 of runs already in the data" in repr(again)


def test_a_result_is_sent_between_processes_with_its_sweep(finished):
    result = pickle.loads(pickle.dumps(fit_ledger(finished.ledger)))
    assert Path(result.forecast(1e10).artifact).is_file()


def test_damaged_and_foreign_forecasts_in_the_store_are_left_out(finished):
    made = fit_ledger(finished.ledger).forecast(1e10)
    folder = lies_at(finished.ledger)
    document = json.loads(Path(made.artifact).read_text())
    (folder / "changed.json").write_text(json.dumps({**document, "loss": 1.0}))
    (folder / "bytes.json").write_bytes(b"\xff\x00\xfe")
    (folder / "note.txt").write_text("not JSON")
    with pytest.warns(FlopsFitWarning, match=r"(?s)bytes\.json .*changed\.json was changed"):
        result = fit_ledger(finished.ledger)
    assert result.forecasts["id"].tolist() == [made.id]
    assert "Forecasts: 1 not yet run; 2 unreadable\n" in repr(result) + "\n"
    assert "not logged" not in str(made)


def test_a_store_that_cannot_be_written_is_a_warning_and_the_file_is_there(finished, monkeypatch):
    result = fit_ledger(finished.ledger)

    class ReadOnly:
        def __getattr__(self, name):
            raise PermissionError("Permission denied: artifacts")

    monkeypatch.setattr(artifacts, "client_of", lambda uri: ReadOnly())
    with pytest.warns(FlopsFitWarning, match="not on the parent run of the sweep .*Permission"):
        made = result.forecast(1e10)
    assert made.artifact == ""
    assert "not logged to the sweep" in str(made)
    assert flops_fit.load_forecast(made.path) == made


@pytest.mark.parametrize("error", [StoreError("gone"), ValueError("no credentials for s3")])
def test_forecasts_that_cannot_be_fetched_stop_no_fit(finished, monkeypatch, error):
    def fetch(ledger):
        raise error

    monkeypatch.setattr(tracking, "fetch_forecasts", fetch)
    if isinstance(error, StoreError):  # the store itself is away, which is waited for
        with pytest.raises(StoreError):
            fit_ledger(finished.ledger)
    else:
        with pytest.warns(FlopsFitWarning, match="cannot be read .*no credentials"):
            assert fit_ledger(finished.ledger).forecasts.empty
