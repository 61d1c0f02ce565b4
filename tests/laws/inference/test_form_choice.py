from dataclasses import replace

import numpy as np
import pytest
from named_laws import LAWS, bent

from flops_fit.laws.fitting.parametric import fit_parametric
from flops_fit.laws.inference.backtest import backtest
from flops_fit.laws.inference.form_choice import (
    F_BENT,
    bent_test,
    choose_form,
    contradicts_straight,
    may_bend,
    tied_test,
)
from flops_fit.laws.runs.points import Points

FORMS = ("five", "tied", "bent")


def judged(runs, loss=None, forms=FORMS):
    """The back-test and the fits of a sweep, with its own losses or with others."""
    points, C = Points.from_runs(runs), runs["compute_budget"].to_numpy(float)
    if loss is not None:
        points = replace(points, loss=loss)
    fits = {form: fit_parametric(points, form=form) for form in forms}
    return backtest(points, C, fits), fits


def bent_sweep(sweep, name, gamma=0.5, seed=0):
    """A sweep of a law with gamma, and its losses."""
    runs = sweep(name)
    noise = np.exp(np.random.default_rng(seed).normal(0, 0.002, len(runs)))
    loss = bent(LAWS[name][0], gamma).loss(runs["num_params"], runs["num_tokens"])
    return runs, loss * noise


def twenty(sweep, name):
    return [sweep(name, noise=0.003, seed=seed) for seed in range(20)]


@pytest.mark.slow
def test_a_symmetric_law_can_be_tied_and_an_asymmetric_cannot(sweep):
    forms = {
        name: [choose_form(*judged(runs, forms=FORMS[:2]))[0] for runs in twenty(sweep, name)]
        for name in ("symmetric", "asymmetric")
    }
    assert "tied" in forms["symmetric"]
    assert "tied" not in forms["asymmetric"]


def test_f_statistic_grows_with_asymmetry(sweep):
    close = judged(sweep("symmetric", noise=0.003))[1]
    apart = judged(sweep("asymmetric", noise=0.003))[1]
    assert tied_test(close["five"], close["tied"]) < 8 < tied_test(apart["five"], apart["tied"])


@pytest.mark.parametrize("name", ["chinchilla", "asymmetric", "small"])
def test_a_planted_bend_is_found_and_the_reason_says_so(sweep, name):
    table, fits = judged(*bent_sweep(sweep, name))
    form, reason = choose_form(table, fits)
    assert form == "bent"
    assert "the runs contradict gamma = 1 (F " in reason
    assert fits["bent"].law.gamma == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("name", ["symmetric", "chinchilla", "small"])
def test_a_straight_law_is_hardly_ever_called_bent(sweep, name):
    forms = [choose_form(*judged(sweep(name, noise=0.003, seed=s)))[0] for s in range(8)]
    assert forms.count("bent") <= 1


def test_a_bend_that_the_back_test_contradicts_is_not_chosen(sweep):
    table, fits = judged(*bent_sweep(sweep, "small"))
    worse = table.assign(loss_rmse=table["loss_rmse"] * np.where(table["form"] == "bent", 100, 1))
    form, reason = choose_form(worse, fits)
    assert form == "five"
    assert "but with gamma the error on the held-out largest budgets is" in reason


@pytest.mark.parametrize("change", [{"converged": False}, {"at_bound": ("alpha",)}])
def test_an_unsound_bent_fit_contradicts_nothing(sweep, change):
    fits = judged(*bent_sweep(sweep, "small"))[1]
    assert contradicts_straight(fits["five"], fits["bent"])
    assert bent_test(fits["five"], fits["bent"]) > F_BENT
    assert not contradicts_straight(fits["five"], replace(fits["bent"], **change))


@pytest.mark.parametrize(
    ("budgets", "each", "enough"), [(5, 7, True), (4, 3, True), (3, 7, False), (5, 2, False)]
)
def test_gamma_needs_runs_and_budgets(budgets, each, enough):
    C = np.repeat(np.geomspace(1e12, 1e14, budgets), each)
    assert may_bend(C, 0.1) is enough


def test_runs_without_noise_contradict_nothing(sweep):
    table, fits = judged(sweep())
    assert choose_form(table, fits)[0] == "five"
