import numpy as np
import pytest

from flops_fit.laws.fitting.newton import (
    FREE,
    LOWER,
    TIED,
    Problem,
    _Slopes,
    gradient,
    objective,
    solve,
)

rng = np.random.default_rng(1)
X, Y = rng.normal(size=30), rng.normal(size=30)
LOSS = np.exp(0.2 * rng.normal(size=30))
THETA = np.array([[-0.5, -1.0, -0.7, 0.3, 0.5], [0.1, -2.0, -1.5, 0.8, 0.2]])


def problem(space="log", delta=None, ties=FREE, weight=None):
    return Problem(X, Y, LOSS, space, delta, ties, weight)


PROBLEMS = [
    problem(),
    problem("linear"),
    problem("log", 0.05),
    problem("linear", 0.05),
    problem("log", None, FREE, np.arange(30.0)),
]


@pytest.mark.parametrize("p", PROBLEMS)
def test_gradient_against_finite_differences(p):
    for j, h in enumerate(np.full(5, 1e-6)):
        step = np.zeros(5)
        step[j] = h
        slope = (objective(p, THETA + step) - objective(p, THETA - step)) / (2 * h)
        np.testing.assert_allclose(gradient(p, THETA)[:, j], slope, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("p", [problem(), problem("linear"), PROBLEMS[-1]])
def test_hessian_against_finite_differences_of_the_gradient(p):
    H = _Slopes.at(p, THETA).newton
    for j in range(5):
        step = np.zeros(5)
        step[j] = 1e-6
        column = (gradient(p, THETA + step) - gradient(p, THETA - step)) / 2e-6
        np.testing.assert_allclose(H[:, :, j], column, rtol=1e-4, atol=1e-6)


def test_tied_fit_keeps_the_exponents_equal():
    found = solve(problem(ties=TIED), np.array([[-0.5, -1.0, -0.7, 0.3, 0.3]]))
    assert found.theta[0, 3] == found.theta[0, 4]


def test_members_of_a_batch_are_independent():
    together = solve(problem(), THETA)
    for i in range(2):
        alone = solve(problem(), THETA[i : i + 1])
        np.testing.assert_allclose(alone.objective, together.objective[i], rtol=1e-12)


def test_weights_are_repetitions():
    counts = rng.integers(0, 3, 30).astype(float)
    rows = np.repeat(np.arange(30), counts.astype(int))
    repeated = Problem(X[rows], Y[rows], LOSS[rows])
    np.testing.assert_allclose(
        solve(problem(weight=counts), THETA).objective,
        solve(repeated, THETA).objective,
        rtol=1e-9,
    )


def test_a_start_beyond_the_bounds_is_clipped():
    wild = np.array([[-99.0, 0, 0, -5.0, 9.0]])
    assert (solve(problem(), wild).theta >= LOWER).all()
