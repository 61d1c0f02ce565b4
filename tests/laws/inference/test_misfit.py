from dataclasses import replace

import numpy as np
import pytest
from named_laws import LAWS, bent
from planted import LAW, runs

from flops_fit.laws.fitting.parametric import fit_parametric
from flops_fit.laws.inference.misfit import measure_misfit
from flops_fit.laws.model.cost import FlopsPerToken
from flops_fit.laws.runs.points import Points
from flops_fit.laws.runs.simulate import simulate_isoflop

COST = FlopsPerToken()


def fitted(table, *forms):
    points = Points.from_runs(table)
    return points, {form: fit_parametric(points, form=form) for form in forms}


def all_forms(table):
    return fitted(table, "five", "tied", "bent")


def bent_runs(noise=0.002, seed=0):
    law = bent(LAW, 0.4)
    return law, simulate_isoflop(
        law, np.geomspace(1e12, 1e14, 5), noise=noise, seed=seed, half_width=0.75
    )


def test_a_bent_law_counts_alone_where_the_runs_are_clear():
    points, fits = all_forms(bent_runs()[1])
    found = measure_misfit(fits, "bent", points, average=True)
    assert [law.fit.form for law in found.laws] == ["bent"]
    assert found.weights == (1.0,)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_straight_law_counts_most_where_it_is_exact(seed):
    points, fits = all_forms(runs(seed=seed))
    found = measure_misfit(fits, "five", points, average=True)
    assert found.laws[0].fit.form == "five"
    assert found.weights[0] > 0.5
    assert sum(found.weights) == pytest.approx(1)
    assert found.exact > 0.5


@pytest.mark.parametrize("form", ["five", "tied", "bent"])
def test_a_form_on_request_counts_alone(form):
    points, fits = all_forms(runs())
    found = measure_misfit(fits, form, points, average=False)
    assert [law.fit.form for law in found.laws] == [form]


def test_few_runs_do_not_average():
    table = simulate_isoflop(LAW, np.geomspace(1e12, 1e14, 4), num_sizes=5, noise=0.003)
    points, fits = all_forms(table)
    assert len(measure_misfit(fits, "five", points, average=True).laws) == 1


def test_too_few_runs_show_no_misfit():
    points, fits = fitted(runs().iloc[[0, 3, 6, 10, 17, 24, 31]], "five", "tied")
    assert measure_misfit(fits, "five", points, average=True) is None


def test_an_average_is_between_its_laws_and_less_certain_where_they_part():
    points, fits = all_forms(runs(seed=3))
    both = measure_misfit(fits, "five", points, average=True)
    assert len(both.laws) == 2
    x, y = np.log(LAW.n_opt(1e17)), np.log(LAW.d_opt(1e17))
    parts = [
        replace(both, weights=(1.0,), laws=(law,)).losses(np.array([x]), np.array([y]))
        for law in both.laws
    ]
    value = both.losses(np.array([x]), np.array([y])).value[0]
    assert min(p.value[0] for p in parts) < value < max(p.value[0] for p in parts)


@pytest.mark.parametrize("name", ["chinchilla", "asymmetric", "small"])
def test_the_optimum_is_the_laws_where_it_is_exact(name):
    law, first, last = LAWS[name]
    table = simulate_isoflop(law, np.geomspace(first, last, 5), noise=0.001, half_width=0.75)
    points, fits = fitted(table, "five")
    found = measure_misfit(fits, "five", points, average=False)
    C = np.array([last, 10 * last])
    value, half = found.optima(C, COST)
    np.testing.assert_allclose(value, np.log(law.n_opt(C)), atol=0.05)
    assert (np.abs(value - np.log(law.n_opt(C))) < half).all()


def test_a_tilted_misfit_moves_the_optimum():
    """Losses of larger models are a little worse than the law says: smaller models are best."""
    table = runs(0.0005)
    x = np.log(table["num_params"] / LAW.n_opt(table["compute_budget"]))
    bump = 0.02 * np.exp(-(((np.log(table["compute_budget"] / 1e13)) / 0.8) ** 2))
    table["loss"] *= np.exp(bump * x)
    points, fits = fitted(table, "five")
    found = measure_misfit(fits, "five", points, average=False)
    C = np.array([1e13])
    moved = found.optima(C, COST)[0][0] - np.log(fits["five"].law.n_opt(C))[0]
    assert moved < -0.1


def test_losses_of_any_sign_are_predicted_in_their_own_unit():
    table = runs(0.003)
    table["loss"] -= 3.0
    points, _ = fitted(runs(0.003), "five")
    points = replace(points, loss=table["loss"].to_numpy())
    fits = {"five": fit_parametric(points, space="linear")}
    found = measure_misfit(fits, "five", points, average=False)
    N, D = LAW.n_opt(1e13), LAW.d_opt(1e13)
    losses = found.losses(np.log([N]), np.log([D]))
    assert losses.value[0] == pytest.approx(LAW.l_opt(1e13) - 3, abs=0.02)
    assert losses.low[0] < losses.value[0] < losses.high[0]
    assert 0.001 < losses.noise[0] < 0.05
