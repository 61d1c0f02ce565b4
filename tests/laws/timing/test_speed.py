import numpy as np
import pytest
from measures import measured_runs, seconds_per_token

from flops_fit.laws.model.cost import FlopsPerToken
from flops_fit.laws.runs.table import read_runs
from flops_fit.laws.timing.speed import speed_of

COST, X = FlopsPerToken(), np.log(np.array([3e4, 3e5, 3e6]))


def found(table):
    return speed_of(read_runs(table)[0])


@pytest.mark.parametrize("steps", [None, 512, 65536])
def test_seconds_of_a_token_are_those_of_the_runs(steps):
    table = measured_runs(noise=1e-6)
    if steps:
        table["steps"] = table["num_tokens"] / steps
    speed = found(table)
    assert np.exp(speed.log_seconds(X, COST)) == pytest.approx(
        seconds_per_token(np.exp(X)), rel=1e-2
    )
    assert speed.counts_steps == bool(steps)
    assert speed.tokens_per_step == pytest.approx(steps or 1)


@pytest.mark.parametrize(
    ("column", "scale"),
    [("train_runtime", 1), ("seconds", 1), ("_runtime", 1), ("gpu_hours", 1 / 3600)],
)
def test_a_column_of_time_is_recognised(column, scale):
    table = measured_runs()
    plain = found(table).log_seconds(X, COST)
    table[column] = scale * table.pop("wall_time_s")
    assert found(table).log_seconds(X, COST) == pytest.approx(plain)


@pytest.mark.parametrize("state", ["failed", "running"])
def test_runs_that_have_not_finished_do_not_count(state):
    table = measured_runs().assign(state="complete")
    table.loc[:4, "state"] = state
    assert found(table).num_runs == len(table) - 5
    assert found(table.drop(columns="wall_time_s")) is None


def test_the_slope_is_the_derivative():
    speed = found(measured_runs())
    step = 1e-4
    difference = (speed.log_seconds(X + step, COST) - speed.log_seconds(X - step, COST)) / (
        2 * step
    )
    assert speed.log_slope(X, COST) == pytest.approx(difference, abs=1e-6)
