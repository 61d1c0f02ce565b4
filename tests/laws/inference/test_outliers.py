from dataclasses import replace

import numpy as np
import pytest

from flops_fit.laws.fitting.parametric import excess, fit_parametric
from flops_fit.laws.inference.outliers import screen, screen_iqr
from flops_fit.laws.runs.points import Points


def scaled(points, **factors):
    """The points with the losses of some runs multiplied by factors: run8=1.1."""
    loss = points.loss.copy()
    for name, factor in factors.items():
        loss[int(name.removeprefix("run"))] *= factor
    return replace(points, loss=loss)


def screened(points):
    return screen(fit_parametric(points, delta=1e-3), points)


@pytest.mark.parametrize("factor", [1.5, 1.06, 0.94, 0.8])
@pytest.mark.parametrize("design", [(5, 7), (3, 5)])
def test_only_the_bad_run_is_dropped(sweep, design, factor):
    runs = sweep(budgets=design[0], sizes=design[1], noise=0.003, seed=3)
    side = screened(scaled(Points.from_runs(runs), run8=factor)).side
    assert np.flatnonzero(side).tolist() == [8]
    assert side[8] == np.sign(factor - 1)


@pytest.mark.parametrize(("design", "most"), [((5, 7), 4), ((3, 5), 4)])
def test_clean_runs_are_kept(sweep, design, most):
    dropped = 0
    for seed in range(30):
        runs = sweep(budgets=design[0], sizes=design[1], noise=0.003, seed=seed)
        dropped += int(screened(Points.from_runs(runs)).out.sum())
    assert dropped <= most


@pytest.mark.parametrize("factors", [(1.1, 1.1), (0.9, 0.9), (1.1, 0.9), (1.5, 1.5)])
@pytest.mark.parametrize("rows", [(2, 9), (0, 1)])
def test_a_pair_of_bad_runs_among_fifteen_is_found(sweep, rows, factors):
    points = Points.from_runs(sweep(budgets=3, sizes=5, noise=0.003, seed=3))
    bad = {f"run{row}": factor for row, factor in zip(rows, factors, strict=True)}
    side = screened(scaled(points, **bad)).side
    assert np.flatnonzero(side).tolist() == list(rows)
    assert np.sign(np.array(factors) - 1).tolist() == side[list(rows)].tolist()


@pytest.mark.parametrize("factors", [(1.03, 1.03), (0.97, 0.97), (1.03, 0.97)])
def test_a_pair_of_mild_outliers_among_fifteen_is_found_or_suspected(sweep, factors):
    named = 0
    for seed in range(10):
        rows = np.random.default_rng(seed).choice(15, 2, replace=False)
        points = Points.from_runs(sweep(budgets=3, sizes=5, noise=0.003, seed=seed))
        bad = {f"run{row}": factor for row, factor in zip(rows, factors, strict=True)}
        found = screened(scaled(points, **bad))
        named += bool((found.out | found.suspected)[rows].any())
    assert named >= 9


@pytest.mark.parametrize("bend", [0.01, 0.03, 0.1])
def test_a_smooth_misfit_is_no_outlier(sweep, bend):
    """The ends of all rows lie above the law, as do those of real sweeps."""
    points = Points.from_runs(sweep(noise=0.003))
    v = np.log(points.D / points.N)
    v = (v - v.mean()) / v.std()
    bent = replace(points, loss=points.loss * np.exp(bend * (np.abs(v) ** 3 / 3 - v)))
    assert not screened(bent).out.any()
    worse = scaled(bent, run17=1 - max(0.03, 2 * bend))
    assert np.flatnonzero(screened(worse).side).tolist() == [17]


@pytest.mark.parametrize("tokens", [1e3, 1e-3, 30.0])
def test_a_run_far_from_the_others_is_compared_with_the_law(sweep, tokens):
    points = Points.from_runs(sweep(noise=0.003))
    D = points.D.copy()
    D[20] *= tokens
    assert screened(replace(points, D=D)).out[20]


@pytest.mark.parametrize("design", [(5, 7), (3, 5), (2, 12)])
def test_noise_free_runs_are_all_kept(sweep, design):
    found = screened(Points.from_runs(sweep(budgets=design[0], sizes=design[1])))
    assert not (found.out | found.suspected).any()


@pytest.mark.parametrize(("factor", "side"), [(1.3, 1), (0.7, -1), (1.0, 0)])
def test_iqr_fence(sweep, factor, side):
    points = scaled(Points.from_runs(sweep(noise=0.003)), run4=factor)
    assert screen_iqr(fit_parametric(points, delta=1e-3), points).side[4] == side


def test_excess_is_the_log_ratio(sweep):
    points = Points.from_runs(sweep())
    fit = fit_parametric(points)
    np.testing.assert_allclose(
        excess(fit, replace(points, loss=points.loss * 1.1)), np.log(1.1), atol=1e-9
    )
