import numpy as np
import pytest

from flops_fit.laws.model.cost import CostCurve, measure_cost

N = np.geomspace(1e3, 1e6, 8)


def test_proportional_cost_has_no_curve():
    cost = measure_cost(N, np.full(8, 1e6), 7.5 * N * 1e6)
    assert cost.curve is None
    assert cost.flops_per_param_token == pytest.approx(7.5)


def test_a_curve_goes_through_what_was_measured():
    f = 6 * N + 900 * N**0.5
    cost = measure_cost(N, np.full(8, 1e6), f * 1e6)
    np.testing.assert_allclose(cost.curve.flops_per_token(N), f, rtol=1e-9)


def test_the_curve_is_extrapolated_with_its_end_slope():
    f = 5 * N**0.8
    curve = measure_cost(N, np.full(8, 1e6), f * 1e6).curve
    np.testing.assert_allclose(curve.flops_per_token([1e2, 1e8]), 5 * np.array([1e2, 1e8]) ** 0.8)
    assert curve.extrapolates([1e2, 1e4, 1e8]).tolist() == [True, False, True]


def test_slope_is_the_derivative():
    f = 6 * N + 900 * N**0.5
    curve = measure_cost(N, np.full(8, 1e6), f * 1e6).curve
    x = np.log(np.geomspace(500, 2e6, 50))
    slope = (curve.log_cost(x + 1e-6) - curve.log_cost(x - 1e-6)) / 2e-6
    np.testing.assert_allclose(curve.slope(x), slope, atol=1e-4)


def test_with_one_size_the_cost_is_proportional():
    curve = CostCurve((np.log(1e4),), (np.log(7e4),))
    assert curve.flops_per_token(1e5) == pytest.approx(7e5)


def test_many_sizes_are_merged_into_few_knots():
    sizes = np.geomspace(1e3, 1e8, 5000)
    f = 6 * sizes * (1 + 30 / sizes**0.4)
    curve = measure_cost(sizes, np.ones(5000), f).curve
    assert len(curve.log_params) <= 64
    np.testing.assert_allclose(curve.flops_per_token(sizes), f, rtol=0.01)
