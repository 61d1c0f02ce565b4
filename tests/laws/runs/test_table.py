import math

import numpy as np
import pandas as pd
import pytest

from flops_fit.errors import TableError
from flops_fit.laws.runs.table import read_curves, read_runs
from flops_fit.records import FIRST_RUN_COLUMNS, RUN_COLUMNS

ROWS = [
    {"params": 1e6, "tokens": 2e7, "loss": 3.0},
    {"params": 2e6, "tokens": 1e7, "loss": 3.1},
]


def test_columns_of_a_run_come_first_and_others_stay():
    table, _ = read_runs(pd.DataFrame(ROWS).assign(colour="red"))
    assert tuple(table.columns[: len(RUN_COLUMNS)]) == RUN_COLUMNS
    assert table["colour"].tolist() == ["red", "red"]


def test_runs_are_of_the_sweep_unless_their_role_says_otherwise():
    rows = [{**ROWS[0], "role": "pilot", "batch_size": 4}, {**ROWS[1], "role": None}]
    table, _ = read_runs(rows)
    assert table["role"].tolist() == ["pilot", "sweep"]
    assert table["batch_size"].tolist()[0] == 4
    assert read_runs(ROWS)[0]["role"].tolist() == ["sweep", "sweep"]


@pytest.mark.parametrize("values", [("train", "test"), ("pilot", "main"), (1, 2)])
def test_a_role_of_the_users_own_is_another_column(values):
    table, _ = read_runs(pd.DataFrame(ROWS).assign(role=values))
    assert table["role"].tolist() == ["sweep", "sweep"]
    assert table["role_given"].tolist() == list(values)
    table, _ = read_runs(pd.DataFrame(ROWS).assign(role=values), by=["role"])
    assert table["role"].tolist() == list(values)


def test_a_table_that_an_older_version_wrote_is_known(tmp_path):
    newest, _ = read_runs(pd.DataFrame(ROWS).assign(flops=1e15))
    # Its D is not questioned, as that of a table of another origin would be.
    table, checks = read_runs(newest[list(FIRST_RUN_COLUMNS)])
    pd.testing.assert_frame_equal(table, newest, check_column_type=False)
    assert checks == []


def test_an_exact_name_takes_precedence_over_an_alias():
    table, _ = read_runs([{**ROWS[0], "num_params": 5e6}])
    assert table.loc[0, "num_params"] == 5e6


def test_assumed_compute_is_noted():
    table, notes = read_runs(ROWS)
    assert table["flops"].tolist() == [6 * 1e6 * 2e7, 6 * 2e6 * 1e7]
    assert "6 N D was assumed" in notes[0].message


def test_csv_frame_and_dicts_give_the_same_table(tmp_path):
    path = tmp_path / "runs.csv"
    pd.DataFrame(ROWS).to_csv(path, index=False)
    tables = [read_runs(source)[0] for source in (ROWS, pd.DataFrame(ROWS), path, str(path))]
    for table in tables[1:]:
        pd.testing.assert_frame_equal(table, tables[0])


def test_every_fault_is_listed_with_its_row():
    rows = [
        *ROWS,
        {"params": -1, "tokens": 1e7, "loss": 3.0},
        {"params": "many", "tokens": None, "loss": 3.0},
        {"params": 1e6, "tokens": np.inf, "loss": "bad"},
        ROWS[0],
    ]
    with pytest.raises(TableError) as caught:
        read_runs(rows)
    problems = caught.value.problems
    assert "row 2: num_params must be positive and finite: -1" in problems
    assert "row 3: num_params is not a number: 'many'; num_tokens is missing" in problems
    bad = "num_tokens must be positive and finite: inf; loss is not a number: 'bad'"
    assert f"row 4: {bad}" in problems
    assert "row 5: the same run as row 0" in problems
    assert len(problems) == 4
    assert "rows count from 0" in str(caught.value)


def test_a_faulty_row_is_not_a_duplicate():
    rows = [{**ROWS[0], "params": bad} for bad in ("abc", "xyz")]
    with pytest.raises(TableError) as caught:
        read_runs(rows)
    assert caught.value.problems == [
        "row 0: num_params is not a number: 'abc'",
        "row 1: num_params is not a number: 'xyz'",
    ]


def test_rows_of_many_faults_are_all_listed():
    rows = [{**ROWS[0], "params": -i} for i in range(1, 54)]
    with pytest.raises(TableError, match=r"^53 faults") as caught:
        read_runs(rows)
    assert caught.value.problems[-1] == "... and 3 more, in rows 50, 51, 52"
    assert len(caught.value.problems) == 51


def test_two_seeds_are_not_duplicates():
    table, _ = read_runs([{**ROWS[0], "seed": 1}, {**ROWS[0], "seed": 2}])
    assert len(table) == 2


def test_unfinished_runs_and_infinite_losses_are_excluded_with_a_reason():
    rows = [
        *ROWS,
        {"params": 1e6, "tokens": 3e7, "loss": np.nan, "state": "failed"},
        {"params": 1e6, "tokens": 4e7, "loss": np.inf, "state": "complete"},
        {"params": np.nan, "tokens": 4e7, "loss": np.nan, "state": "running"},
        {"params": 1e6, "tokens": 5e7, "loss": 3.0, "excluded": "by hand"},
    ]
    table, _ = read_runs(rows)
    assert table["excluded"].tolist() == [
        "",
        "",
        "failed",
        "loss is not finite",
        "running",
        "by hand",
    ]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([{"N": 1, "loss": 2}], "num_tokens not found among: num_params, loss"),
        ([], "not found among: none"),
        (pd.DataFrame({"N": [], "D": [], "loss": []}), "no rows"),
        (3.5, "expected a DataFrame, the path of a file .* or a list of dicts, got float"),
        ([1, 2, 3], "one dict per run, with N, D and loss.*got a list whose row 0 is int 1"),
        ([ROWS[0], "N"], "got a list whose row 1 is str 'N'"),
        ("/no/such/file.csv", "no such file"),
    ],
)
def test_tables_that_cannot_be_read(source, message):
    with pytest.raises(TableError, match=message):
        read_runs(source)


def test_columns_that_occur_twice():
    frame = pd.DataFrame([[1, 2, 3, 4]], columns=["num_params", "num_params", "D", "loss"])
    with pytest.raises(TableError, match="occur twice: num_params"):
        read_runs(frame)


def test_the_given_table_is_not_changed():
    frame = pd.DataFrame(ROWS)
    before = frame.copy()
    read_runs(frame)
    pd.testing.assert_frame_equal(frame, before)


def test_training_curves_in_usual_forms():
    rows = [{"trial_id": 3, "tokens": "1e6", "val_loss": 3.5, "ended": True}]
    frame = read_curves(rows)
    assert frame.iloc[0].to_dict() == {
        "trial_id": "3",
        "num_tokens": 1e6,
        "loss": 3.5,
        "ended": True,
    }
    with pytest.raises(TableError, match="need columns trial_id, num_tokens, loss; trial_id not"):
        read_curves([{"tokens": 1e6, "loss": 3.5}])
    with pytest.raises(TableError, match="row 0: loss is not a number: 'x'"):
        read_curves([{**rows[0], "val_loss": "x"}])
    with pytest.raises(TableError, match="expected a DataFrame"):
        read_curves(3)


@pytest.mark.parametrize(
    ("column", "cell", "seconds"),
    [
        ("Duration", "2.1min", 126.0),
        ("runtime", "0:18:56", 1136.0),
        ("hours", "8h", 28800.0),
        ("hours", 2, 7200.0),
        ("seconds", "30", 30.0),
        ("seconds", "soon", math.nan),
    ],
)
def test_times_are_read_as_people_write_them(column, cell, seconds):
    found, _ = read_runs(pd.DataFrame(ROWS).assign(**{column: cell}))
    assert found["wall_time_s"].tolist() == pytest.approx([seconds] * 2, nan_ok=True)
