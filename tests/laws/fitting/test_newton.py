from dataclasses import replace

import numpy as np
import pytest

from flops_fit.laws.fitting.newton import _Slopes, solve
from flops_fit.laws.fitting.residuals import BENT, FREE, LOWER, TIED, Problem, objective

rng = np.random.default_rng(1)
X, Y = rng.normal(size=30), rng.normal(size=30)
LOSS = np.exp(0.2 * rng.normal(size=30))
THETA = np.array([[-0.5, -1.0, -0.7, 0.3, 0.5], [0.1, -2.0, -1.5, 0.8, 0.2]])
BENT_THETA = np.hstack([np.vstack([THETA, THETA[:1]]), [[0.4], [1.0], [0.12]]])


def problem(space="log", delta=None, ties=FREE, weight=None):
    return Problem(X, Y, LOSS, space, delta, ties, weight)


PROBLEMS = [
    problem(),
    problem("linear"),
    problem("log", 0.05),
    problem("linear", 0.05),
    problem("log", None, FREE, np.arange(30.0)),
]


def gradient(p, theta):
    return _Slopes.at(p, theta).gradient


def with_gamma(p):
    return replace(p, ties=BENT)


@pytest.mark.parametrize(
    ("p", "theta"),
    [(p, THETA) for p in PROBLEMS] + [(with_gamma(p), BENT_THETA) for p in PROBLEMS],
)
def test_gradient_against_finite_differences(p, theta):
    for j, step in enumerate(1e-6 * np.eye(theta.shape[1])):
        slope = (objective(p, theta + step) - objective(p, theta - step)) / 2e-6
        np.testing.assert_allclose(gradient(p, theta)[:, j], slope, rtol=1e-5, atol=1e-7)


SMOOTH = [problem(), problem("linear"), PROBLEMS[-1]]


@pytest.mark.parametrize(
    ("p", "theta"), [(p, THETA) for p in SMOOTH] + [(with_gamma(p), BENT_THETA) for p in SMOOTH]
)
def test_hessian_against_finite_differences_of_the_gradient(p, theta):
    H = _Slopes.at(p, theta).newton
    for j, step in enumerate(1e-6 * np.eye(theta.shape[1])):
        column = (gradient(p, theta + step) - gradient(p, theta - step)) / 2e-6
        np.testing.assert_allclose(H[:, :, j], column, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("p", SMOOTH)
def test_with_gamma_at_one_the_law_is_the_straight_one(p):
    theta = np.hstack([THETA, np.ones((2, 1))])
    np.testing.assert_allclose(objective(with_gamma(p), theta), objective(p, THETA), rtol=1e-12)
    bent, straight = gradient(with_gamma(p), theta), gradient(p, THETA)
    np.testing.assert_allclose(bent[:, :5], straight, rtol=1e-9)


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
    assert (solve(problem(), wild).theta >= LOWER[:5]).all()
