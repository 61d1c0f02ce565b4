"""How far a law misses the curves of its rows."""

import numpy as np
import pytest
from named_laws import bent
from planted import BUDGETS, LAW

from flops_fit.laws.fitting.parametric import fit_parametric
from flops_fit.laws.inference.lack_of_fit import lack_of_fit
from flops_fit.laws.runs.points import Points
from flops_fit.laws.runs.simulate import simulate_isoflop


def rejected(runs, form="five"):
    points = Points.from_runs(runs)
    fit = fit_parametric(points, form=form)
    return lack_of_fit(fit, points, runs["compute_budget"].to_numpy(), 0.1)


def simulated(law=LAW, noise=0.003, seed=0, sizes=7):
    return simulate_isoflop(law, BUDGETS, noise=noise, seed=seed, half_width=0.75, num_sizes=sizes)


def moved(runs, index, change):
    """Runs whose row of that index, from below, is moved by `change(z)` in ln L, |z| <= 1."""
    row = runs["compute_budget"] == BUDGETS[index]
    x = np.log(runs["num_params"])
    z = (x - x[row].mean()) / (np.ptp(x[row]) / 2)
    return runs.assign(loss=runs["loss"] * np.exp(np.where(row, change(z), 0.0)))


@pytest.mark.slow
def test_a_law_that_holds_is_rejected_no_more_often_than_the_level():
    found = [rejected(simulated(seed=seed)) is not None for seed in range(60)]
    assert sum(found) <= 2


def test_a_law_without_the_bend_of_the_runs_is_rejected():
    runs = simulated(bent(LAW), noise=0.001)
    assert rejected(runs, "five") is not None
    assert rejected(runs, "bent") is None


@pytest.mark.parametrize("index", [0, 2, 4])
def test_the_worst_row_is_the_first(index):
    found = rejected(moved(simulated(noise=0.001), index, lambda z: 0.03 * (z**2 - 0.5)))
    assert found.p < 1e-4
    assert found.rows[0].budget == pytest.approx(BUDGETS[index])
    assert sum(row.share for row in found.rows) == pytest.approx(1)
    assert found.noise == pytest.approx(0.001, rel=0.5)


def test_level_shift_and_bend_have_the_law_s_sign():
    flat = rejected(moved(simulated(noise=0.001), 2, lambda z: 0.05 * (z**2 - 0.5))).rows[0]
    assert flat.bend > 3
    curved = rejected(moved(simulated(noise=0.001), 2, lambda z: -0.02 * (z**2 - 0.5))).rows[0]
    assert curved.bend < -3
    low, high = (
        rejected(moved(simulated(noise=0.001), 2, lambda z, side=side: side * 0.03 + 0 * z)).rows[0]
        for side in (1, -1)
    )
    assert low.level < -0.01
    assert high.level > 0.01
    # Losses that rise with N move the row's own minimum to smaller N: the law's is too large.
    assert rejected(moved(simulated(noise=0.001), 2, lambda z: 0.03 * z)).rows[0].shift > 0.1


def test_nothing_is_said_where_rows_have_few_sizes_or_no_noise():
    assert rejected(moved(simulated(sizes=3), 2, lambda z: 0.1 * z)) is None
    assert rejected(simulated(noise=0.0)) is None
    # Four sizes leave one degree of freedom a row, together enough.
    assert rejected(moved(simulated(noise=0.0003, sizes=4), 2, lambda z: 0.01 * z)) is not None


def test_losses_that_are_not_positive_are_tested_in_linear_space():
    runs = moved(simulated(noise=0.001), 2, lambda z: 0.05 * (z**2 - 0.5))
    points = Points.from_runs(runs.assign(loss=runs["loss"] - 3.0))
    fit = fit_parametric(points, space="linear")
    found = lack_of_fit(fit, points, runs["compute_budget"].to_numpy(), 0.1)
    assert found.rows[0].budget == pytest.approx(BUDGETS[2])
    assert found.rows[0].bend > 3
