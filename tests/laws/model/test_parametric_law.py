import numpy as np
import pytest
from scipy import optimize

from flops_fit.errors import ArgumentError
from flops_fit.laws.model.cost import CostCurve, FlopsPerToken
from flops_fit.laws.model.parametric_law import ParametricLaw, law_from_vector


def test_a_law_comes_back_from_its_vector(small):
    law = law_from_vector(small.vector, FlopsPerToken(7.0))
    assert law.flops_per_param_token == 7.0
    np.testing.assert_allclose(law.vector, small.vector, rtol=1e-15)


def test_closed_form_is_the_minimum(named_law):
    law, _, last = named_law
    found = optimize.minimize_scalar(
        lambda x: law.loss(np.exp(x), last / (6 * np.exp(x))),
        bounds=(2, 40),
        method="bounded",
        options={"xatol": 1e-10},
    )
    assert np.log(law.n_opt(last)) == pytest.approx(found.x, abs=1e-5)
    assert law.l_opt(last) == pytest.approx(found.fun, rel=1e-12)
    assert 6 * law.n_opt(last) * law.d_opt(last) == pytest.approx(last, rel=1e-12)


def test_exponents_and_shapes(small):
    C = np.array([[1e12, 1e13], [1e14, 1e15]])
    assert small.n_opt(C).shape == (2, 2)
    assert isinstance(small.n_opt(1e12), float)
    assert small.a + small.b == pytest.approx(1)
    slope = np.log(small.n_opt(1e15) / small.n_opt(1e12)) / np.log(1e3)
    assert slope == pytest.approx(small.a)


def test_optimum_on_a_measured_cost_curve():
    x = np.log(np.geomspace(1e4, 1e8, 9))
    f = np.log(6 * np.exp(x) + 3000 * np.exp(x) ** 0.5)
    law = ParametricLaw(1.0, 66.0, 100.0, 0.35, 0.30, curve=CostCurve(tuple(x), tuple(f)))
    for C in (1e12, 1e13, 1e14):
        curve = law.curve
        found = optimize.minimize_scalar(
            lambda t, C=C, curve=curve: law.loss(np.exp(t), C / curve.flops_per_token(np.exp(t))),
            bounds=(x[0], x[-1]),
            method="bounded",
            options={"xatol": 1e-10},
        )
        assert np.log(law.n_opt(C)) == pytest.approx(found.x, abs=1e-3)
        assert law.l_opt(C) == pytest.approx(found.fun, rel=1e-7)
        spent = law.d_opt(C) * curve.flops_per_token(law.n_opt(C))
        assert spent == pytest.approx(C, rel=1e-9)


def test_budgets_must_be_positive(small):
    with pytest.raises(ArgumentError, match="positive and finite"):
        small.n_opt([1e12, -1])
