from dataclasses import replace

import numpy as np
import pytest
from planted import BUDGETS, runs

from flops_fit.errors import ArgumentError, FitError
from flops_fit.laws.check import Check
from flops_fit.laws.predict.paths import UNCONSTRAINED
from flops_fit.laws.predict.prediction import predict_budget
from flops_fit.laws.predict.tables import TABLE_COLUMNS, chinchilla_table, frontier_to_draw
from flops_fit.result import fit


@pytest.fixture(scope="module")
def findings():
    return fit(runs(), num_draws=100).findings


@pytest.fixture(scope="module")
def withheld(findings):
    """Findings with a check that refuses every prediction beyond the largest budget."""
    check = Check("wide-exponent", "refuse", "too wide.", "Do not extrapolate.")
    return replace(findings, checks=[check])


def test_the_table_has_the_budgets_of_the_sweep_and_three_decades_beyond(findings):
    table = chinchilla_table(findings)
    assert tuple(table.columns) == TABLE_COLUMNS
    np.testing.assert_allclose(table["compute_budget"], [*BUDGETS, 1e15, 1e16, 1e17])
    np.testing.assert_allclose(table["extrapolation"].iloc[-1], 1000)


def test_a_table_that_may_not_extrapolate_ends_at_the_largest_budget(withheld):
    assert len(chinchilla_table(withheld)) == len(BUDGETS)
    with pytest.raises(FitError, match=r"beyond the largest budget.*too wide\. Do not extrapolate"):
        chinchilla_table(withheld, [1e16])


def test_a_drawn_frontier_has_gaps_instead_of_errors(findings, withheld):
    C = [1e14, 1e16]
    assert frontier_to_draw(findings, C).notna().all(axis=None)
    drawn = frontier_to_draw(withheld, C)
    assert drawn["num_params"].isna().tolist() == [False, True]
    assert drawn["compute_budget"].tolist() == C


@pytest.mark.parametrize("budgets", [[-1.0], [np.inf], [], "many"])
def test_budgets_must_be_positive_numbers(findings, budgets):
    with pytest.raises(ArgumentError, match=r"expected .*FLOPs"):
        chinchilla_table(findings, budgets)


def test_sizes_are_built_where_the_model_is_at_hand(findings):
    built = replace(findings, build_size=lambda N: 7, meta={"data_unit": "images"})
    assert chinchilla_table(built, [1e14])["size"].tolist() == [7]
    prediction = predict_budget(built, 1e14, UNCONSTRAINED)
    assert (prediction.size, prediction.data_unit) == (7, "images")
    unbuilt = replace(findings, build_size=lambda N: None)
    assert chinchilla_table(unbuilt, [1e14])["size"].tolist() == [
        predict_budget(findings, 1e14, UNCONSTRAINED).size
    ]
