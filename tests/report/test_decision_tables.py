from dataclasses import replace

import numpy as np
import pytest
from measures import measured_runs

from flops_fit.report import decision_tables, html_page
from flops_fit.result import fit


@pytest.fixture(scope="module")
def findings():
    return fit(measured_runs(), metrics=["accuracy", "coin"], num_draws=100).findings


def test_metrics_have_values_or_a_reason(findings):
    good, refused = decision_tables.metrics_as_cells(findings).to_dict("records")
    assert good["metric"] == "accuracy"
    assert good["1e+14 FLOPs"].startswith("0.")
    assert " to " in good["1e+15 FLOPs"]
    assert "the loss" in good["by"] or "compute" in good["by"]
    assert good["back-test"].endswith(" off")
    assert refused["by"].startswith("the runs show no trend")
    assert refused["1e+14 FLOPs"] == refused["back-test"] == ""


def test_times_have_what_to_train(findings):
    table = decision_tables.time_table(findings)
    assert table.speed.startswith("35 runs were timed. The largest model, ")
    assert 1 <= len(table.cells) <= decision_tables.MOST_ROWS
    row = table.cells.iloc[0]
    assert {"time on one device", "loss", "compute-optimal N", "its loss"} <= set(table.cells)
    assert " to " in row["N, parameters"]


def test_without_times_or_metrics_there_is_no_table(findings):
    bare = replace(findings, runs=findings.runs.assign(wall_time_s=np.nan), metrics={})
    assert decision_tables.time_table(bare) is None
    assert decision_tables.metrics_as_cells(bare).empty


def test_the_page_shows_both_and_escapes_names(findings):
    named = replace(findings.metrics["accuracy"], name="<b>acc</b>")
    hostile = replace(findings, metrics={named.name: named})
    page = html_page.page(hostile, html_page.Plots({}, {}))
    assert 'id="metrics-head"' in page
    assert 'id="times-head"' in page
    assert "<b>acc</b>" not in page
    assert "&lt;b&gt;acc&lt;/b&gt;" in page
