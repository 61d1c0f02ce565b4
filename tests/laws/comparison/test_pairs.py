import numpy as np
import pandas as pd
import pytest
from planted import runs

from flops_fit.laws.comparison.pairs import find_pairs, matching_runs


def table(sizes, budgets=(1e12, 1e13), scale=1.0):
    rows = [(C, size, scale * (i + 1)) for C in budgets for i, size in enumerate(sizes)]
    return pd.DataFrame(rows, columns=["compute_budget", "size", "num_params"])


def test_runs_of_one_budget_and_size_match():
    found = matching_runs(table([4, 8, 16]), table([8, 16, 32]))
    assert found.tolist() == [[1, 0], [2, 1], [4, 3], [5, 4]]


def test_sizes_of_other_names_match_by_their_place():
    found = matching_runs(table([4, 8, 16]), table(["small", "base", "large"], scale=7.0))
    assert found.tolist() == [[i, i] for i in range(6)]


def test_without_sizes_the_place_is_the_rank_of_n():
    one, other = table([None] * 3), table([None] * 3).iloc[::-1]
    found = matching_runs(one, other)
    assert sorted(found.tolist()) == [[i, 5 - i] for i in range(6)]


def test_repeated_runs_match_in_order():
    twice = pd.concat([table([4, 8])] * 2, ignore_index=True)
    found = matching_runs(twice, twice)
    assert sorted(found.tolist()) == [[i, i] for i in range(8)]


def test_budgets_that_only_one_has_match_nothing():
    assert matching_runs(table([4], budgets=(1e12,)), table([4], budgets=(1e15,))).shape == (0, 2)


@pytest.mark.parametrize("multiplier", [1.0, 1.5])
def test_the_correlation_is_found(planted_pair, multiplier):
    pairs = find_pairs(*planted_pair(multiplier, 0.9))
    assert pairs is not None
    assert pairs.count == 35
    assert pairs.correlation == pytest.approx(0.9, abs=0.1)


def test_errors_that_have_nothing_in_common_are_not_paired(planted_pair):
    assert find_pairs(*planted_pair(1.5, 0.0)) is None


def test_few_runs_are_not_paired(planted_pair):
    first, _ = planted_pair(1.5, 0.9)
    few = runs().iloc[:0]
    assert len(matching_runs(first.fitted_runs, few)) == 0


def test_the_difference_is_that_of_the_laws(planted_pair):
    first, second = planted_pair(1.5, 0.9)
    C = np.geomspace(1e12, 1e15, 4)
    x = [np.log(f.law.n_opt(C)) for f in (first, second)]
    y = [np.log(f.law.d_opt(C)) for f in (first, second)]
    value, half = find_pairs(first, second).differences(tuple(x), tuple(y))
    truth = np.log(second.law.l_opt(C)) - np.log(first.law.l_opt(C))
    assert (np.abs(value - truth) < half).all()
    assert (half < 0.01).all()
