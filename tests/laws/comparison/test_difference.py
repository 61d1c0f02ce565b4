import numpy as np
import pytest
from planted import BUDGETS, LAW, better, runs

from flops_fit.errors import FitError
from flops_fit.fit_table import fit
from flops_fit.laws.comparison.difference import Difference, difference_at
from flops_fit.laws.comparison.pairs import find_pairs

C = np.append(BUDGETS, 10 * BUDGETS[-1])


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_the_interval_holds_the_planted_difference(planted_pair, correlation):
    first, second = planted_pair(1.5, correlation)
    found = difference_at(first, second, C, find_pairs(first, second))
    truth = better(1.5).l_opt(C) - LAW.l_opt(C)
    assert ((found.low < truth) & (truth < found.high)).all()
    assert found.told[: len(BUDGETS)].all()


def test_pairs_narrow_the_interval_at_least_twofold(planted_pair):
    first, second = planted_pair(1.5, 0.9)
    pairs = find_pairs(first, second)
    alone, paired = (difference_at(first, second, C, each) for each in (None, pairs))
    assert ((alone.high - alone.low) > 2 * (paired.high - paired.low)).all()


def test_losses_per_byte(planted_pair):
    first, second = planted_pair(1.5, 0.9)
    pairs = find_pairs(first, second)
    for each in (None, pairs):
        plain = difference_at(first, second, C, each)
        halved = difference_at(first, second, C, each, (2.0, 2.0))
        np.testing.assert_allclose(halved.value, plain.value / 2)
        np.testing.assert_allclose(halved.high, plain.high / 2)


@pytest.mark.parametrize(
    ("low", "value", "high", "probability"),
    [(-2.0, -1.0, 0.0, 0.975), (-1.0, 0.0, 1.0, 0.5), (0.0, 1.0, 2.0, 0.025)],
)
def test_the_probability_is_that_of_the_interval(low, value, high, probability):
    ends = (np.array([number]) for number in (1.0, 3.0, value, low, high, 0.0))
    assert Difference(*ends).probability_lower == pytest.approx(probability, abs=1e-3)


def test_without_a_law_it_is_refused(planted_pair):
    first, _ = planted_pair(1.5, 0.9)
    bare = fit(runs().iloc[:5], num_draws=100).findings
    with pytest.raises(FitError, match="no comparison"):
        difference_at(first, bare, C, None)
