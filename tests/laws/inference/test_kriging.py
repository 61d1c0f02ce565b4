from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from planted import LAW, runs

from flops_fit.laws.fitting.parametric import fit_parametric
from flops_fit.laws.inference.bootstrap import measure_spread
from flops_fit.laws.inference.kriging import cells as averaging
from flops_fit.laws.inference.kriging.kriging import NO_MISFIT, Kriging
from flops_fit.laws.model.frontier import loss_at
from flops_fit.laws.runs.points import Points


def wave(N, D, height=0.02):
    """A misfit that no law of the family follows, in ln L."""
    return height * np.sin(np.log(N * D) / 1.5) * np.cos(np.log(N / D) / 3)


def wavy(seed=0, noise=0.001):
    """Points of the planted law with a wave on it, and the kriging of their fit."""
    table = runs(noise, seed=seed)
    table["loss"] *= np.exp(wave(table["num_params"], table["num_tokens"]))
    points = Points.from_runs(table)
    return points, Kriging.of(fit_parametric(points), points)


def predicted(found, N, D):
    """ln L at some models, its standard error, and the standard deviation of the noise."""
    mx, my, scale, _ = found.fit.centre
    x, y = np.log(N) - mx, np.log(D) - my
    mean, variance, noise = found.posterior(x[:, None], y[:, None], np.ones((len(x), 1)))
    return found.log_law(x, y) + mean + scale, np.sqrt(variance), np.sqrt(noise)


@pytest.fixture(scope="module")
def exact():
    points = Points.from_runs(runs(0.003, seed=1))
    return points, Kriging.of(fit_parametric(points), points)


def test_where_the_law_is_exact_there_is_most_likely_no_misfit(exact):
    _, found = exact
    assert found.settings[0].ratio == 0
    assert found.settings[0].weight > NO_MISFIT
    assert found.settings[0].variance ** 0.5 == pytest.approx(0.003, rel=0.4)


def test_without_misfit_the_errors_are_those_of_the_delta_method(exact):
    points, found = exact
    alone = Kriging(found.fit, found.cells, found.settings[:1], found.dof)
    at = np.geomspace(1e4, 1e7, 5), np.geomspace(1e8, 1e5, 5)
    mean, error, _ = predicted(alone, *at)
    x, y = np.log(at[0]), np.log(at[1])
    np.testing.assert_allclose(np.exp(mean), found.fit.law.loss(*at), rtol=1e-6)
    spread = measure_spread(found.fit, points, num_draws=100)
    low, high = spread.interval(lambda laws: np.log(loss_at(laws, x, y)), method="delta")
    ratio = (high - low) / error
    np.testing.assert_allclose(ratio, ratio[0], rtol=0.02)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_misfit_is_followed_within_the_runs(seed):
    _, found = wavy(seed)
    assert all(setting.ratio > 0 for setting in found.settings)
    rng = np.random.default_rng(seed)
    C = rng.uniform(np.log(1.5e12), np.log(7e13), 40)
    N = np.exp(np.log(LAW.n_opt(np.exp(C))) + rng.uniform(-1, 1, 40))
    D = np.exp(C) / 6 / N
    truth = np.log(LAW.loss(N, D)) + wave(N, D)
    mean, error, noise = predicted(found, N, D)
    of_law = np.log(found.fit.law.loss(N, D))
    assert np.sqrt(((mean - truth) ** 2).mean()) < 0.5 * np.sqrt(((of_law - truth) ** 2).mean())
    assert (np.abs(mean - truth) < 3 * np.hypot(error, noise)).mean() > 0.8


def test_beyond_the_runs_the_misfit_is_less_known_the_farther_it_is():
    _, found = wavy()
    C = 1e14 * np.array([1.0, 3.0, 30.0])
    error = predicted(found, LAW.n_opt(C), LAW.d_opt(C))[1]
    assert error[0] < error[1] < error[2]
    assert error[2] > 0.01


def test_the_misfit_may_be_larger_far_from_the_frontier():
    _, found = wavy()
    mx, my, _, _ = found.fit.centre
    C = np.full(3, 1e13)
    x = np.log(LAW.n_opt(C)) + np.array([0.0, 1.5, 3.0])
    sizes = found._size(x - mx, np.log(C / 6) - x - my)
    assert sizes[0] == pytest.approx(1, abs=0.05)
    assert sizes[0] < sizes[1] < sizes[2]


def test_a_stencil_is_the_sum_of_its_models():
    _, found = wavy()
    x, y = np.array([[0.3, -0.2]]), np.array([[0.1, 0.6]])
    both = found.posterior(x, y, np.array([[2.0, -1.0]]))[0]
    one = found.posterior(x.T, y.T, np.ones((2, 1)))[0]
    np.testing.assert_allclose(both, 2 * one[0] - one[1])


def test_one_stencil_of_twice_a_model_has_four_times_its_variance():
    _, found = wavy()
    x, y = np.array([[0.3, 0.3]]), np.array([[0.1, 0.1]])
    both = found.posterior(x, y, np.ones((1, 2)))[1]
    one = found.posterior(x[:, :1], y[:, :1], np.ones((1, 1)))[1]
    np.testing.assert_allclose(both, 4 * one, rtol=1e-6)


def test_seeds_of_one_model_share_a_cell_and_many_runs_few_cells():
    table = pd.concat([runs(seed=s) for s in range(3)])
    points = Points.from_runs(table)
    cells = Kriging.of(fit_parametric(points), points).cells
    assert (cells.weight == 3).all()
    assert len(cells.x) == 35
    rng = np.random.default_rng(0)
    labels = averaging.neighbours(rng.normal(size=(1000, 2)))
    assert len(np.unique(labels)) == averaging.MOST_CELLS
    assert np.bincount(labels).max() <= 32


def test_a_run_far_from_a_huber_fit_counts_less():
    table = runs(0.003)
    table.loc[12, "loss"] *= 1.3
    points = Points.from_runs(table)
    found = Kriging.of(fit_parametric(points, delta=1e-3), points)
    far = np.argmin(found.cells.weight)
    assert found.cells.residual[far] == pytest.approx(np.log(1.3), abs=0.02)
    assert found.cells.weight[far] < 0.1


def test_losses_without_noise_have_almost_no_error():
    points = Points.from_runs(runs(0.0))
    found = Kriging.of(fit_parametric(points), points)
    _, error, noise = predicted(found, LAW.n_opt(np.array([1e15])), LAW.d_opt(np.array([1e15])))
    assert error[0] < 1e-5
    assert noise < 1e-6


def test_rounding_errors_are_no_misfit():
    """Sizes and tokens rounded to whole numbers leave smooth errors far below any noise."""
    table = runs(0.0)
    points = Points.from_runs(table)
    points = replace(points, loss=points.loss * np.exp(wave(points.N, points.D, 1e-10)))
    found = Kriging.of(fit_parametric(points), points)
    assert [setting.ratio for setting in found.settings] == [0.0]


def test_covariances_of_single_models_have_the_posterior_variances_on_their_diagonal():
    _, found = wavy()
    mx, my = found.fit.centre[:2]
    x, y = np.log([1e7, 1e8, 3e8]) - mx, np.log([1e9, 1e9, 5e10]) - my
    _, whole, _ = found.posterior(x[:, None], y[:, None], np.ones((3, 1)))
    parts = found.covariances(x, y, np.eye(3))
    weights = np.array([setting.weight * setting.variance for setting in found.settings])
    variances = np.einsum("s,sqq->q", weights, parts)
    assert parts.shape == (len(found.settings), 3, 3)
    # `posterior` also counts how far the means of the settings lie apart.
    assert (variances <= whole * (1 + 1e-9)).all()
    only = replace(found, settings=(replace(found.settings[0], weight=1.0),))
    _, alone, noise = only.posterior(x[:, None], y[:, None], np.ones((3, 1)))
    assert np.diag(only.covariances(x, y, np.eye(3))[0]) * noise == pytest.approx(alone)


def test_the_covariance_of_a_difference_is_that_of_its_models():
    _, found = wavy()
    mx, my = found.fit.centre[:2]
    x, y = np.log([1e7, 1e8]) - mx, np.log([1e9, 1e9]) - my
    both = found.covariances(x, y, np.eye(2))
    difference = found.covariances(x, y, np.array([[1.0, -1.0]]))[:, 0, 0]
    assert difference == pytest.approx(both[:, 0, 0] + both[:, 1, 1] - 2 * both[:, 0, 1])
