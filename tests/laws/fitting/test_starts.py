import numpy as np
from scipy import optimize

from flops_fit.laws.fitting.parametric import centred
from flops_fit.laws.fitting.starts import EXPONENTS, _non_negative, _normal_equations, grid_starts
from flops_fit.laws.runs.points import Points


def test_grid_is_the_non_negative_least_squares_of_scipy(sweep):
    runs = sweep(noise=0.01)
    problem, _ = centred(Points.from_runs(runs))
    x, y, loss = problem.x, problem.y, problem.loss
    coefs, misfit = _non_negative(*_normal_equations(x, y, loss))
    for i, j in ((0, 0), (5, 20), (27, 3), (14, 14)):
        design = np.stack(
            [np.ones_like(x), np.exp(-EXPONENTS[i] * x), np.exp(-EXPONENTS[j] * y)], axis=1
        )
        expected, left = optimize.nnls(design / loss[:, None], np.ones_like(loss))
        np.testing.assert_allclose(misfit[i, j], left**2, rtol=1e-5, atol=1e-9)
        np.testing.assert_allclose(coefs[i, j], expected, rtol=1e-3, atol=1e-4)


def test_tied_starts_are_tied(sweep):
    runs = sweep()
    problem, _ = centred(Points.from_runs(runs))
    starts = grid_starts(problem.x, problem.y, problem.loss, tied=True)
    assert (starts[:, 3] == starts[:, 4]).all()
    assert len(grid_starts(problem.x, problem.y, problem.loss, most=4)) == 4
