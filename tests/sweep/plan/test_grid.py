"""What a plan shows: a row a trial, totals, what is done, a picture."""

import re

import numpy as np
import pytest
from planned import UNLIMITED

from flops_fit import tracking
from flops_fit.errors import ArgumentError
from flops_fit.report import plan_text
from flops_fit.report.plots import style
from flops_fit.report.plots.sweeps.plan import plot_plan
from flops_fit.tracking import recording


@pytest.fixture
def half_done(planned, store):
    """A plan whose first budget is trained, and what was given for it."""
    uri = f"sqlite:///{store}/mlflow.db"
    plan = planned()
    ledger = tracking.open_ledger("half", uri)
    for trial in plan.trials[:7]:
        run_id = recording.start_run(ledger, trial, plan.setting, {}, "host|1|2|x")
        recording.complete_run(ledger, run_id, {"loss": 1.0}, trial.num_tokens)
    return planned(name="half", tracking_uri=uri)


def test_a_row_a_trial_with_all_that_matters(planned):
    plan = planned()
    head, *rows = repr(plan).splitlines()[1:16]
    assert head.split() == [
        "C", "width", "N", "D,", "examples", "D/N", "steps", "batch", "lr", "epochs", "FLOPs",
    ]  # fmt: skip
    for row, trial in zip(rows, plan.trials, strict=True):
        shown = row.split()
        assert shown[1] == str(trial.size)
        assert shown[5:7] == [f"{trial.steps:,}", f"{trial.batch_size:,}"]
        assert float(shown[9]) == pytest.approx(trial.flops, rel=5e-3)


def test_very_many_trials_are_summed_up(planned, monkeypatch):
    monkeypatch.setattr(plan_text, "MOST_ROWS", 13)
    lines = repr(planned()).splitlines()
    assert re.search(r"1e\+09 +7 +\d+ \(\d+\) to \d+ \(.*\) +.* to .* +6,\d+ to \d+ +64 ", lines[2])
    assert lines[4].endswith(".to_frame()")


def test_rows_too_short_for_a_curve_are_told(planned):
    three = repr(planned(sizes=[8, 16, 32]))
    assert "2 of 2 budgets (1e+09, 1e+10) have fewer than 4 sizes: no optimum" in three
    assert "fewer than" not in repr(planned(sizes=[8, 16, 32, 64]))


def test_what_is_done_is_shown_where_it_was_looked_up(half_done, planned):
    done = half_done.to_frame()["done"]
    assert done.tolist() == [True] * 7 + [False] * 7
    assert half_done.to_do == half_done.trials[7:]
    left = f"{sum(trial.flops for trial in half_done.to_do):.3g} FLOPs left"
    assert f"; 7 done, {left}\n" in repr(half_done)
    assert sum(line.endswith("yes") for line in repr(half_done).splitlines()) == 7
    assert "done" not in repr(planned())
    assert "done" not in planned().to_frame()


def test_of_a_sweep_not_begun_nothing_is_done(planned, store):
    uri = f"sqlite:///{store}/mlflow.db"
    assert planned(name="never", tracking_uri=uri).done == frozenset()


def test_a_bad_name_is_refused_with_the_other_faults(planned):
    with pytest.raises(ArgumentError, match=r"(?s)name: .*compute_budgets|compute_budgets.*name: "):
        planned(name="", compute_budgets=[-1])


def test_notebooks_show_the_same_and_names_stay_text(planned, mlp):
    def hostile(width):
        return mlp(width)

    hostile.__qualname__ = "<img src=x onerror=alert(1)>"
    page = planned(model_cls=hostile)._repr_html_()
    assert "<img" not in page
    assert "&lt;img src=x" in page
    assert page.count("<tr") == 15


def test_the_picture_holds_each_trial_and_a_line_a_budget(half_done, planned):
    ax = plot_plan(half_done)
    points = [line for line in ax.lines if line.get_marker() in style.MARKERS]
    drawn = np.concatenate([np.stack(line.get_data(), axis=1) for line in points])
    assert {tuple(point) for point in drawn} == {
        (trial.num_params, trial.num_tokens) for trial in half_done.trials
    }
    hollow = [line for line in points if line.get_markerfacecolor() == "none"]
    assert {tuple(p) for line in hollow for p in line.get_xydata()} == {
        (trial.num_params, trial.num_tokens) for trial in half_done.to_do
    }
    assert ax.get_xscale() == ax.get_yscale() == "log"
    (rule,) = [line for line in ax.lines if line.get_linestyle() == "--"]
    np.testing.assert_allclose(rule.get_ydata(), 20 * rule.get_xdata())
    texts = [text.get_text() for text in ax.get_legend().get_texts()]
    assert texts == ["1e+09", "1e+10", "to do", "D = 20 N"]
    assert planned().plot().axes[0].get_ylabel() == "data D, examples"


def test_lines_of_the_picture_are_iso_flop(planned):
    plan = planned(recipe=UNLIMITED)
    ax = plot_plan(plan)
    lines = [line for line in ax.lines if line.get_linestyle() == "-" and len(line.get_xdata()) > 2]
    for line, budget in zip(lines, plan.compute_budgets, strict=True):
        N, D = line.get_data()
        kappa = plan.trials[0].flops / plan.trials[0].num_tokens / plan.trials[0].num_params
        np.testing.assert_allclose(kappa * N * D, budget, rtol=0.2)
