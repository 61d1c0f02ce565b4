import numpy as np
import pytest

from flops_fit.laws.fitting.cost import measure_cost

N = np.geomspace(1e3, 1e6, 8)
MANY = np.geomspace(1e3, 1e6, 30)


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


def test_many_sizes_are_merged_into_few_knots():
    sizes = np.geomspace(1e3, 1e8, 5000)
    f = 6 * sizes * (1 + 30 / sizes**0.4)
    curve = measure_cost(sizes, np.ones(5000), f).curve
    assert len(curve.log_params) <= 64
    np.testing.assert_allclose(curve.flops_per_token(sizes), f, rtol=0.01)


def scattered(f, scatter, seed=0):
    noise = np.random.default_rng(seed).normal(0, scatter, len(f))
    return measure_cost(MANY, np.ones(len(f)), f * np.exp(noise))


@pytest.mark.parametrize("scatter", [0.012, 0.03, 0.06])
def test_costs_that_scatter_about_a_multiple_of_N_are_proportional_to_N(scatter):
    cost = scattered(6 * MANY, scatter)
    assert cost.curve is None
    assert cost.flops_per_param_token == pytest.approx(6, rel=3 * cost.kappa_error)
    assert cost.scatter == pytest.approx(scatter, rel=0.4)


@pytest.mark.parametrize("f", [50 * MANY**0.8, 6 * MANY + 900 * MANY**0.5])
def test_costs_that_scatter_about_a_curve_get_a_smooth_curve(f):
    cost = scattered(f, 0.03)
    x = np.log(MANY)
    np.testing.assert_allclose(cost.curve.log_cost(x), np.log(f), atol=0.05)
    true_slope = np.gradient(np.log(f), x)
    np.testing.assert_allclose(cost.curve.slope(x)[3:-3], true_slope[3:-3], atol=0.12)


def test_costs_of_two_digits_are_proportional_to_N():
    digits = np.array([float(f"{value:.1e}") for value in 6 * MANY])
    assert measure_cost(MANY, np.ones(30), digits).curve is None


@pytest.mark.parametrize("factor", [0.1, 10.0, 1000.0])
def test_one_mistyped_cost_moves_nothing(factor):
    f = 6 * MANY
    f[11] *= factor
    cost = measure_cost(MANY, np.ones(30), f)
    assert (cost.curve, cost.scatter) == (None, pytest.approx(0, abs=1e-9))
    assert cost.flops_per_param_token == pytest.approx(6)


def test_the_true_cost_lies_within_two_errors_of_the_smooth_one():
    x, f = np.log(MANY), 50 * MANY**0.8
    near = 0
    for seed in range(40):
        cost = scattered(f, 0.03, seed)
        moves = [away.curve.log_cost(x[15]) for away in cost.one_error_away()]
        middle = cost.curve.log_cost(x[15])
        near += abs(middle - np.log(f[15])) < 2 * np.hypot.reduce(np.subtract(moves, middle))
    assert near >= 34
