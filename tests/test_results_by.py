import numpy as np
import pandas as pd
import pytest
from tables import isoflop_table

from flops_fit.display import number_text
from flops_fit.errors import ArgumentError, FitError
from flops_fit.fit_table import fit
from flops_fit.results_by import Results

A, B = isoflop_table(1), isoflop_table(2, E=2.1)
BOTH = pd.concat([A.assign(dataset="a"), B.assign(dataset="b")], ignore_index=True)


def by(table, column="dataset"):
    return fit(table, by=column, num_draws=100)


@pytest.fixture(scope="module")
def results():
    return by(BOTH)


def test_each_value_is_fitted_as_if_alone(results):
    assert isinstance(results, Results)
    assert list(results) == ["a", "b"]
    assert results["a"].law == fit(A, num_draws=100).law
    assert results["b"].law == fit(B, num_draws=100).law
    assert not {"pooled"} & {check.code for check in results["a"].checks}


def test_the_table_compares_them_at_a_budget_that_all_reach(results):
    table = results.table.set_index("dataset")
    assert table["runs"].tolist() == [35, 35]
    assert (table["compute_budget"] == 1e20).all()
    assert table.loc["a", "num_params"] == results["a"].predict(1e20).num_params
    assert (table["a_low"] < table["a"]).all()
    assert "Results by dataset: 2 fitted" in repr(results)
    assert "<table" in results._repr_html_()


def test_a_value_that_cannot_be_fitted_stops_no_other():
    row = {"N": 1e8, "D": 1e9, "C": 6e17, "loss": np.nan, "dataset": "<c>"}
    found = by(pd.concat([BOTH, pd.DataFrame([row])], ignore_index=True))
    assert list(found) == ["a", "b"]
    assert "left out of the fit" in found.failed["<c>"]
    assert "<c>" not in found._repr_html_()
    with pytest.raises(FitError, match="no value of dataset could be fitted"):
        by(pd.DataFrame([row]))


def test_columns_may_be_several_and_of_other_spellings():
    table = BOTH.rename(columns={"dataset": "Data Set"}).assign(tok=1)
    assert list(by(table, ["data_set", "tok"])) == [("a", 1), ("b", 1)]
    missing = BOTH.assign(dataset=BOTH["dataset"].where(BOTH["dataset"] == "a"))
    assert list(by(missing)) == ["a", "none"]
    with pytest.raises(ArgumentError, match="by: the table has no column 'corpus'; it has: N, D"):
        by(BOTH, "corpus")
    with pytest.raises(ArgumentError, match="by: the table has no column '3'"):
        by(BOTH, 3)


@pytest.mark.slow
def test_tuned_settings_are_compared_within_a_value_only():
    tables = [BOTH.assign(lr=1), BOTH.assign(lr=2, loss=BOTH["loss"] * 1.02)]
    both = pd.concat(tables, ignore_index=True)
    assert by(both, "lr")[2].law is not None
    assert by(both)["a"].law == by(BOTH)["a"].law


def test_numbers_are_written_as_everywhere(results):
    table = results.table.set_index("dataset")
    N, C = number_text.count(table.loc["a", "num_params"]), number_text.flops(1e20)
    for shown in (repr(results), results._repr_html_()):
        for words in (
            "C, FLOPs",
            "N, 95 %",
            "D, tokens",
            N,
            C,
            number_text.loss(table["loss"]["b"]),
        ):
            assert words in shown
        assert "nan" not in shown
