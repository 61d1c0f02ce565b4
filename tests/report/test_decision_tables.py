from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from measures import measured_runs

from flops_fit.report import decision_tables, html_page
from flops_fit.report.plots.panels import plot_findings
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


@pytest.mark.slow
def test_the_page_shows_both_and_escapes_names(findings):
    named = replace(findings.metrics["accuracy"], name="<b>acc</b>")
    hostile = replace(findings, metrics={named.name: named})
    page = html_page.page(hostile, html_page.Plots({}, {}))
    assert 'id="metrics-head"' in page
    assert 'id="times-head"' in page
    assert "<b>acc</b>" not in page
    assert "&lt;b&gt;acc&lt;/b&gt;" in page


ROUNDS = pd.DataFrame(
    {
        "flops": [1e13, 2e13],
        "num_runs": [12.0, 14.0],
        "span": [np.inf, 1.2],
        "loss_span": [1.1, 1.05],
        "target": [1e13, 1e13],
        "until": [1.25, 1.25],
        "next": [["width=8 C=1e+12: tests <b>", "width=9 C=1e+12: tests <b>"], []],
        "message": ["", "It is known. The sweep ends: as precise as asked for"],
    }
)


def test_rounds_have_the_trials_chosen_by_reason_and_why_the_sweep_ends(findings):
    first, last = decision_tables.rounds_as_cells(replace(findings, rounds=ROUNDS)).to_dict(
        "records"
    )
    assert first["then"] == "tests <b>: width=8 C=1e+12, width=9 C=1e+12"
    assert first["N_opt spans"] == "not known"
    assert last["then"] == "The sweep ends: as precise as asked for"
    assert last["N_opt spans"] == "1.2"


@pytest.mark.slow
def test_the_report_of_a_sweep_with_a_goal_shows_its_rounds(findings):
    assert "<h2>Rounds" not in html_page.page(findings, html_page.Plots({}, {}))
    page = html_page.page(replace(findings, rounds=ROUNDS), html_page.Plots({}, {}))
    assert 'id="rounds-head">Rounds</h2>' in page
    assert "tests &lt;b&gt;: width=8" in page
    assert "<p>It is known. The sweep ends: as precise as asked for.</p>" in page


def test_the_plot_of_rounds_leaves_out_what_is_not_known(findings):
    figure = plot_findings(replace(findings, rounds=ROUNDS), "rounds")
    (ax,) = figure.axes
    assert [len(line.get_xdata()) for line in ax.lines] == [1, 2, 2]  # the last: what is asked for


def test_without_rounds_the_plot_says_what_to_pass(findings):
    figure = plot_findings(findings, "rounds")
    assert "pass target=" in figure.axes[0].texts[0].get_text().replace("\n", " ")
