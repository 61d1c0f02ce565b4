import numpy as np
import pytest

from flops_fit.laws.model.cost import CostCurve, FlopsPerToken

KNOTS = tuple(np.log(np.geomspace(1e3, 1e6, 8)).tolist())
CURVE = CostCurve(KNOTS, tuple((0.9 * np.array(KNOTS) + 2).tolist()), ((0.1,) * 8,))


def test_with_one_size_the_cost_is_proportional():
    curve = CostCurve((np.log(1e4),), (np.log(7e4),))
    assert curve.flops_per_token(1e5) == pytest.approx(7e5)


def test_a_cost_one_error_away_is_the_curve_moved_by_its_error():
    (away,) = FlopsPerToken(6.0, CURVE).one_error_away()
    moved = np.subtract(away.curve.log_flops_per_token, CURVE.log_flops_per_token)
    np.testing.assert_allclose(moved, 0.1)


def test_a_cost_one_error_away_is_kappa_moved_by_its_error():
    (away,) = FlopsPerToken(6.0, None, scatter=0.05, kappa_error=0.01).one_error_away()
    assert away.flops_per_param_token == pytest.approx(6 * np.exp(0.01))


def test_an_exact_cost_has_no_error():
    assert FlopsPerToken(6.0).one_error_away() == []
