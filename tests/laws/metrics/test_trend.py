import numpy as np
import pytest

from flops_fit.laws.metrics import trend

RNG = np.random.default_rng(3)
LOSS = np.repeat(np.linspace(3.5, 2.5, 5), 7) + 0.02 * RNG.standard_normal(35)
BUDGETS = np.repeat(np.arange(5), 7)
NOISE = RNG.standard_normal(35)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (0.25 + 0.02 * NOISE, "show no trend: it lies between"),
        (np.full(35, 0.25), "it is 0.25 in every run"),
        (np.full(35, 1.0), "it is 1 in every run"),
    ],
)
def test_noise_and_a_floor_are_refused(values, reason):
    assert reason in trend.refuse(values, LOSS, BUDGETS)


@pytest.mark.parametrize(
    "values",
    [
        1 / LOSS + 0.01 * NOISE,
        np.exp(LOSS),
        np.where(BUDGETS == 4, 0.5, 0.25) + 0.02 * NOISE,  # lifts off at the largest budget
    ],
)
def test_a_trend_is_not(values):
    assert trend.refuse(values, LOSS, BUDGETS) == ""


@pytest.mark.parametrize(
    ("keep", "named"), [(9, "9 runs at 2 budgets"), (0, "0 runs at 0 budgets")]
)
def test_few_runs_are_refused(keep, named):
    found = trend.refuse((1 / LOSS)[:keep], LOSS[:keep], BUDGETS[:keep])
    assert found.startswith(f"{named} have it: expected at least 10 at 3")


def test_a_metric_at_its_ceiling_is_remarked_on():
    still = np.where(BUDGETS < 2, 0.5, 0.99) + 0.001 * NOISE
    assert "no longer moves: 0.99" in trend.remark(still, LOSS, BUDGETS)
    assert trend.remark(1 / LOSS, LOSS, BUDGETS) == ""
