import numpy as np
import pytest
from planted import BUDGETS

from flops_fit.laws.comparison.contrast import Contrast
from flops_fit.laws.comparison.difference import Difference
from flops_fit.laws.comparison.multiplier import multiplier_at

AT = np.array([BUDGETS[2], BUDGETS[-1], 10 * BUDGETS[-1]])


@pytest.mark.parametrize(("multiplier", "correlation"), [(1.0, 0.9), (1.5, 0.9), (1.5, 0.0)])
def test_the_interval_holds_the_planted_multiplier(planted_pair, multiplier, correlation):
    table = Contrast.of(*planted_pair(multiplier, correlation)).at(AT)
    assert (table["multiplier_low"] < multiplier).all()
    assert (table["multiplier_high"] > multiplier).all()
    assert table["multiplier"].iloc[:2].tolist() == pytest.approx([multiplier] * 2, rel=0.05)


def test_the_other_way_round_it_is_the_inverse(planted_pair):
    first, second = planted_pair(1.5, 0.9)
    there, back = (Contrast.of(*pair).at(AT) for pair in ((first, second), (second, first)))
    # At the same loss, not at the same budget: the compute that the better one needs.
    np.testing.assert_allclose(there["multiplier"] * back["multiplier"], 1.0, rtol=0.02)


def test_a_loss_that_is_not_reached_has_the_multiplier_zero(planted_pair):
    first, _ = planted_pair(1.0, 0.9)
    grid = np.geomspace(1e9, 1e18, 100)
    loss = first.law.l_opt(grid)
    never = Difference(grid, loss, 10 + 0 * grid, 9 + 0 * grid, 11 + 0 * grid, 0 * grid)
    found = multiplier_at(first, AT, never)
    assert found.value.tolist() == found.low.tolist() == found.high.tolist() == [0.0] * 3


def test_a_loss_below_which_the_other_always_is_has_none(planted_pair):
    first, _ = planted_pair(1.0, 0.9)
    grid = np.geomspace(1e9, 1e18, 100)
    always = Difference(grid, 0 * grid + 3.0, 0 * grid - 3, 0 * grid - 4, 0 * grid - 2, 0 * grid)
    assert np.isinf(multiplier_at(first, AT, always).value).all()
