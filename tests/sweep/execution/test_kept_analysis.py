"""A finished sweep that is called again: fits and report are made only where something changed."""

import shutil
from dataclasses import fields
from pathlib import Path

import pandas as pd
import pytest

from flops_fit import analysis, tracking
from flops_fit.report import html_page
from flops_fit.store.client import client_of

# The finished store is a copy.
pytestmark = pytest.mark.filterwarnings("ignore:the store of the sweep")


@pytest.fixture
def work(monkeypatch, tmp_path):
    """What was done: a list of "fit" and "report"."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    done = []
    fit = analysis.fit

    def counted_fit(*args, **kwargs):
        done.append("fit")
        return fit(*args, **kwargs)

    def report(result, folder):
        done.append("report")
        (folder / "report.html").write_text(
            f"{result!r}{html_page.FORECASTS[0]}{html_page.FORECASTS[1]}"
        )

    monkeypatch.setattr(analysis, "fit", counted_fit)
    monkeypatch.setattr(analysis, "_write_report", report)
    return done


@pytest.fixture
def analyzed(finished, work):
    """The ledger of a sweep that was analysed once, and the result."""
    result = analysis.analyze_ledger(finished.ledger)
    work.clear()
    return finished.ledger, result


def address(ledger, name):
    return Path(tracking.artifact_address(ledger, name))


def test_nothing_is_done_again_and_the_result_is_the_same(analyzed, work):
    ledger, result = analyzed
    again = analysis.analyze_ledger(ledger, build_size=int)
    assert work == []
    assert again.build_size is int
    for field in fields(result.findings):
        one, two = (getattr(r.findings, field.name) for r in (result, again))
        if isinstance(one, pd.DataFrame):
            pd.testing.assert_frame_equal(one, two, check_exact=True, check_column_type=False)
        elif field.name != "build_size":
            assert repr(one) == repr(two), field.name


def _delete_a_run(ledger):
    client_of(ledger.tracking_uri).delete_run(tracking.fetch_runs(ledger)[0].run_id)


def _change_a_loss(ledger):
    run = tracking.fetch_runs(ledger)[0]
    client_of(ledger.tracking_uri).log_metric(run.run_id, "loss", 2.0, step=10**15)


def _change_meta(ledger):
    tracking.write_meta(ledger, {**tracking.read_meta(ledger), "data_unit": "tokens"}, "")


@pytest.mark.parametrize(
    "change",
    [
        _delete_a_run,
        _change_a_loss,
        _change_meta,
        lambda ledger: shutil.rmtree(address(ledger, "laws")),
    ],
    ids=["a run less", "another loss", "another unit", "no laws"],
)
def test_what_changed_is_fitted_and_drawn_again(analyzed, work, change):
    ledger, _ = analyzed
    change(ledger)
    analysis.analyze_ledger(ledger)
    assert work == ["fit", "report"]
    work.clear()
    analysis.analyze_ledger(ledger)
    assert work == []


def test_another_version_fits_again(analyzed, work, monkeypatch):
    monkeypatch.setattr("flops_fit.laws.pipeline.seal.source_digest", lambda: "another")
    analysis.analyze_ledger(analyzed[0])
    assert work == ["fit", "report"]


@pytest.mark.parametrize("change", [Path.unlink, lambda path: path.write_text("edited")])
def test_a_report_that_is_gone_or_edited_is_drawn_again_without_a_fit(analyzed, work, change):
    change(address(analyzed[0], "report.html"))
    analysis.analyze_ledger(analyzed[0])
    assert work == ["report"]


def test_a_new_forecast_is_scored_and_shown_without_a_fit_or_a_drawing(analyzed, work):
    ledger, result = analyzed
    made = result.forecast(result.largest_budget)
    again = analysis.analyze_ledger(ledger)
    assert again.forecasts["id"].tolist() == [made.id]
    assert made.id in repr(again.forecasts)
    pd.testing.assert_frame_equal(analysis.analyze_ledger(ledger).forecasts, again.forecasts)
    assert work == []
    report = address(ledger, "report.html").read_text()
    assert report.count('id="forecasts-head"') == 1
    assert report.startswith(repr(result))
    assert "Forecasts: " in address(ledger, "summary.txt").read_text()
    assert len(analysis.fit_ledger(ledger).forecasts) == 1


def test_predictions_read_the_laws_that_were_logged(analyzed, work):
    ledger, result = analyzed
    read = analysis.fit_ledger(ledger)
    assert work == []
    assert read.curves.empty
    assert repr(read) == repr(result)


def test_a_report_that_could_not_be_drawn_is_tried_again(finished, work, monkeypatch):
    drawn = analysis._write_report
    monkeypatch.setattr(analysis, "_write_report", lambda *args: None)
    analysis.analyze_ledger(finished.ledger)
    monkeypatch.setattr(analysis, "_write_report", drawn)
    work.clear()
    analysis.analyze_ledger(finished.ledger)
    assert work == ["report"]
