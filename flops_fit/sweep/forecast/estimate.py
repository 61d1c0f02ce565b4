"""`Estimate`: how long a sweep will take, in how much memory, for how much money.

Seconds per step are measured at the smallest, the middle and the largest size of the plan, each at
its smallest and its largest batch, and interpolated over FLOPs per token: once linearly (a fixed
cost a step and a constant speed beyond it), once in log-log (a speed that grows with the size). The
truth lies mostly between; the estimate is their geometric mean.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from statistics import mean, median
from typing import Any, Literal

import numpy as np
import pandas as pd

from flops_fit.laws.model.arrays import Array
from flops_fit.records import Trial
from flops_fit.report import plan_text
from flops_fit.sweep.execution.executors import count_workers
from flops_fit.sweep.forecast.calibration import ROUNDS, STRETCHES, Calibration, Place, calibrate
from flops_fit.sweep.plan.grid import Grid
from flops_fit.validate import is_count_or_auto, is_positive, raise_problems

Way = Literal["linear", "log"]
WAYS: tuple[Way, Way] = ("linear", "log")
BOOKKEEPING_S = 0.2  # to claim a trial and record its run (sqlite, measured)
LEAST_DOUBT = 0.1  # what a machine's speed changes by from minute to minute
STUDENT_2 = 4.30  # 95 % of Student's t with two degrees of freedom: three rounds


@dataclass(frozen=True, repr=False)
class Estimate:
    """What is left of a sweep will take this.

    Attributes:
        table: The plan's `to_frame()` with `seconds` and `memory_bytes` of each trial; NaN
            where it is done.
        seconds: From the call to the last trial's end, all devices at work; the fit that follows is
            not counted.
        seconds_interval: (low, high): holds the spread of what was timed and the doubt about sizes
            between those timed; not what else the machine may do meanwhile.
        device_seconds: Of all trials together.
        memory_bytes: Most that a trial holds on its device, beside what Python and torch take
            themselves; NaN where nothing was measured.
        memory_kind: "measured" (CUDA's peak), or "estimated" (parameters, gradients, the
            optimiser's state and what autograd saves for one step).
        cost: `price_per_hour` times all devices' hours; NaN where no price was given.
        cost_interval: The same of `seconds_interval`.
        price_per_hour: Of one device, in any currency.
        devices: Trials at work at a time.
        device: What was timed, in words.
    """

    table: pd.DataFrame
    seconds: float
    seconds_interval: tuple[float, float]
    device_seconds: float
    memory_bytes: float
    memory_kind: str
    cost: float
    cost_interval: tuple[float, float]
    price_per_hour: float | None
    devices: int
    device: str

    def __repr__(self) -> str:
        return "\n".join(plan_text.of_estimate(self))

    def _repr_html_(self) -> str:
        return plan_text.estimate_html(self)


def estimate_plan(
    plan: Grid,
    *,
    calibrated: bool = True,
    flops_per_second: float | None = None,
    price_per_hour: float | None = None,
    devices: int | str = 1,
) -> Estimate:
    """See `SweepPlan.estimate`.

    Raises:
        ArgumentError: Listing every argument that cannot work.
        SweepError: No process that measures came to an end.
    """
    raise_problems(list(_faults(plan, calibrated, flops_per_second, price_per_hour, devices)))
    count = count_workers(devices)
    trials = plan.to_do
    if not trials or flops_per_second:
        each = np.array([trial.flops / (flops_per_second or math.inf) for trial in trials])
        device = f"assumed: {flops_per_second:.3g} FLOP/s" if trials else "nothing is left to do"
        made = _Times(each, 0.0, math.nan, device)
    else:
        assert plan.origin is not None
        task, source = plan.origin.task, plan.origin.rows.source
        side_by_side = min(count, count_workers("auto"))
        made = _times(calibrate(task, source, places_of(trials), plan.recipe, side_by_side), trials)
    return _put_together(plan, made, price_per_hour, count)


def places_of(trials: Sequence[Trial]) -> list[Trial]:
    """The smallest, middle and largest size, at the smallest and the largest batch of all."""
    by_cost = sorted(trials, key=flops_per_token)
    middle = math.sqrt(flops_per_token(by_cost[0]) * flops_per_token(by_cost[-1]))
    nearest = min(by_cost, key=lambda trial: abs(math.log(flops_per_token(trial) / middle)))
    sizes = {trial.size: trial for trial in (by_cost[0], nearest, by_cost[-1])}
    batches = sorted({trial.batch_size for trial in trials})
    return [
        replace(trial, batch_size=batch)
        for trial in sizes.values()
        for batch in sorted({batches[0], batches[-1]})
    ]


def flops_per_token(trial: Trial) -> float:
    """FLOPs for one unit of D."""
    return trial.flops / trial.num_tokens


def makespan(seconds: Iterable[float], devices: int) -> float:
    """When the last trial ends, each taken up in turn by the first device that is free."""
    free = [0.0] * devices
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return float(max(free))


@dataclass(frozen=True)
class _Times:
    """Seconds and bytes of each trial that is left, and how far to believe the seconds.

    `doubt` is half the width of the 95 % interval of the seconds, relative; NaN for none.
    """

    seconds: Array
    start_s: float
    doubt: float
    device: str
    memory_bytes: Array | None = None
    memory_kind: str = ""


def _times(measured: Calibration, trials: Sequence[Trial]) -> _Times:
    places, steps = measured.places, np.array([trial.steps for trial in trials])
    start = median(place.start_s for place in places) + BOOKKEEPING_S

    def in_all(step_s: Callable[[Place], float], way: Way) -> Array:
        held_out = interpolated(places, trials, lambda place: place.held_out_s, way)
        return steps * interpolated(places, trials, step_s, way) + held_out + start

    low, high = (in_all(lambda place: mean(place.seconds_per_step), way) for way in WAYS)
    between = math.log(high.sum() / low.sum()) / 2
    rounds = [in_all(partial(_of_round, turn), "linear").sum() for turn in range(ROUNDS)]
    spread = STUDENT_2 * float(np.std(np.log(rounds), ddof=1)) / math.sqrt(ROUNDS)
    return _Times(
        seconds=np.sqrt(low * high),
        start_s=measured.start_s,
        doubt=math.hypot(spread, between, LEAST_DOUBT),
        device=measured.device,
        memory_bytes=_memory(places, trials),
        memory_kind=measured.memory_kind,
    )


def _of_round(turn: int, place: Place) -> float:
    """Seconds per step in one round; of all together where the steps were too slow for rounds."""
    times = place.seconds_per_step
    return mean(times[turn * STRETCHES : (turn + 1) * STRETCHES] or times)


def interpolated(
    places: Sequence[Place], trials: Sequence[Trial], value: Callable[[Place], float], way: Way
) -> Array:
    """A positive value of each trial from what it is at the places, over FLOPs per token and batch.

    Args:
        places: A grid: each size measured at the same batches.
        trials: Whose value is wanted.
        value: Of a place, positive; several of one place are averaged.
        way: "linear" or "log".
    """
    scale, back = (np.log, np.exp) if way == "log" else (np.asarray, np.asarray)
    costs = sorted({flops_per_token(place.trial) for place in places})
    batches = sorted({place.trial.batch_size for place in places})
    grid = np.zeros((len(costs), len(batches)))
    for i, j in np.ndindex(*grid.shape):
        here = [p for p in places if _lies_at(p, costs[i], batches[j])]
        grid[i, j] = np.mean([value(place) for place in here])
    batch = scale(np.array([float(trial.batch_size) for trial in trials]))
    by_cost = np.array([np.interp(batch, scale(batches), scale(row)) for row in grid])
    cost = scale(np.array([flops_per_token(trial) for trial in trials]))
    pairs = zip(cost, by_cost.T, strict=True)
    return np.asarray(back(np.array([np.interp(c, scale(costs), column) for c, column in pairs])))


def _lies_at(place: Place, cost: float, batch: int) -> bool:
    return flops_per_token(place.trial) == cost and place.trial.batch_size == batch


def _memory(places: Sequence[Place], trials: Sequence[Trial]) -> Array:
    """The state grows with the parameters, the rest with size and batch."""
    state = interpolated(places, trials, lambda p: p.state_bytes / p.trial.num_params, "linear")
    work = interpolated(places, trials, lambda p: p.work_bytes, "linear")
    return state * [trial.num_params for trial in trials] + work


def _put_together(plan: Grid, made: _Times, price_per_hour: float | None, devices: int) -> Estimate:
    total = made.start_s + makespan(made.seconds, devices)
    interval = (total / (1 + made.doubt), total * (1 + made.doubt))
    memory = (
        np.full(len(made.seconds), math.nan) if made.memory_bytes is None else made.memory_bytes
    )
    price = math.nan if price_per_hour is None else price_per_hour * devices / 3600
    table, ids = plan.to_frame(), [trial.trial_id for trial in plan.to_do]
    for name, values in (("seconds", made.seconds), ("memory_bytes", memory)):
        table[name] = table["trial_id"].map(dict(zip(ids, values, strict=True)))
    return Estimate(
        table=table,
        seconds=total,
        seconds_interval=interval,
        device_seconds=float(made.seconds.sum()),
        memory_bytes=float(memory.max(initial=-math.inf)) if ids else math.nan,
        memory_kind=made.memory_kind,
        cost=price * total,
        cost_interval=(price * interval[0], price * interval[1]),
        price_per_hour=price_per_hour,
        devices=devices,
        device=made.device,
    )


def _faults(
    plan: Grid,
    calibrated: object,
    flops_per_second: Any,
    price_per_hour: Any,
    devices: object,
) -> Iterator[str]:
    if flops_per_second is None and calibrated is not True:
        yield "calibrate: without it, say how fast the device is by flops_per_second="
    for name, value in (("flops_per_second", flops_per_second), ("price_per_hour", price_per_hour)):
        if value is not None and not is_positive(value):
            yield f"{name}: expected a positive number, got {value!r}"
    if not is_count_or_auto(devices):
        yield f"devices: expected a positive whole number or 'auto', got {devices!r}"
    if plan.origin is None and flops_per_second is None:
        yield "calibrate: this plan came from elsewhere; make it by plan_sweep to measure with it"
