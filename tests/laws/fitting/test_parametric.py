import numpy as np
import pytest
from named_laws import LAWS, bent

from flops_fit.errors import FitError
from flops_fit.laws.fitting.parametric import (
    fit_parametric,
    natural,
    natural_slopes,
    refit,
    theta_of,
)
from flops_fit.laws.model.cost import FlopsPerToken
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.runs.points import Points
from flops_fit.laws.runs.simulate import simulate_isoflop


def numbers(law):
    return np.array([law.E, law.A, law.B, law.alpha, law.beta])


@pytest.mark.parametrize(
    "how", [{}, {"delta": 1e-3}, {"space": "linear"}, {"space": "linear", "delta": 1e-3}]
)
def test_planted_law_is_found_to_a_millionth(named_law, how):
    law, first, last = named_law
    runs = simulate_isoflop(law, np.geomspace(first, last, 5))
    fit = fit_parametric(Points.from_runs(runs), **how)
    assert fit.converged
    np.testing.assert_allclose(numbers(fit.law), numbers(law), rtol=1e-6)


def test_planted_tied_law_is_found_to_a_millionth(sweep):
    fit = fit_parametric(Points.from_runs(sweep("symmetric")), form="tied")
    np.testing.assert_allclose(numbers(fit.law), [1.8, 450.0, 1200.0, 0.35, 0.35], rtol=1e-6)
    assert fit.law.a == 0.5


@pytest.mark.parametrize("gamma", [0.3, 0.6, 1.5])
@pytest.mark.parametrize("how", [{}, {"delta": 1e-3}, {"space": "linear"}])
def test_planted_bent_law_is_found(named_law, how, gamma):
    law, first, last = named_law
    law = bent(law, gamma)
    runs = simulate_isoflop(law, np.geomspace(first, last, 5))
    fit = fit_parametric(Points.from_runs(runs), form="bent", **how)
    assert fit.converged
    assert fit.num_free == 6
    np.testing.assert_allclose(fit.law.vector, law.vector, rtol=1e-5)


def test_gamma_is_one_unless_the_law_is_bent(sweep):
    points = Points.from_runs(sweep(noise=0.003))
    for form in ("five", "tied"):
        fit = fit_parametric(points, form=form)
        assert fit.law.gamma == 1
        assert len(fit.theta) == 5
    straight = Points.from_runs(sweep())
    assert fit_parametric(straight, form="bent").law.gamma == pytest.approx(1, abs=1e-5)


def test_theta_and_its_slopes_belong_to_the_law(sweep):
    for form in ("five", "bent"):
        fit = fit_parametric(Points.from_runs(sweep(noise=0.003)), form=form)
        np.testing.assert_allclose(theta_of(fit.law, form, fit.centre), fit.theta, rtol=1e-9)
        theta = np.array(fit.theta)
        steps = 1e-6 * np.eye(len(theta))
        moved = natural(theta + steps, fit.centre) - natural(theta - steps, fit.centre)
        slopes = natural_slopes(theta, fit.centre)
        np.testing.assert_allclose(slopes, moved.T / 2e-6, rtol=1e-6, atol=1e-6)


def test_a_bent_fit_is_repeated_on_other_runs(sweep):
    law = bent(LAWS["small"][0])
    runs = simulate_isoflop(law, np.geomspace(1e12, 1e14, 5), noise=0.002, seed=1)
    points = Points.from_runs(runs)
    fit = fit_parametric(points, form="bent")
    part = points.at(np.arange(len(points)) < 28)
    again = refit(fit, part)
    assert again.form == "bent"
    assert again.objective == pytest.approx(fit_parametric(part, form="bent").objective)


def test_a_law_far_from_chinchilla_is_found():
    law = ParametricLaw(0.5, 30.0, 5e6, 0.2, 0.9)
    runs = simulate_isoflop(law, np.geomspace(1e16, 1e18, 5))
    np.testing.assert_allclose(
        numbers(fit_parametric(Points.from_runs(runs)).law), numbers(law), rtol=1e-6
    )


def test_too_few_runs():
    with pytest.raises(FitError, match="at least 5 runs for 5 parameters, got 4"):
        fit_parametric(Points(*np.ones((3, 4))))


def test_bounds_are_reported(sweep):
    runs = sweep(noise=0.0)
    flat = runs.assign(loss=100 / runs["num_tokens"] ** 0.3 + 66 / runs["num_params"] ** 0.35)
    fit = fit_parametric(Points.from_runs(flat))
    assert "E" in fit.at_bound
    assert fit_parametric(Points.from_runs(runs)).at_bound == ()


def test_starts_that_disagree_are_counted(rough_runs, sweep):
    assert fit_parametric(Points.from_runs(rough_runs), delta=1e-3).agreement < 0.9
    fit = fit_parametric(Points.from_runs(sweep(noise=0.003)))
    assert fit.agreement == 1.0
    assert fit.num_starts >= 9


def test_refit_on_fewer_runs_is_the_fit_of_those_runs(sweep):
    points = Points.from_runs(sweep(noise=0.003))
    fewer = points.at(np.arange(28))
    again = refit(fit_parametric(points), fewer)
    fresh = fit_parametric(fewer)
    np.testing.assert_allclose(numbers(again.law), numbers(fresh.law), rtol=1e-5)


def test_very_many_runs_are_started_on_a_sample(small):
    rng = np.random.default_rng(0)
    N, D = np.exp(rng.uniform([[11], [14]], [[14], [17]], (2, 25_000)))
    loss = small.loss(N, D) * np.exp(0.01 * rng.normal(size=25_000))
    points = Points(N, D, loss)
    fit = fit_parametric(points)
    direct = fit_parametric(points, starts=np.array([fit.theta]))
    assert fit.agreement == 1.0
    assert fit.converged
    np.testing.assert_allclose(numbers(fit.law), numbers(direct.law), rtol=1e-6)
    assert fit.law.a == pytest.approx(small.a, abs=0.01)


def test_units_of_the_cost_only_move_the_optimum(sweep):
    points = Points.from_runs(sweep(noise=0.003))
    six, two = (fit_parametric(points, cost=FlopsPerToken(k)).law for k in (6.0, 2.0))
    assert two.n_opt(1e14) == pytest.approx(six.n_opt(3e14))


class TestAgainstChinchilla:
    """The fit of Besiroglu et al. 2024 to the points of Chinchilla's figure 4."""

    def points(self, runs):
        return Points(*(runs[name].to_numpy(float) for name in ("N", "D", "loss")))

    def test_objective_and_parameters(self, epoch_runs):
        fit = fit_parametric(self.points(epoch_runs), delta=1e-3)
        assert fit.objective == pytest.approx(1.018274e-3, abs=1e-8)
        assert fit.agreement == 1.0
        np.testing.assert_allclose(
            [*numbers(fit.law), fit.law.a],
            [1.81722, 477.8, 2143.4, 0.34731, 0.36717, 0.51390],
            rtol=1e-4,
        )

    def test_every_one_of_sixty_random_starts(self, epoch_runs):
        rng = np.random.default_rng(0)
        low, high = [-2, -4, -4, 0.05, 0.05], [1, 1, 1, 1.5, 1.5]
        starts = rng.uniform(low, high, (60, 5))
        fit = fit_parametric(self.points(epoch_runs), delta=1e-3, starts=starts)
        assert fit.agreement == 1.0
        assert fit.objective == pytest.approx(1.018274e-3, abs=1e-8)

    def test_printed_optimum_is_nearby(self, epoch_runs):
        """Their printed point is not fully converged: within 3 % of the true optimum."""
        printed = [1.8172, 482.01, 2085.43, 0.3478, 0.3658]
        fit = fit_parametric(self.points(epoch_runs), delta=1e-3)
        np.testing.assert_allclose(numbers(fit.law), printed, rtol=0.03)
