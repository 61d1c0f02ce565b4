from dataclasses import replace

import numpy as np
import pytest
from planted import BUDGETS, LAW, runs

from flops_fit.fit_table import fit
from flops_fit.laws.comparison.contrast import COLUMNS, Contrast


@pytest.fixture(scope="module")
def crossing():
    """A second law that is worse at first, and better from 1e13 FLOPs on."""
    other = replace(LAW, alpha=LAW.alpha * 1.2)
    low, high = 1.0, 1000.0
    for _ in range(60):
        factor = (low * high) ** 0.5
        worse = replace(other, A=LAW.A * factor).l_opt(1e13) > LAW.l_opt(1e13)
        low, high = (low, factor) if worse else (factor, high)
    tables = [
        runs(0.001, seed, law) for seed, law in enumerate((LAW, replace(other, A=LAW.A * low)))
    ]
    return Contrast.of(*(fit(table, num_draws=100).findings for table in tables))


def test_the_table_has_the_columns_and_the_default_budgets(planted_pair):
    contrast = Contrast.of(*planted_pair(1.5, 0.9))
    C = contrast.default_budgets()
    assert tuple(contrast.at(C).columns) == COLUMNS
    np.testing.assert_allclose(C[: len(BUDGETS)], BUDGETS)
    np.testing.assert_allclose(C[len(BUDGETS) :], BUDGETS[-1] * np.array([10, 100, 1000]))


def test_the_grid_reaches_wherever_it_is_asked(planted_pair):
    contrast = Contrast.of(*planted_pair(1.5, 0.9))
    far = contrast.at(np.array([1e20]))
    assert np.isfinite(far["multiplier"]).all()


def test_a_crossing_is_found_with_its_interval(crossing):
    found = crossing.crossing()
    assert found.low < 1e13 < found.high
    assert found.better_beyond
    assert 3e12 < found.C < 3e13


def test_laws_that_never_cross_have_no_crossing(planted_pair):
    assert Contrast.of(*planted_pair(1.5, 0.9)).crossing() is None


def test_equal_laws_have_no_crossing_that_can_be_told(planted_pair):
    assert Contrast.of(*planted_pair(1.0, 0.9)).crossing() is None


def test_the_common_range_is_that_of_both(planted_pair):
    first, _ = planted_pair(1.5, 0.9)
    table = runs(seed=7)
    shorter = fit(table[table["compute_budget"] < 5e13], num_draws=100).findings
    low, high = Contrast.of(first, shorter).common
    assert low == pytest.approx(BUDGETS[0])
    assert high == pytest.approx(BUDGETS[-2])


def test_what_is_told_needs_no_more_and_what_is_equal_needs_much(planted_pair):
    told, equal = (Contrast.of(*planted_pair(factor, 0.9)) for factor in (1.5, 1.0))
    assert told.factor_to_tell(BUDGETS[-1]) < 1
    assert equal.factor_to_tell(BUDGETS[-1]) > 1
