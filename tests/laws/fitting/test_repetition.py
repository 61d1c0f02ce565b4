import numpy as np
import pytest
from named_laws import bent

from flops_fit.errors import FitError
from flops_fit.laws.fitting.repetition import fit_repetition
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.model.repetition_law import RepetitionLaw
from flops_fit.laws.runs.points import Points

rng = np.random.default_rng(0)
N = np.exp(rng.uniform(np.log(1e7), np.log(3e9), 150))
U = 10 ** rng.choice([8, 9, 9.5, 10], 150)
D = U * rng.choice([0.5, 1, 2, 4, 10, 40, 100], 150)
LAW = ParametricLaw(1.8172, 482.01, 2085.43, 0.3478, 0.3658)


@pytest.mark.parametrize(("r_d", "r_n"), [(15.39, 5.31), (8.0, 2.0)])
def test_planted_law_is_found(r_d, r_n):
    truth = RepetitionLaw(LAW, r_d, r_n)
    start = ParametricLaw(1.5, 300.0, 1000.0, 0.3, 0.3)
    found = fit_repetition(Points(N, D, truth.loss(N, D, U), U), start)
    assert found.r_data == pytest.approx(r_d, rel=1e-5)
    assert found.r_params == pytest.approx(r_n, rel=1e-5)
    assert found.law.alpha == pytest.approx(LAW.alpha, rel=1e-5)


def test_a_given_constant_is_kept():
    truth = RepetitionLaw(LAW)
    found = fit_repetition(Points(N, D, truth.loss(N, D, U), U), LAW, r_params=5.31)
    assert (found.r_data, found.r_params) == (pytest.approx(15.39, rel=1e-5), pytest.approx(5.31))
    assert found.law.E == pytest.approx(LAW.E, rel=1e-5)


def test_without_repeated_data_there_is_nothing_to_fit():
    with pytest.raises(FitError, match="no run sees its data twice"):
        fit_repetition(Points(N, D, LAW.loss(N, D)), LAW)


@pytest.mark.parametrize("gamma", [0.4, 0.7])
def test_a_planted_bent_law_is_found(gamma):
    truth = RepetitionLaw(bent(LAW, gamma), 15.39, 5.31)
    points = Points(N, D, truth.loss(N, D, U), U)
    found = fit_repetition(points, bent(LAW, 0.55), bent=True)
    assert found.r_data == pytest.approx(15.39, rel=1e-4)
    assert found.r_params == pytest.approx(5.31, rel=1e-4)
    assert found.law.gamma == pytest.approx(gamma, rel=1e-4)
