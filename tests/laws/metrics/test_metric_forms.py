import numpy as np
import pytest

from flops_fit.laws.metrics.forms import Form, Places
from flops_fit.laws.metrics.posterior import Limits, fit_form

LOSS = np.linspace(3.5, 2.5, 30)
COMPUTE = np.linspace(0.0, 4.6, 30)
PLACES = Places(LOSS, COMPUTE, np.tile([-1.0, 0.0, 1.0], 10))
SHARE, ANY = Limits(0.0, 1.0, True), Limits(-np.inf, np.inf, True)


def form(shape, of, irreducible=(0.0, 2.0)):
    return Form(shape, of, (2.5, 3.5), (0.0, 4.6), irreducible)


TRUTHS = {
    ("sigmoid", "loss"): lambda p: 0.2 + 0.7 / (1 + np.exp((p.loss - 2.9) / 0.15)),
    ("power", "loss"): lambda p: 1 - 0.3 * (p.loss - 1.5) ** 1.2,
    ("sigmoid", "compute"): lambda p: 0.2 + 0.7 / (1 + np.exp(-(p.log_compute - 2) / 0.6)),
    ("power", "compute"): lambda p: 1 - 0.6 * np.exp(-0.4 * p.log_compute) * (
        1 + 0.05 * p.off_optimum**2
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TRUTHS)
def test_each_form_finds_its_own_truth_and_its_interval_holds_it(case):
    truth, noise = TRUTHS[case], 0.003 * np.random.default_rng(1).standard_normal(30)
    fitted = fit_form(form(*case), PLACES, truth(PLACES) + noise, SHARE)
    at = Places(np.array([2.4, 2.3]), np.array([5.2, 6.0]), np.zeros(2))
    low, middle, high = np.quantile(fitted.form.values(fitted.draws, at), [0.02, 0.5, 0.98], axis=0)
    assert ((low <= truth(at)) & (truth(at) <= high)).all()
    assert middle == pytest.approx(truth(at), abs=0.05)
    assert fitted.scatter == pytest.approx(0.003, rel=0.5)


@pytest.mark.parametrize("of", ["loss", "compute"])
@pytest.mark.parametrize("shape", ["sigmoid", "power"])
def test_no_draw_leaves_the_bounds_or_turns_round(shape, of):
    rng = np.random.default_rng(0)
    values = 0.9 + 0.09 * (3.5 - LOSS) + 0.01 * rng.standard_normal(30)  # near the ceiling
    fitted = fit_form(form(shape, of), PLACES, values, SHARE)
    far = Places(np.linspace(6, 0, 50), np.linspace(-30, 60, 50), np.zeros(50))
    drawn = fitted.form.values(fitted.draws, far)
    if shape == "sigmoid":  # a power has one bound
        assert drawn.min() >= -1e-6
    assert drawn.max() <= 1 + 1e-6
    assert (np.diff(drawn, axis=1) >= -1e-9).all()


def test_a_form_needs_runs():
    few = PLACES.at(np.arange(4))
    assert fit_form(form("sigmoid", "loss"), few, np.arange(4.0) / 9, SHARE) is None


def test_without_bounds_the_best_value_is_fitted_too():
    values = 30 - 8 * (LOSS - 1.5) ** 0.7
    fitted = fit_form(form("power", "loss"), PLACES, values, ANY)
    at = Places(np.array([2.3]), np.zeros(1), np.zeros(1))
    low, high = np.quantile(fitted.form.values(fitted.draws, at), [0, 1])
    assert low - 1e-3 <= 30 - 8 * 0.8**0.7 <= high + 1e-3
