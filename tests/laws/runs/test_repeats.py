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


def curves(**columns):
    """Twelve points of each run's training curve, too high in mid-schedule."""
    points = [
        TABLE.assign(
            D=TABLE["D"] * step / 12,
            loss=TABLE["loss"] + 0.1 * (1 - step / 12),
            **{name: value(step) for name, value in columns.items()},
        )
        for step in range(1, 13)
    ]
    return together(*points).drop(columns="C")


@pytest.mark.parametrize(
    ("columns", "whose"),
    [
        ({"run_name": lambda step: TABLE.index.map("run {}".format)}, "35 values of 'run_name'"),
        ({"Name": lambda step: TABLE.index, "_step": lambda step: step}, "35 values of 'Name'"),
        ({}, "35 sizes, at even steps of D"),
    ],
)
def test_points_of_training_curves_are_no_runs(columns, whose):
    _, checks = read_runs(curves(**columns))
    assert codes(checks)["curve-points"] == "warn"
    assert whose in next(c.message for c in checks if c.code == "curve-points")


def test_steps_without_an_evaluation_are_no_diverged_runs():
    """A history of W&B (wandb issue 5063): the loss is in the rows of evaluations only."""
    table = curves(run_id=lambda step: TABLE.index, loss_given=lambda step: step)
    table.loc[table["loss_given"] % 4 != 0, "loss"] = np.nan
    table, _ = read_runs(table)
    assert set(table["excluded"]) == {"", "no loss in this row"}


def test_six_models_at_every_step():
    """Per-step files of six models (minimind issue 786)."""
    rows = [
        {"params": N, "tokens": 3.4e7 * step, "loss": 1.8 + 480 / N**0.35 + 9 / step}
        for N in (5.3e7, 6.4e7, 1.6e8, 2.1e8, 3.2e8, 4.8e8)
        for step in range(1, 128)
    ]
    assert codes(read_runs(rows)[1])["curve-points"] == "warn"


def test_a_grid_of_n_and_d_is_one_of_runs():
    rows = [
        {"N": N, "D": D, "loss": 1.8 + 480 / N**0.35 + 2100 / D**0.37, "name": f"{N:.0f}"}
        for N in np.geomspace(1e7, 1e9, 7)
        for D in (1e9, 1.1e10)
    ]
    assert codes(read_runs(rows)[1]) == {"assumed": "note"}


def test_tuned_repeats_do_not_move_the_law():
    found = fit(together(worse(1.02, lr=1), worse(1.0, lr=2)), num_draws=100)
    assert found.law == fit(TABLE, num_draws=100).law
