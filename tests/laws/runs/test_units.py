import numpy as np
import pytest
from tables import isoflop_table

from flops_fit.errors import FitError
from flops_fit.laws.runs.table import read_runs
from flops_fit.result import fit

TABLE = isoflop_table()


def scaled(N=1.0, D=1.0, C=1.0):
    return TABLE.assign(N=TABLE["N"] / N, D=TABLE["D"] / D, C=TABLE["C"] / C)


def coded(table, code):
    return [check for check in read_runs(table)[1] if check.code == code]


@pytest.mark.parametrize(
    ("table", "severity", "message"),
    [
        (scaled(N=1e6, D=1e9), "warn", "likely N in millions and D in billions"),
        (scaled(N=1e6), "refuse", "likely N in millions"),
        (scaled(D=1e9), "refuse", "likely D in billions"),
        (scaled(C=3e11), "refuse", "C / (6 N D) is 3.3e-12"),  # a speed, say
        (scaled(C=1e18), "refuse", "likely C in units of 1e18 FLOPs"),
        (scaled(C=8.64e19), "refuse", "likely C in PF-days"),
        (scaled(N=1e6, D=1e9).drop(columns="C"), "refuse", "num_params runs from 15"),
        (TABLE.rename(columns={"N": "D", "D": "N"}), "warn", "are N and D swapped"),
        (TABLE.assign(loss=np.exp(TABLE["loss"])), "warn", "If these are perplexities"),
        (TABLE.assign(D=TABLE["D"] / np.where(TABLE.index % 2, 1e9, 1)), "refuse", "between rows"),
    ],
)
def test_units_are_named(table, severity, message):
    check = coded(table, "units")[0]
    assert check.severity == severity
    assert message in str(check)


@pytest.mark.parametrize(
    "table",
    [
        TABLE,
        scaled(C=10),  # a mixture of experts
        scaled(D=1024),  # data counted in sequences
        TABLE.drop(columns="C"),
        TABLE.assign(C=TABLE["C"] * (1 + 3e7 / TABLE["N"])),  # embeddings
    ],
)
def test_other_models_raise_no_doubt(table):
    assert not {"units", "out-of-line"} & {check.code for check in read_runs(table)[1]}


def test_compute_that_is_counted_otherwise_is_noted():
    (check,) = coded(scaled(C=3), "flops-convention")
    assert check.severity == "note"
    assert "C is 0.33 times 6 N D" in check.message
    assert coded(scaled(C=1 / 1.4), "flops-convention") == []


def test_no_prediction_in_flops_where_compute_is_in_another_unit():
    with pytest.raises(FitError, match="C in units of 1e18 FLOPs"):
        fit(scaled(C=1e18), num_draws=100).predict(1e20)


@pytest.mark.parametrize(
    ("column", "row", "factor"),
    [("C", 17, 10), ("C", 3, 0.1), ("D", 20, 10), ("N", 30, 0.1), ("C", 34, 2), ("D", 0, 1e-3)],
)
def test_a_mistyped_run_is_named_and_left_out(column, row, factor):
    table = TABLE.copy()
    table.loc[row, column] *= factor
    (check,) = coded(table, "out-of-line")
    assert f"row {row} (" in check.message
    excluded = read_runs(table)[0]["excluded"]
    assert excluded[excluded != ""].index.tolist() == [row]
    assert "mistyped" in excluded[row]


def test_too_many_runs_out_of_line_are_not_left_out():
    table = TABLE.assign(C=TABLE["C"] * np.where(TABLE.index % 5 == 0, 10.0, 1.0))
    (check,) = coded(table, "out-of-line")
    assert "too many to leave out" in check.message
    assert (read_runs(table)[0]["excluded"] == "").all()


def test_tokens_counted_with_another_batch_are_doubted():
    """D from a batch size that some runs do not have (nanochat pull request 580)."""
    table = TABLE.assign(D=TABLE["D"] * np.where(TABLE.index % 7 > 3, 0.5, 1.0))
    assert "out-of-line" in {check.code for check in read_runs(table)[1]}
    table = TABLE.assign(D=TABLE["D"] * np.where(TABLE["C"] > 2e19, 0.5, 1.0))
    codes = {check.code: check.severity for check in fit(table, num_draws=100).checks}
    assert codes["cost-scatter"] == "warn"


def test_nominal_compute_is_said():
    def rounded(values):
        return [float(f"{value:.1e}") for value in values]

    def messages(table):
        checks = fit(table, num_draws=100).checks
        return [check.message for check in checks if check.code == "cost-scatter"]

    table = TABLE.assign(N=rounded(TABLE["N"]), D=rounded(TABLE["D"]))
    assert "C looks nominal: 35 runs have 5 values" in messages(table)[0]
    assert messages(TABLE) == []
    assert messages(table.assign(C=6 * table["N"] * table["D"])) == []
