"""Coverage of the intervals of metrics; `benchmarks/metrics.py` measures it over many sweeps."""

import pytest
from measures import accuracy, error, measured_runs
from planted import LAW

from flops_fit.result import fit

SWEEPS, LEAST = 12, 9  # fewer than nine of twelve would be a share below 90 % at p = .03


@pytest.mark.slow
@pytest.mark.parametrize(("name", "truth"), [("accuracy", accuracy), ("error", error)])
@pytest.mark.parametrize("factor", [1, 100])
def test_intervals_hold_the_truth(name, truth, factor):
    C, held = factor * 1e14, 0
    for seed in range(SWEEPS):
        result = fit(measured_runs(0.008, seed), metrics=[name], num_draws=100)
        low, high = result.predict(C, metric=name).metric.interval
        held += low <= truth(LAW.l_opt(C)) <= high
    assert held >= LEAST
