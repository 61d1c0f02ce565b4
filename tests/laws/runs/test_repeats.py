import numpy as np
import pandas as pd
import pytest
from tables import isoflop_table

from flops_fit.errors import TableError
from flops_fit.laws.runs.table import read_runs
from flops_fit.result import fit

TABLE = isoflop_table()
BEATEN = "another setting did better at this N and D"


def together(*tables):
    return pd.concat(tables, ignore_index=True)


def worse(factor, **columns):
    return TABLE.assign(loss=TABLE["loss"] * factor, **columns)


def codes(checks):
    return {check.code: check.severity for check in checks}


@pytest.mark.parametrize("column", ["lr", "learning_rate", "batch_size", "weight_decay"])
def test_the_best_of_tuned_settings_is_fitted(column):
    table, checks = read_runs(
        together(worse(1.02, **{column: 1}), worse(1.0, **{column: 2}), worse(1.03, **{column: 4}))
    )
    kept = table[table["excluded"] == ""]
    assert kept["loss"].tolist() == TABLE["loss"].tolist()
    assert set(table["excluded"]) == {"", BEATEN}
    assert codes(checks) == {"tuned": "note"}


def test_batches_that_end_in_whole_steps_are_of_one_point():
    tables = [
        worse(factor, batch_size=size, D=(TABLE["D"] / size).round() * size)
        for size, factor in ((2**19, 1.0), (2**20, 1.01))
    ]
    assert (read_runs(together(*tables))[0]["excluded"] == BEATEN).sum() == 35


def test_seeds_of_the_best_setting_are_all_fitted():
    rng = np.random.default_rng(0)
    tables = [
        worse(factor * (1 + 1e-3 * rng.standard_normal(35)), lr=lr, seed=seed)
        for lr, factor in ((1e-3, 1.02), (2e-3, 1.0))
        for seed in (1, 2)
    ]
    table, checks = read_runs(together(*tables))
    assert table.loc[table["excluded"] == "", "learning_rate"].unique().tolist() == [2e-3]
    assert (table["excluded"] == "").sum() == 70
    assert codes(checks) == {"tuned": "note", "seeds": "note"}


def test_a_few_tuned_points_are_a_doubt():
    few = together(worse(1.0, lr=1e-3), worse(0.99, lr=2e-3).head(5))
    assert codes(read_runs(few)[1]) == {"tuned": "warn"}


def test_data_sets_are_not_compared():
    both = together(worse(1.0, lr=1e-3, data="a"), worse(1.1, lr=2e-3, data="b"))
    table, checks = read_runs(both)
    assert (table["excluded"] == "").all()
    assert checks == []


@pytest.mark.parametrize(
    "named",
    [{"run_name": "s{}"}, {"seed": "{}"}, {"Name": "run {}"}, {"_timestamp": "{}"}, {"idx": "{}"}],
)
def test_seeds_with_rounded_losses_are_runs(named):
    tables = [
        isoflop_table(seed)
        .round({"loss": 2})
        .assign(**{column: text.format(seed) for column, text in named.items()})
        for seed in range(3)
    ]
    table, checks = read_runs(together(*tables))
    assert (table["excluded"] == "").all()
    assert len(table) == 105
    assert set(codes(checks)) <= {"seeds"}


def test_rows_equal_in_every_column_are_copies():
    with pytest.raises(TableError, match="column that tells them apart, such as seed") as caught:
        read_runs(together(TABLE, TABLE))
    assert caught.value.problems[0] == "row 35: the same run as row 0"
    with pytest.raises(TableError, match="row 1: the same run as row 0"):
        read_runs([{"N": 1e6, "D": 1e8, "loss": 3.0, "tags": ["a"]}] * 2)


def test_tuned_repeats_do_not_move_the_law():
    found = fit(together(worse(1.02, lr=1), worse(1.0, lr=2)), num_draws=100)
    assert found.law == fit(TABLE, num_draws=100).law
