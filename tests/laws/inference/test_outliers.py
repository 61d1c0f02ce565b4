from dataclasses import replace

import numpy as np
import pytest

from flops_fit.laws.fitting.parametric import fit_parametric
from flops_fit.laws.inference.outliers import excess, screen, screen_iqr
from flops_fit.laws.runs.points import Points


def scaled(points, run, factor):
    """The points with the loss of one run multiplied by a factor."""
    loss = points.loss.copy()
    loss[run] *= factor
    return replace(points, loss=loss)


@pytest.mark.parametrize("design", [(5, 7), (3, 5)])
def test_only_the_bad_run_is_dropped(sweep, design):
    points = scaled(
        Points.from_runs(sweep(budgets=design[0], sizes=design[1], noise=0.003, seed=3)), 8, 1.06
    )
    out = screen(fit_parametric(points, delta=1e-3), points)
    assert np.flatnonzero(out).tolist() == [8]


@pytest.mark.parametrize("design", [(5, 7), (3, 5)])
def test_clean_runs_are_kept(sweep, design):
    dropped = 0
    for seed in range(40):
        points = Points.from_runs(sweep(budgets=design[0], sizes=design[1], noise=0.003, seed=seed))
        dropped += int(screen(fit_parametric(points, delta=1e-3), points).sum())
    assert dropped <= 6


def test_a_run_below_the_law_is_not_an_outlier(sweep):
    points = scaled(Points.from_runs(sweep(noise=0.003)), 8, 0.95)
    assert not screen(fit_parametric(points, delta=1e-3), points)[8]


def test_noise_free_runs_are_all_kept(sweep):
    points = Points.from_runs(sweep())
    assert not screen(fit_parametric(points, delta=1e-3), points).any()


def test_iqr_fence():
    assert screen_iqr(np.array([0.0, 0.1, -0.1, 0.05, -0.05, 3.0])).tolist() == [False] * 5 + [True]


def test_excess_is_the_log_ratio(sweep):
    points = Points.from_runs(sweep())
    fit = fit_parametric(points)
    np.testing.assert_allclose(
        excess(fit, replace(points, loss=points.loss * 1.1)), np.log(1.1), atol=1e-9
    )
