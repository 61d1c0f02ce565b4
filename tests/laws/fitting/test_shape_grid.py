import numpy as np
import pytest

from flops_fit.laws.fitting.shape_grid import Bound, fit_shapes

X = np.linspace(0.1, 2, 20)
RNG = np.random.default_rng(0)


def design(shapes):
    B = np.exp(-X * shapes[:, :1])
    return np.stack([np.ones_like(B), B], axis=-1)


@pytest.mark.parametrize("noise", [1e-12, 0.01, 0.05])
def test_shape_and_coefficients_are_found(noise):
    y = 1 + 2 * np.exp(-1.5 * X) + noise * RNG.standard_normal(20)
    fitted = fit_shapes(design, [(0.1, 5.0)], y, 17)
    shapes, linear = fitted.draw(500)
    values = np.column_stack([shapes, linear])
    low, high = np.quantile(values, [0.005, 0.995], axis=0)
    slack = 0.02
    assert (low - slack <= [1.5, 1, 2]).all()
    assert (high + slack >= [1.5, 1, 2]).all()
    assert fitted.scatter == pytest.approx(noise, rel=0.5, abs=1e-2)


@pytest.mark.parametrize("least", [1.0, 1.05, 1.2])
def test_bounds_truncate_the_draws(least):
    y = 1 + 2 * np.exp(-1.5 * X) + 0.05 * RNG.standard_normal(20)
    _, linear = fit_shapes(design, [(0.1, 5.0)], y, 17, [Bound((1.0, 0.0), least)]).draw(300)
    assert len(linear) == 300
    assert linear[:, 0].min() >= least - 1e-8


def test_the_same_seed_gives_the_same_draws():
    fitted = fit_shapes(design, [(0.1, 5.0)], 1 + np.exp(-X), 17)
    first, again, other = (fitted.draw(50, seed)[1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
