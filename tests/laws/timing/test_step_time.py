import numpy as np
import pytest

from flops_fit.laws.timing.fit import fit_step_time

WORK = np.geomspace(1e9, 1e12, 30)
MACHINES = {
    "launch-bound": lambda W: 1e-2 + W / 1e14,
    "FLOP-bound": lambda W: W / 1e12,
    "faster with size": lambda W: 1e-3 + 1e-2 * (W / 1e10) ** 0.85,
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("noise", [1e-6, 0.05])
def test_a_planted_machine_is_found_and_extrapolated(machine, noise):
    truth = MACHINES[machine]
    seconds = truth(WORK) * np.exp(noise * np.random.default_rng(2).standard_normal(30))
    found = fit_step_time(WORK, seconds)
    at = np.array([1e9, 1e11, 1e13])
    off = np.abs(np.log(found.seconds(at) / truth(at)))
    assert (off <= 2.5 * found.log_error(at) + 1e-3).all()
    assert found.num_measured == 30


def test_a_run_that_shared_its_device_is_left_out():
    seconds = MACHINES["FLOP-bound"](WORK)
    spoilt = seconds * np.where(np.arange(30) == 7, 5.0, 1.0)
    found = fit_step_time(WORK, spoilt)
    assert found.seconds(WORK) == pytest.approx(seconds, rel=1e-3)
    assert found.num_measured == 29


@pytest.mark.parametrize("count", [1, 2])
def test_few_measurements_give_a_time_in_proportion(count):
    found = fit_step_time(WORK[:count], WORK[:count] / 1e12)
    assert found.seconds(1e13) == pytest.approx(10, rel=1e-6)
    assert found.slope(1e13) == pytest.approx(1)


def test_nothing_measured_is_none():
    assert fit_step_time(np.array([1e9, np.nan]), np.array([0.0, 1.0])) is None


def test_a_slower_device_takes_longer_everywhere():
    found = fit_step_time(WORK, MACHINES["launch-bound"](WORK))
    assert found.slowed(np.log(2)).seconds(WORK) == pytest.approx(2 * found.seconds(WORK))
    assert (0 < found.slope(WORK)).all()
    assert (found.slope(WORK) <= 1).all()
