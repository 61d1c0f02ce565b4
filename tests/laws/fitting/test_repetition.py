import numpy as np
import pytest

from flops_fit.errors import FitError
from flops_fit.laws.fitting.repetition import fit_repetition
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.model.repetition_law import RepetitionLaw, effective_tokens
from flops_fit.laws.runs.points import Points

rng = np.random.default_rng(0)
N = np.exp(rng.uniform(np.log(1e7), np.log(3e9), 150))
U = 10 ** rng.choice([8, 9, 9.5, 10], 150)
D = U * rng.choice([0.5, 1, 2, 4, 10, 40, 100], 150)
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


@pytest.mark.parametrize(("r_d", "r_n"), [(15.39, 5.31), (8.0, 2.0)])
def test_planted_law_is_found(r_d, r_n):
    truth = RepetitionLaw(LAW, r_d, r_n)
    start = ParametricLaw(1.5, 300.0, 1000.0, 0.3, 0.3)
    found = fit_repetition(Points(N, D, truth.loss(N, D, U), U), start)
    assert found.r_data == pytest.approx(r_d, rel=1e-5)
    assert found.r_params == pytest.approx(r_n, rel=1e-5)
    assert found.law.alpha == pytest.approx(LAW.alpha, rel=1e-5)


def test_given_constants_are_kept():
    truth = RepetitionLaw(LAW)
    found = fit_repetition(Points(N, D, truth.loss(N, D, U), U), LAW, r_data=15.39, r_params=5.31)
    assert (found.r_data, found.r_params) == (pytest.approx(15.39), pytest.approx(5.31))
    assert found.law.E == pytest.approx(LAW.E, rel=1e-5)


def test_nothing_repeated_nothing_to_fit():
    with pytest.raises(FitError, match="no run sees its data twice"):
        fit_repetition(Points(N, D, LAW.loss(N, D)), LAW)


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
