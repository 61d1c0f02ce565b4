"""Quantiles, tails and correlations are those of `scipy.stats`."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from flops_fit.laws import distributions as ours


@pytest.mark.parametrize("dof", [1, 2.5, 30])
def test_t_and_chi2(dof):
    assert ours.t_quantile(0.975, dof) == pytest.approx(stats.t.ppf(0.975, dof))
    assert ours.t_tail(1.3, dof) == pytest.approx(stats.t.sf(1.3, dof))
    assert ours.t_tail(-1.3, dof) == pytest.approx(stats.t.sf(-1.3, dof))
    assert ours.chi2_quantile(0.9, dof) == pytest.approx(stats.chi2.ppf(0.9, dof))


@pytest.mark.parametrize("value", [-1.0, 0.0, 2.0, np.inf])
def test_f(value):
    assert ours.f_tail(value, 3, 7) == pytest.approx(stats.f.sf(value, 3, 7))
    assert ours.f_quantile(0.95, 3, 7) == pytest.approx(stats.f.ppf(0.95, 3, 7))


def test_without_degrees_of_freedom_nothing_is_known():
    assert np.isnan(ours.t_quantile(0.975, 0))
    assert np.isnan(ours.f_tail(2.0, 1, 0))


def test_normal():
    p = np.array([1e-9, 0.2, 0.5])
    np.testing.assert_allclose(ours.normal_quantile(p), stats.norm.ppf(p))
    np.testing.assert_allclose(ours.normal_log_mass(p - 20), stats.norm.logcdf(p - 20))


def test_correlation_is_pearsons_and_of_ranks_spearmans():
    x, y = np.random.default_rng(0).normal(size=(2, 12))
    x[3] = x[4]
    pearson, spearman = stats.pearsonr(x, y), stats.spearmanr(x, y)
    assert ours.correlation(x, y) == pytest.approx((pearson.statistic, pearson.pvalue))
    np.testing.assert_array_equal(ours.ranks(x), stats.rankdata(x))
    found = ours.correlation(ours.ranks(x), ours.ranks(y))
    assert found == pytest.approx((spearman.statistic, spearman.pvalue))


def test_correlation_where_something_is_exact_or_constant():
    x = np.arange(5.0)
    assert ours.correlation(x, 2 * x) == (1.0, 0.0)
    assert np.isnan(ours.correlation(x, np.ones(5))).all()


def test_fitting_does_not_import_the_whole_of_scipy_stats():
    code = "import sys, flops_fit.result, flops_fit.fit_table; print('scipy.stats' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
