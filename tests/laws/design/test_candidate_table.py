"""Tables of possible runs, and runs under way."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from designs import possible, sweep

from flops_fit.errors import FlopsFitWarning, TableError
from flops_fit.laws.design.candidate_table import (
    MOST,
    not_made,
    read_candidates,
    thinned,
    under_way,
)
from flops_fit.laws.runs.budgets import group_budgets
from flops_fit.laws.runs.table import read_runs

N, C = [1e8, 1e9, 3e9], [1e19, 1e20, 1e20]


@pytest.mark.parametrize(
    "table",
    [
        {"N": N, "C": C},
        {"num_params": N, "num_tokens": [c / 6 / n for c, n in zip(C, N, strict=True)]},
        {"params": ["100M", "1B", "3B"], "flops": ["1e19", "1e20", "10^20"]},
        {"params (M)": [100, 1000, 3000], "compute_budget": C},
        {"N": N, "C": [1e19, np.nan, 1e20], "D": [np.nan, 1e20 / 6e9, np.nan]},
        {"N": N, "C": C, "D": [c / 6 / n for c, n in zip(C, N, strict=True)], "loss": 3.0},
    ],
)
def test_what_a_table_leaves_out_follows_from_the_rest(findings, table):
    read = read_candidates(pd.DataFrame(table), findings)
    np.testing.assert_allclose(read["num_params"], N)
    np.testing.assert_allclose(read["flops"], C)
    np.testing.assert_allclose(read["compute_budget"], C)
    np.testing.assert_allclose(6 * read["num_params"] * read["num_tokens"], C)


def test_the_table_may_be_a_file_or_a_plan(findings, tmp_path):
    frame = pd.DataFrame({"N": N, "C": C})
    frame.to_csv(tmp_path / "possible.csv", index=False)
    expected = read_candidates(frame, findings)
    for same in (tmp_path / "possible.csv", frame.to_dict("records"), frame.to_dict("list")):
        pd.testing.assert_frame_equal(read_candidates(same, findings), expected)


def test_rows_keep_the_index_of_the_frame(findings):
    frame = pd.DataFrame({"N": [*N, np.nan], "C": [*C, np.nan]}, index=list("abcd"))
    assert read_candidates(frame, findings).index.tolist() == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "candidates: expected columns for N .* found: none"),
        ({"a": [1], "b": [2]}, "found: a, b"),
        ({"N": N}, "and for C .* or D"),
        ({"N": [], "C": []}, "the table has no rows"),
        ({"N": [1e8, "x", 3e9], "C": C}, "row 1: expected positive numbers, got num_params = x"),
        ({"N": N, "C": [-1, 0, np.inf]}, "3 faults in the candidates"),
        ({"N": [1e8, np.nan, 3e9], "C": C}, "row 1: N is missing, or both C and D"),
        ({"N": N, "C": C, "D": [1e3] * 3}, r"row 0: C is 1e\+19 FLOPs, but N and D spend 6e\+11"),
        ({"N": [0.5], "D": [1e19]}, "row 0: expected at least one parameter and one token"),
        ({"N": [-1.0] * 30, "C": [1e19] * 30}, "and 10 more"),
    ],
)
def test_all_faults_of_a_table_are_told(findings, table, message):
    with pytest.raises(TableError, match=message):
        read_candidates(pd.DataFrame(table), findings)


def test_what_is_no_table_is_refused(findings):
    for wrong in (5, None, ["a"], "no_such.csv"):
        with pytest.raises(TableError, match="candidates: "):
            read_candidates(wrong, findings)


def with_run(findings, state, **values):
    """The laws of a sweep with one more run in its table, at 3e20 FLOPs, in some state."""
    run = possible({3e20: (0.3,)}).assign(state=state, **values)
    runs = pd.concat([sweep().assign(state="finished"), run], ignore_index=True)
    return replace(findings, runs=read_runs(runs)[0])


@pytest.mark.parametrize("state", ["running", "PENDING", "TrialState.WAITING", "1", "planned"])
def test_runs_that_are_trained_or_wait_are_under_way(findings, state):
    waiting = under_way(with_run(findings, state))
    assert waiting["compute_budget"].tolist() == [3e20]
    assert np.isfinite(waiting).all(axis=None)


@pytest.mark.parametrize("state", ["failed", "CANCELLED", "crashed", "OUT_OF_MEMORY", "finished"])
def test_runs_that_failed_or_ended_are_not(findings, state):
    values = {"loss": 2.5} if state == "finished" else {}
    assert under_way(with_run(findings, state, **values)).empty


@pytest.mark.parametrize("missing", ["num_tokens", "compute_budget", "flops"])
def test_what_a_run_under_way_lacks_follows_from_the_rest(findings, missing):
    waiting = under_way(with_run(findings, "running", **{missing: np.nan}))
    pd.testing.assert_frame_equal(
        waiting.reset_index(drop=True), possible({3e20: (0.3,)}), check_column_type=False
    )


def test_a_run_under_way_without_n_is_left_out_with_a_warning(findings):
    runs = findings.runs.copy()
    runs.loc[3, ["state", "excluded", "num_params"]] = ["running", "running", np.nan]
    with pytest.warns(FlopsFitWarning, match="not counted: rows 3"):
        assert under_way(replace(findings, runs=runs)).empty


def test_runs_that_look_for_the_recipe_are_not_under_way_for_the_law(findings):
    runs = findings.runs.copy()
    runs.loc[[3, 4], ["state", "excluded"]] = "running"
    runs.loc[4, "role"] = "pilot"
    assert under_way(replace(findings, runs=runs)).index.tolist() == [3]


def test_candidates_that_have_been_made_are_known_by_n_and_d():
    table = possible({1e18: (-0.5, 0.0), 1e20: (0.0,)})
    made = table.iloc[[1]] * 1.003
    assert not_made(table, made).tolist() == [True, False, True]
    assert not_made(table, made.iloc[:0]).all()


@pytest.mark.parametrize(
    ("rows", "sizes"), [(2, 1000), (30, 30), (3000, 1), (500, 6), (1, 5000), (3, 4)]
)
def test_large_tables_are_thinned_out_over_rows_and_sizes(rows, sizes):
    budgets = np.geomspace(1e10, 1e40 if rows > 100 else 1e20, rows)
    table = possible({float(C): np.linspace(-2, 2, sizes) for C in budgets})
    label = group_budgets(table["compute_budget"])
    kept = thinned(table, label)
    assert len(kept) == len(set(kept)) <= MOST
    assert len(kept) >= min(len(table), MOST / 2)
    assert {label[kept].min(), label[kept].max()} == {label.min(), label.max()}
    sizes_kept = pd.Series(label[kept]).value_counts()
    assert sizes_kept.min() >= min(4, sizes)
