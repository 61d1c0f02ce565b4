import numpy as np
import pytest

from flops_fit.laws.fitting.parametric import fit_parametric
from flops_fit.laws.inference.outliers import excess, screen, screen_iqr


def arrays(runs):
    return [runs[c].to_numpy(float).copy() for c in ("num_params", "num_tokens", "loss")]


@pytest.mark.parametrize("design", [(5, 7), (3, 5)])
def test_one_bad_run_is_named_and_only_that(sweep, design):
    N, D, loss = arrays(sweep(budgets=design[0], sizes=design[1], noise=0.003, seed=3))
    loss[8] *= 1.06
    out = screen(fit_parametric(N, D, loss, delta=1e-3), N, D, loss)
    assert np.flatnonzero(out).tolist() == [8]


@pytest.mark.parametrize("design", [(5, 7), (3, 5)])
def test_clean_runs_are_kept(sweep, design):
    dropped = 0
    for seed in range(40):
        N, D, loss = arrays(sweep(budgets=design[0], sizes=design[1], noise=0.003, seed=seed))
        dropped += int(screen(fit_parametric(N, D, loss, delta=1e-3), N, D, loss).sum())
    assert dropped <= 6


def test_a_run_below_the_law_is_not_an_outlier(sweep):
    N, D, loss = arrays(sweep(noise=0.003))
    loss[8] *= 0.95
    assert not screen(fit_parametric(N, D, loss, delta=1e-3), N, D, loss)[8]


def test_noise_free_runs_are_all_kept(sweep):
    N, D, loss = arrays(sweep())
    assert not screen(fit_parametric(N, D, loss, delta=1e-3), N, D, loss).any()


def test_iqr_fence():
    assert screen_iqr(np.array([0.0, 0.1, -0.1, 0.05, -0.05, 3.0])).tolist() == [False] * 5 + [True]


def test_excess_is_the_log_ratio(sweep):
    N, D, loss = arrays(sweep())
    fit = fit_parametric(N, D, loss)
    np.testing.assert_allclose(excess(fit, N, D, loss * 1.1), np.log(1.1), atol=1e-9)
