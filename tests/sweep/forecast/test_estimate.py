"""Time, memory and money of a plan, on a machine whose speed is known."""

import math
from dataclasses import replace

import cloudpickle
import numpy as np
import pandas as pd
import pytest
import torch

from flops_fit import Recipe
from flops_fit.errors import ArgumentError, SweepError
from flops_fit.sweep.forecast import calibration, estimate
from flops_fit.sweep.forecast.calibration import Calibration, tensor_bytes
from flops_fit.sweep.forecast.estimate import (
    BOOKKEEPING_S,
    interpolated,
    makespan,
    places_of,
)

START_S, WORKER_S, HELD_OUT_S = 0.5, 3.0, 0.25


def step_s(trial, speed_grows=0.2):
    """A machine with a fixed cost a step, whose speed grows with the size."""
    work = trial.flops_per_token * trial.batch_size
    return 1e-3 + work ** (1 - speed_grows) / 1e6


def machine(slow=1.0):
    """Replaces `calibrate`: returns the times of `step_s`, `slow` times more in each round."""

    def measured(task, source, trials, recipe, processes):
        table = pd.DataFrame(
            {
                "flops_per_token": trial.flops_per_token,
                "batch_size": trial.batch_size,
                "num_params": trial.num_params,
                "round": turn,
                "seconds_per_step": step_s(trial) * slow**turn,
                "start_s": START_S,
                "held_out_s": math.nan if turn else HELD_OUT_S,
                "state_bytes": 16.0 * trial.num_params,
                "work_bytes": 100.0 * trial.batch_size,
            }
            for trial in trials
            for turn in range(calibration.ROUNDS)
        )
        worker_start_s = WORKER_S if processes > 1 else 0.0
        return Calibration(table, "a machine", worker_start_s, "estimated")

    return measured


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setattr(estimate, "calibrate", machine())


def truth(trials):
    return [t.steps * step_s(t) + HELD_OUT_S + START_S + BOOKKEEPING_S for t in trials]


def test_times_between_the_places_are_near_the_truth(planned, known):
    plan = planned(recipe=replace(Recipe(max_epochs=1e12, pilot=False), batch_size=8))
    estimated = plan.estimate()
    each = estimated.table["seconds"].to_numpy()
    np.testing.assert_allclose(each, truth(plan.trials), rtol=0.15)
    assert estimated.seconds == pytest.approx(sum(each))
    assert estimated.device_seconds == pytest.approx(sum(each))
    low, high = estimated.seconds_interval
    assert low < estimated.seconds < high < 1.3 * estimated.seconds


def test_many_devices_share_the_trials(planned, known):
    plan = planned()
    one, three = plan.estimate(), plan.estimate(devices=3, price_per_hour=7.2)
    assert one.seconds / 3 < three.seconds < one.seconds
    assert three.seconds == pytest.approx(makespan(one.table["seconds"], 3) + WORKER_S)
    assert three.cost == pytest.approx(3 * 7.2 * three.seconds / 3600)
    assert three.cost_interval[1] == pytest.approx(3 * 7.2 * three.seconds_interval[1] / 3600)
    assert math.isnan(one.cost)


def test_a_machine_whose_speed_changes_widens_the_interval(planned, monkeypatch):
    monkeypatch.setattr(estimate, "calibrate", machine(slow=1.3))
    estimated = planned().estimate()
    assert estimated.seconds_interval[1] > 1.5 * estimated.seconds


def test_memory_grows_with_size_and_batch(planned, known):
    plan = planned()
    estimated = plan.estimate()
    expected = [16 * t.num_params + 100 * t.batch_size for t in plan.trials]
    np.testing.assert_allclose(estimated.table["memory_bytes"], expected)
    assert estimated.memory_bytes == max(expected)


def test_finished_trials_take_no_time(planned, known):
    plan = planned()
    done = frozenset(trial.trial_id for trial in plan.trials[:7])
    rest = replace(plan, done=done).estimate()
    assert rest.table["seconds"].isna().tolist() == [True] * 7 + [False] * 7
    assert rest._repr_html_().count("done") == 7
    assert rest.seconds < plan.estimate().seconds
    nothing = replace(plan, done=frozenset(trial.trial_id for trial in plan.trials)).estimate()
    assert nothing.seconds == 0
    assert "nothing is left to do" in repr(nothing)


def test_a_given_speed_is_used(planned):
    plan = planned()
    estimated = plan.estimate(calibrate=False, flops_per_second=1e9, price_per_hour=36)
    assert estimated.seconds == pytest.approx(plan.total_flops / 1e9)
    assert estimated.cost == pytest.approx(plan.total_flops / 1e9 / 100)
    assert "assumed: 1e+09 FLOP/s" in repr(estimated)
    assert "memory" not in repr(estimated)


def test_the_estimate_as_text(planned, known):
    estimated = planned().estimate(devices=2, price_per_hour=2)
    first, second, memory, money = repr(estimated).splitlines()
    assert first.startswith("Estimate: ")
    assert "for 14 of 14 trials on 2 devices (a machine)" in first
    assert "longest trial" in second
    assert "memory" in memory
    assert "estimated" in memory
    assert money.endswith("at 2 per device and hour")
    assert "<table" in estimated._repr_html_()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibrate": False}, "calibrate: if it is False, pass flops_per_second="),
        ({"price_per_hour": -1}, "price_per_hour: expected a positive number, got -1"),
        ({"flops_per_second": "fast"}, "flops_per_second: expected a positive number"),
        ({"devices": 0}, "devices: expected a positive whole number or 'auto', got 0"),
    ],
)
def test_bad_arguments_are_refused(planned, options, message):
    with pytest.raises(ArgumentError, match=message):
        planned().estimate(**options)


def test_a_plan_without_its_task_cannot_be_measured(planned):
    with pytest.raises(ArgumentError, match="this plan holds no model and data"):
        replace(planned(), origin=None).estimate()


def test_places_are_the_ends_and_the_middle_at_both_batches(planned):
    plan = planned()
    mixed = [replace(t, batch_size=8 + (t.size_index % 3)) for t in plan.trials]
    places = places_of(mixed)
    sizes = sorted({place.num_params for place in places})
    assert len(places) == 6
    assert (sizes[0], sizes[2]) == (
        min(t.num_params for t in mixed), max(t.num_params for t in mixed),
    )  # fmt: skip
    assert sizes[1] == pytest.approx(math.sqrt(sizes[0] * sizes[2]), rel=0.5)
    assert {place.batch_size for place in places} == {8, 10}
    assert len(places_of(plan.trials[:1])) == 1


@pytest.mark.parametrize(
    ("log", "value"),
    [
        (False, lambda t: 3 + 2 * t.flops_per_token + 5 * t.batch_size),
        (True, lambda t: 7 * t.flops_per_token**0.6 * t.batch_size**0.9),
    ],
)
def test_either_interpolation_is_exact_for_its_own_function(planned, log, value):
    trials = [replace(t, batch_size=8 + (t.size_index % 3)) for t in planned().trials]
    by_place = {(t.flops_per_token, t.batch_size): value(t) for t in places_of(trials)}
    got = interpolated(pd.Series(by_place), trials, log=log)
    np.testing.assert_allclose(got, [value(trial) for trial in trials])


@pytest.mark.parametrize(
    ("devices", "ends_at"), [(1, 10), (2, 5), (3, 4), (9, 4)]
)  # two: 4 1 | 3 2
def test_the_longest_trial_starts_first_and_each_on_the_first_free_device(devices, ends_at):
    assert makespan([1, 2, 3, 4], devices) == makespan([4, 2, 1, 3], devices) == ends_at


@pytest.mark.slow
def test_real_steps_are_timed_and_nothing_else_changes(planned, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(calibration, "STRETCH_S", 1e-3)
    monkeypatch.setattr(calibration, "HELD_OUT_S", 1e-2)
    before = torch.get_rng_state()
    estimated = planned(compute_budgets=[1e9]).estimate()
    assert np.isfinite(estimated.table[["seconds", "memory_bytes"]]).all(axis=None)
    assert (estimated.table["seconds"] > BOOKKEEPING_S).all()
    assert torch.equal(torch.get_rng_state(), before)
    assert not list(tmp_path.iterdir())


def test_slow_steps_are_timed_once(planned, monkeypatch):
    monkeypatch.setattr(calibration, "SLOW_S", 0.0)
    plan = planned(compute_budgets=[1e9])
    rows = plan.origin.rows
    measured = calibration.calibrate(plan.origin.task, rows.source, plan.trials[:1], plan.recipe)
    assert len(measured.table) == 1
    assert np.isfinite(measured.table["held_out_s"]).all()


def test_tensors_are_counted(planned):
    plan = planned(compute_budgets=[1e9])
    trial = plan.trials[-1]
    state, work = tensor_bytes(plan.origin.task, plan.origin.rows.source, trial, plan.recipe)
    assert state == pytest.approx(4 * 4 * trial.num_params, abs=100)  # p, g, two moments; counters
    hidden = 4 * trial.batch_size * trial.size
    assert hidden <= work <= 3 * hidden + 4000


@pytest.mark.slow
def test_processes_that_will_share_the_machine_measure_together(planned, monkeypatch):
    def run_here(payload, count, listener):
        for _ in range(count):
            function, call = cloudpickle.loads(payload)
            function(call, listener)

    monkeypatch.setattr(calibration, "run_in_processes", run_here)
    plan = planned(compute_budgets=[1e9])
    measured = calibration.calibrate(
        plan.origin.task, plan.origin.rows.source, plan.trials[:1], plan.recipe, processes=2
    )
    assert len(measured.table) == 2 * calibration.ROUNDS
    assert set(measured.table["num_params"]) == {plan.trials[0].num_params}
    assert measured.device == "CPU, 1 thread"
    assert 0 < measured.start_s < 60
    np.testing.assert_array_equal(measured.table["held_out_s"].isna(), [False, True, True] * 2)


def test_processes_that_all_die_are_reported(planned, monkeypatch):
    monkeypatch.setattr(calibration, "run_in_processes", lambda *_: None)
    plan = planned(compute_budgets=[1e9])
    with pytest.raises(SweepError, match="all processes that measured training speed died"):
        calibration.calibrate(plan.origin.task, plan.origin.rows.source, [], plan.recipe, 2)
