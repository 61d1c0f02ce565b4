import pandas as pd
import pytest
from tables import isoflop_table

from flops_fit.laws.runs.states import is_under_way
from flops_fit.laws.runs.table import read_runs

TABLE = isoflop_table()
BAD = TABLE.index % 6 == 0


def states(bad, good):
    return [bad if is_bad else good for is_bad in BAD]


@pytest.mark.parametrize(
    ("column", "bad", "good", "reason"),
    [
        ("State", "crashed", "finished", "crashed"),
        ("state", "killed", "finished", "killed"),
        ("status", "FAILED", "FINISHED", "FAILED"),
        ("status", "RUNNING", "FINISHED", "RUNNING"),
        ("status", 4, 3, "failed"),
        ("status", "ERROR", "TERMINATED", "ERROR"),
        ("state", "TrialState.PRUNED", "TrialState.COMPLETE", "TrialState.PRUNED"),
        ("run_status", "PENDING", "COMPLETED", "PENDING"),
        ("state", "who knows", "finished", "who knows"),
        ("crashed", True, False, "crashed"),
        ("finished", False, True, "not finished"),
        ("excluded", True, False, "excluded"),
        ("excluded", "by hand", "", "by hand"),
    ],
)
def test_runs_that_have_not_finished_are_left_out(column, bad, good, reason):
    table, checks = read_runs(TABLE.assign(**{column: states(bad, good)}))
    assert table["excluded"].tolist() == [reason if is_bad else "" for is_bad in BAD]
    assert checks == []


@pytest.mark.parametrize(("column", "value"), [("state", "CA"), ("status", "ok"), ("Status", 7)])
def test_columns_that_hold_other_things_exclude_nothing(column, value):
    table, _ = read_runs(TABLE.assign(**{column: value}))
    assert (table["excluded"] == "").all()
    assert (table["state"] == "complete").all()


@pytest.mark.parametrize(
    ("words", "under_way"),
    [
        (["running", "RUNNING", "RunStatus.RUNNING", "1", "1.0"], True),
        (["PENDING", "queued", "TrialState.WAITING", "scheduled", "planned"], True),
        (["failed", "CANCELLED", "crashed", "TrialState.PRUNED", "4", "preempted"], False),
        (["finished", "COMPLETED", "3", "", "who knows"], False),
    ],
)
def test_runs_under_way_are_told_from_those_that_ended(words, under_way):
    assert (is_under_way(pd.Series(words)) == under_way).all()
