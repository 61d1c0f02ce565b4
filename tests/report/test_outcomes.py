"""Forecasts and their outcomes as text."""

import numpy as np
import pandas as pd
import pytest

from flops_fit.report.outcomes import (
    AMBIGUOUS,
    IN_DATA,
    LEFT_OUT,
    NOT_RUN,
    OTHER_DATA,
    OTHER_SETTING,
    SCORED,
    TEXT_COLUMNS,
    outcomes_as_cells,
    summary_line,
)


def row(status=SCORED, **values):
    came = status == SCORED
    return {
        "made_at": "2026-11-29T10:34:14.298130+00:00",
        "note": "a note",
        "of_budget": True,
        "compute_budget": 1e15,
        "num_params": 2.45e6,
        "num_tokens": 6.8e7,
        "data_unit": "tokens",
        "loss": 1.833,
        "loss_low": 1.825,
        "loss_high": 1.841,
        "run_low": 1.821,
        "run_high": 1.845,
        "status": status,
        "outcome": 1.84 if came else np.nan,
        "came_from": "run" if came else "",
        "error": -0.0038 if came else np.nan,
        "inside_loss": True if came else None,
        "inside_run": True if came else None,
        "best_num_params": 2.4e6 if came else np.nan,
        "inside_num_params": True if came else None,
        **values,
    }


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([], ""),
        ([row(NOT_RUN)], "Forecasts: 1 not yet run"),
        (
            [row(), row(inside_loss=False, error=0.001), row(NOT_RUN), row(NOT_RUN), row(IN_DATA)],
            "Forecasts: 2 of 2 inside the 95 % interval of one run, 1 of 2 inside that of the law; "
            "median error 0.24 %; 2 not yet run; 1 of runs already in the data",
        ),
        (
            [row(inside_run=False, inside_loss=False, error=0.05), row(OTHER_SETTING)],
            "Forecasts: 0 of 1 inside the 95 % interval of one run, 0 of 1 inside that of the law; "
            "median error 5 %; 1 of another model, data or recipe",
        ),
    ],
)
def test_one_line_sums_it_up(rows, line):
    assert summary_line(pd.DataFrame(rows)) == line


def test_cells_have_units_and_words():
    (cells,) = outcomes_as_cells(pd.DataFrame([row()])).to_dict("records")
    assert cells == {
        "made, UTC": "2026-11-29 10:34",
        "forecast of": "1e+15 FLOPs: N 2.45M, D 68.0M tokens",
        "loss": "1.833",
        "loss, 95 %": "1.825 to 1.841",
        "one run, 95 %": "1.821 to 1.845",
        "outcome": "1.840 (run, best N 2.40M)",
        "error": "-0.38 %",
        "inside": "law yes, one run yes, N yes",
        "note": "a note",
    }
    assert set(TEXT_COLUMNS) < set(cells)


@pytest.mark.parametrize("status", [NOT_RUN, IN_DATA, OTHER_SETTING])
def test_what_has_not_come_out_says_why(status):
    table = pd.DataFrame([row(status, of_budget=False), row()])
    cells = outcomes_as_cells(table).iloc[0]
    assert cells["outcome"] == status
    assert (cells["error"], cells["inside"]) == ("", "")
    assert cells["forecast of"] == "N 2.45M, D 68.0M tokens"


def test_a_run_that_was_left_out_has_its_reason():
    table = pd.DataFrame([row(LEFT_OUT, came_from="warm-up")])
    assert outcomes_as_cells(table)["outcome"][0] == "run, but left out: warm-up"


def test_no_forecasts_are_no_rows():
    assert outcomes_as_cells(pd.DataFrame()).empty


@pytest.mark.parametrize("rows", [[], [row()], [row(NOT_RUN)]])
def test_stored_forecasts_that_cannot_be_read_are_counted(rows):
    outcomes = pd.DataFrame(rows)
    outcomes.attrs["unreadable"] = 1
    assert summary_line(outcomes).endswith("1 unreadable")


@pytest.mark.parametrize(
    ("note", "cell"),
    [("a" * 301, "a" * 299 + "\u2026"), ("two\nlines\tof\x1b text", "two lines of text"), ("", "")],
)
def test_notes_are_one_short_line_of_a_table(note, cell):
    assert outcomes_as_cells(pd.DataFrame([row(note=note)]))["note"][0] == cell


@pytest.mark.parametrize(
    ("status", "why", "cell"),
    [
        (AMBIGUOUS, "dataset is c4, code", "ambiguous: dataset is c4, code"),
        (OTHER_DATA, "100 passes", "other data: 100 passes"),
        (LEFT_OUT, "failed", "run, but left out: failed"),
    ],
)
def test_why_a_run_does_not_count_is_said(status, why, cell):
    outcomes = pd.DataFrame([row(status, came_from=why, by="dataset c4")])
    (cells,) = outcomes_as_cells(outcomes).to_dict("records")
    assert cells["outcome"] == cell
    assert cells["forecast of"].startswith("dataset c4: 1e+15 FLOPs")
    assert "Forecasts: 1 " in summary_line(outcomes)
