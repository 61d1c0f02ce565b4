import numpy as np
import pytest

from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.model.repetition_law import RepetitionLaw, effective_tokens

LAW = ParametricLaw(1.8172, 482.01, 2085.43, 0.3478, 0.3658)


def test_effective_tokens_as_printed():
    """D' = U + U R* (1 - exp(-R / R*)), Muennighoff et al. 2023, equation 5."""
    R = 3.0
    expected = 1e9 * (1 + 15.39 * (1 - np.exp(-R / 15.39)))
    assert effective_tokens(4e9, 1e9) == pytest.approx(expected)
    assert effective_tokens(5e8, 1e9) == pytest.approx(5e8)
    assert effective_tokens(5e8, np.nan) == pytest.approx(5e8)


def test_up_to_four_epochs_is_nearly_as_good_as_new():
    assert effective_tokens(4e9, 1e9) > 0.9 * 4e9
    assert effective_tokens(40e9, 1e9) < 0.4 * 40e9


def test_enough_unique_tokens_is_the_plain_optimum():
    n, d, loss = RepetitionLaw(LAW).optimum(1e21, 1e14)
    assert n == pytest.approx(LAW.n_opt(1e21), rel=1e-3)
    assert loss == pytest.approx(LAW.l_opt(1e21), rel=1e-9)
    assert 6 * n * d == pytest.approx(1e21)


def test_a_cap_costs_loss_and_repeats():
    law = RepetitionLaw(LAW)
    _, d, loss = law.optimum(1e21, 1e10)
    assert loss > LAW.l_opt(1e21)
    assert d > 1e10
    assert loss == pytest.approx(law.loss(1e21 / (6 * d), d, 1e10))
