"""Time, memory and money of a plan, on a machine whose speed is known."""

import math
from dataclasses import replace

import cloudpickle
import numpy as np
import pytest
import torch

from flops_fit import Recipe
from flops_fit.errors import ArgumentError, SweepError
from flops_fit.sweep.forecast import calibration, estimate
from flops_fit.sweep.forecast.calibration import Calibration, Place, tensor_bytes
from flops_fit.sweep.forecast.estimate import (
    BOOKKEEPING_S,
    flops_per_token,
    interpolated,
    makespan,
    places_of,
)

START_S, WORKER_S, HELD_OUT_S = 0.5, 3.0, 0.25


def step_s(trial, speed_grows=0.2):
    """A machine with a fixed cost a step, whose speed grows with the size."""
    work = flops_per_token(trial) * trial.batch_size
    return 1e-3 + work ** (1 - speed_grows) / 1e6


def machine(slow=1.0):
    """In place of `calibrate`: tells what `step_s` says, in each round `slow` times more."""

    def measured(task, source, trials, recipe, processes):
        places = []
        for trial in trials:
            rounds = [step_s(trial) * slow**turn for turn in range(calibration.ROUNDS)]
            times = tuple(t for t in rounds for _ in range(calibration.STRETCHES))
            memory = 16.0 * trial.num_params, 100.0 * trial.batch_size
            places.append(Place(trial, times, START_S, HELD_OUT_S, *memory))
        return Calibration(tuple(places), "a machine", WORKER_S * (processes > 1), "estimated")

    return measured


@pytest.fixture
def known(monkeypatch):
    monkeypatch.setattr(estimate, "calibrate", machine())


def truth(trials):
    return [t.steps * step_s(t) + HELD_OUT_S + START_S + BOOKKEEPING_S for t in trials]


def test_times_between_the_places_are_near_the_truth(planned, known):
    plan = planned(recipe=replace(Recipe(max_epochs=1e12), batch_size=8))
    told = plan.estimate()
    each = told.table["seconds"].to_numpy()
    np.testing.assert_allclose(each, truth(plan.trials), rtol=0.15)
    assert told.seconds == pytest.approx(sum(each))
    assert told.device_seconds == pytest.approx(sum(each))
    low, high = told.seconds_interval
    assert low < told.seconds < high < 1.3 * told.seconds


def test_many_devices_share_the_trials(planned, known):
    plan = planned()
    one, three = plan.estimate(), plan.estimate(devices=3, price_per_hour=7.2)
    assert one.seconds / 3 < three.seconds < one.seconds
    assert three.seconds == pytest.approx(makespan(one.table["seconds"], 3) + WORKER_S)
    assert three.cost == pytest.approx(3 * 7.2 * three.seconds / 3600)
    assert three.cost_interval[1] == pytest.approx(3 * 7.2 * three.seconds_interval[1] / 3600)
    assert math.isnan(one.cost)


def test_a_machine_whose_speed_changes_is_doubted(planned, monkeypatch):
    monkeypatch.setattr(estimate, "calibrate", machine(slow=1.3))
    told = planned().estimate()
    assert told.seconds_interval[1] > 1.5 * told.seconds


def test_memory_grows_with_size_and_batch(planned, known):
    plan = planned()
    told = plan.estimate()
    expected = [16 * t.num_params + 100 * t.batch_size for t in plan.trials]
    np.testing.assert_allclose(told.table["memory_bytes"], expected)
    assert told.memory_bytes == max(expected)


def test_what_is_done_takes_no_time(planned, known):
    plan = planned()
    done = frozenset(trial.trial_id for trial in plan.trials[:7])
    rest = replace(plan, done=done).estimate()
    assert rest.table["seconds"].isna().tolist() == [True] * 7 + [False] * 7
    assert rest._repr_html_().count("done") == 7
    assert rest.seconds < plan.estimate().seconds
    nothing = replace(plan, done=frozenset(trial.trial_id for trial in plan.trials)).estimate()
    assert nothing.seconds == 0
    assert "nothing is left to do" in repr(nothing)


def test_a_speed_that_is_named_is_taken(planned):
    plan = planned()
    told = plan.estimate(calibrate=False, flops_per_second=1e9, price_per_hour=36)
    assert told.seconds == pytest.approx(plan.total_flops / 1e9)
    assert told.cost == pytest.approx(plan.total_flops / 1e9 / 100)
    assert "assumed: 1e+09 FLOP/s" in repr(told)
    assert "memory" not in repr(told)


def test_it_reads_well(planned, known):
    told = planned().estimate(devices=2, price_per_hour=2)
    first, second, memory, money = repr(told).splitlines()
    assert first.startswith("Estimate: ")
    assert "for 14 of 14 trials on 2 devices (a machine)" in first
    assert "longest trial" in second
    assert "memory" in memory
    assert "estimated" in memory
    assert money.endswith("at 2 per device and hour")
    assert "<table" in told._repr_html_()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibrate": False}, "calibrate: without it, say how fast the device is"),
        ({"price_per_hour": -1}, "price_per_hour: expected a positive number, got -1"),
        ({"flops_per_second": "fast"}, "flops_per_second: expected a positive number"),
        ({"devices": 0}, "devices: expected a positive whole number or 'auto', got 0"),
    ],
)
def test_bad_arguments_are_refused(planned, options, message):
    with pytest.raises(ArgumentError, match=message):
        planned().estimate(**options)


def test_a_plan_without_its_task_cannot_be_measured(planned):
    with pytest.raises(ArgumentError, match="this plan came from elsewhere"):
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
    ("way", "value"),
    [
        ("linear", lambda t: 3 + 2 * flops_per_token(t) + 5 * t.batch_size),
        ("log", lambda t: 7 * flops_per_token(t) ** 0.6 * t.batch_size**0.9),
    ],
)
def test_either_way_is_exact_where_it_is_true(planned, way, value):
    trials = [replace(t, batch_size=8 + (t.size_index % 3)) for t in planned().trials]
    places = [Place(trial, (), 0, 0, 0, 0) for trial in places_of(trials)]
    got = interpolated(places, trials, lambda place: value(place.trial), way)
    np.testing.assert_allclose(got, [value(trial) for trial in trials])


@pytest.mark.parametrize(
    ("devices", "ends_at"), [(1, 10), (2, 6), (3, 4), (9, 4)]
)  # two: 4 2 | 3 1, in turn, not at best
def test_trials_are_taken_up_in_turn(devices, ends_at):
    assert makespan([4, 3, 1, 2], devices) == ends_at


def test_real_steps_are_timed_and_nothing_else_changes(planned, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(calibration, "STRETCH_S", 1e-3)
    monkeypatch.setattr(calibration, "HELD_OUT_S", 1e-2)
    before = torch.get_rng_state()
    told = planned(compute_budgets=[1e9]).estimate()
    assert np.isfinite(told.table[["seconds", "memory_bytes"]]).all(axis=None)
    assert (told.table["seconds"] > BOOKKEEPING_S).all()
    assert torch.equal(torch.get_rng_state(), before)
    assert not list(tmp_path.iterdir())


def test_slow_steps_are_timed_once(planned, monkeypatch):
    monkeypatch.setattr(calibration, "SLOW_S", 0.0)
    plan = planned(compute_budgets=[1e9])
    rows = plan.origin.rows
    measured = calibration.calibrate(plan.origin.task, rows.source, plan.trials[:1], plan.recipe)
    assert [len(place.seconds_per_step) for place in measured.places] == [calibration.STRETCHES]


def test_tensors_are_counted(planned):
    plan = planned(compute_budgets=[1e9])
    trial = plan.trials[-1]
    state, work = tensor_bytes(plan.origin.task, plan.origin.rows.source, trial, plan.recipe)
    assert state == pytest.approx(4 * 4 * trial.num_params, abs=100)  # p, g, two moments; counters
    hidden = 4 * trial.batch_size * trial.size
    assert hidden <= work <= 3 * hidden + 4000


def test_processes_that_will_share_the_machine_measure_together(planned, monkeypatch):
    def run_here(payload, count, listener):
        for _ in range(count):
            function, orders = cloudpickle.loads(payload)
            function(orders, listener)

    monkeypatch.setattr(calibration, "run_in_processes", run_here)
    plan = planned(compute_budgets=[1e9])
    measured = calibration.calibrate(
        plan.origin.task, plan.origin.rows.source, plan.trials[:1], plan.recipe, processes=2
    )
    assert len(measured.places) == 2
    assert {place.trial for place in measured.places} == {plan.trials[0]}
    assert measured.start_s > 0


def test_processes_that_all_die_are_reported(planned, monkeypatch):
    monkeypatch.setattr(calibration, "run_in_processes", lambda *_: None)
    plan = planned(compute_budgets=[1e9])
    with pytest.raises(SweepError, match="no process that measures came to an end"):
        calibration.calibrate(plan.origin.task, plan.origin.rows.source, [], plan.recipe, 2)
