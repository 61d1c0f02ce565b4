"""`Estimate`: how long a sweep will take, in how much memory, at what price.

Seconds per step are measured at the smallest, the middle and the largest size of the plan, each at
the smallest and the largest batch. Between them they follow `StepTime`, a fixed cost per step plus
a power of its FLOPs, times what each place deviates from that, interpolated in log-log.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from flops_fit.laws.model.arrays import Array
from flops_fit.laws.timing.fit import fit_step_time
from flops_fit.laws.timing.step_time import StepTime
from flops_fit.records import Trial
from flops_fit.report import plan_text
from flops_fit.sweep.execution.executors import count_workers
from flops_fit.sweep.forecast.calibration import Calibration, calibrate
from flops_fit.sweep.forecast.course import flops_of_rounds
from flops_fit.sweep.plan.grid import Grid
from flops_fit.validate import is_count_or_auto, is_positive, raise_problems

BOOKKEEPING_S = 0.2  # to claim a trial and record its run (SQLite, measured)
MIN_DOUBT = 0.1  # a machine's speed changes by this from minute to minute
SMALLER = 4  # times; batches found at small budgets were 1 to 8 times smaller than the rule's
NORMAL = 1.96  # two-sided 95 % quantile
STUDENT_2 = 4.30  # two-sided 95 % quantile of Student's t, two degrees of freedom: three rounds


@dataclass(frozen=True, repr=False)
class Estimate:
    """Time, memory and price of the trials still to be done.

    Attributes:
        table: The plan's `to_frame()`, with the trials expected of a pilot; `seconds` and
            `memory_bytes` of each trial are NaN if it is done.
        seconds: From the call to the last trial's end, with all devices working; the fit that
            follows is not counted.
        seconds_interval: (low, high), about 95 %. Covers the spread of the measurements and the
            uncertainty of the interpolation, but no later change in the machine's load.
        device_seconds: Sum over all trials.
        memory_bytes: Most memory a trial holds on its device, beside what Python and torch take
            themselves; NaN if nothing was measured.
        memory_kind: "measured" (CUDA's peak), or "estimated" (parameters, gradients, the
            optimiser's state and what autograd saves for one step).
        cost: `price_per_hour` times the hours of all devices; NaN if no price was given.
        cost_interval: The same for `seconds_interval`.
        price_per_hour: Price of one device, in any currency.
        devices: Number of trials that run at a time.
        device: What was timed, for display.
        size_param: Name of the size parameter.
        data_unit: What D counts.
        rounds_seconds: Of a plan with a goal: how long the trials that follow these take, the
            least and the most of simulated sweeps (see `CourseForecast`), at the speed of the
            largest budget of these; else None.
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
    size_param: str = "size"
    data_unit: str = "tokens"
    rounds_seconds: tuple[float, float] | None = None

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
    """Implements `SweepPlan.estimate`; see there.

    Raises:
        ArgumentError: Lists all invalid arguments.
        SweepError: Every measuring process died.
    """
    raise_problems(list(_problems(plan, calibrated, flops_per_second, price_per_hour, devices)))
    num_devices = count_workers(devices)
    table = plan.frame_with_expected().assign(seconds=math.nan, memory_bytes=math.nan)
    to_do = table["trial_id"].isin([trial.trial_id for trial in plan.to_do])
    doubt = math.nan
    if not plan.to_do:
        measured = _nothing_measured("nothing is left to do")
    elif flops_per_second:
        measured = _nothing_measured(f"assumed: {flops_per_second:.3g} FLOP/s")
        table.loc[to_do, "seconds"] = table["flops"] / flops_per_second
    else:
        measured = _calibrate_plan(plan, num_devices)
        tuned = plan.pilot.tuned if plan.pilot and plan.found is None else ()
        batch_open = "batch_size" in tuned
        seconds, doubt = seconds_of(measured.table, plan.to_do, batch_open=batch_open)
        table.loc[to_do, "seconds"] = seconds
        table.loc[to_do, "memory_bytes"] = memory_of(measured.table, plan.to_do)
    total = measured.start_s + makespan(table.loc[to_do, "seconds"], num_devices)
    low, high = total / (1 + doubt), total * (1 + doubt)
    price_per_second = (price_per_hour or math.nan) * num_devices / 3600
    return Estimate(
        table=table,
        seconds=total,
        seconds_interval=(low, high),
        device_seconds=float(table["seconds"].sum()),
        memory_bytes=float(table["memory_bytes"].max()),
        memory_kind=measured.memory_kind,
        cost=price_per_second * total,
        cost_interval=(price_per_second * low, price_per_second * high),
        price_per_hour=price_per_hour,
        devices=num_devices,
        device=measured.device,
        size_param=plan.size_param,
        data_unit=plan.data_unit,
        rounds_seconds=_rounds_seconds(plan, table[to_do], num_devices),
    )


def _rounds_seconds(plan: Grid, timed: pd.DataFrame, devices: int) -> tuple[float, float] | None:
    if plan.goal is None or timed.empty:
        return None
    largest = timed[timed["compute_budget"] == timed["compute_budget"].max()]
    per_flop = float(largest["seconds"].sum() / largest["flops"].sum()) / devices
    low, high = flops_of_rounds(plan)
    return low * per_flop, high * per_flop


def _nothing_measured(device: str) -> Calibration:
    return Calibration(pd.DataFrame(), device, start_s=0.0, memory_kind="")


def _calibrate_plan(plan: Grid, num_devices: int) -> Calibration:
    """Measure with as many processes as will share this machine."""
    assert plan.origin is not None
    processes = min(num_devices, count_workers("auto"))
    task, source = plan.origin.task, plan.origin.rows.source
    return calibrate(task, source, places_of(plan.to_do), plan.recipe, processes)


def places_of(trials: Sequence[Trial]) -> list[Trial]:
    """The smallest, middle and largest size, each at the smallest and the largest batch."""
    by_cost = sorted(trials, key=lambda trial: trial.flops_per_token)
    first, last = by_cost[0], by_cost[-1]
    middle = math.sqrt(first.flops_per_token * last.flops_per_token)
    nearest = min(by_cost, key=lambda trial: abs(math.log(trial.flops_per_token / middle)))
    sizes = {trial.size: trial for trial in (first, nearest, last)}
    batches = [trial.batch_size for trial in trials]
    return [
        replace(trial, batch_size=batch)
        for trial in sizes.values()
        for batch in sorted({min(batches), max(batches)})
    ]


def makespan(seconds: Iterable[float], devices: int) -> float:
    """When the last trial ends, if each, longest first, starts on the first device that is free."""
    free_at = [0.0] * devices
    for trial_s in sorted(seconds, reverse=True):
        heapq.heapreplace(free_at, free_at[0] + trial_s)
    return float(max(free_at))


def seconds_of(
    measured: pd.DataFrame, trials: Sequence[Trial], *, batch_open: bool = False
) -> tuple[Array, float]:
    """Seconds of each trial, and half the width of their total's 95 % interval, relative.

    Args:
        measured: `Calibration.table`.
        trials: The trials.
        batch_open: Whether a pilot has still to find their batches, which are mostly smaller than
            those of the rule that they have until then: up to `SMALLER` times.
    """
    each, doubt = _seconds(measured, trials)
    if not batch_open:
        return each, doubt
    smaller, _ = _seconds(measured, [_with_smaller_batch(trial) for trial in trials])
    between = math.log(smaller.sum() / each.sum()) / 2
    return np.sqrt(each * smaller), math.hypot(doubt, between)


def _with_smaller_batch(trial: Trial) -> Trial:
    batch = max(1, trial.batch_size // SMALLER)
    return replace(trial, batch_size=batch, steps=trial.steps * trial.batch_size // batch)


def _seconds(measured: pd.DataFrame, trials: Sequence[Trial]) -> tuple[Array, float]:
    """The same for the batches that the trials have."""
    steps = np.array([trial.steps for trial in trials])
    by_place = measured.groupby(["flops_per_token", "batch_size"])
    start_s = measured["start_s"].median() + BOOKKEEPING_S
    means = by_place[["seconds_per_step", "held_out_s"]].mean()
    beside_s = interpolated(means["held_out_s"], trials, log=False) + start_s
    times = _step_time(measured)
    places = means.index.to_frame().to_numpy(float).prod(axis=1)
    work = np.array([trial.flops_per_token * trial.batch_size for trial in trials])
    shares = _shares_of_places(means.index, trials)

    def total(seconds_per_step: pd.Series) -> Array:
        off = shares @ np.log(seconds_per_step.to_numpy(float) / times.seconds(places))
        return np.asarray(steps * times.seconds(work) * np.exp(off) + beside_s)

    each = total(means["seconds_per_step"])
    # The law between the places is as uncertain as they leave it.
    off = np.log(means["seconds_per_step"].to_numpy(float) / times.drawn_seconds(places))
    drawn = times.drawn_seconds(work) * np.exp(off @ shares.T)
    between = NORMAL * float(np.log((steps * drawn + beside_s).sum(axis=1) / each.sum()).std())
    log_totals = []
    rounds = sorted(measured["round"].unique())
    for turn in rounds:
        # Places too slow to be visited in every round count with their mean.
        in_turn = measured[measured["round"] == turn]
        by_turn = in_turn.groupby(["flops_per_token", "batch_size"])["seconds_per_step"].mean()
        by_turn = by_turn.reindex(means.index).fillna(means["seconds_per_step"])
        log_totals.append(math.log(total(by_turn).sum()))
    spread = STUDENT_2 * float(np.std(log_totals, ddof=len(rounds) > 1)) / math.sqrt(len(rounds))
    return each, math.hypot(spread, between, MIN_DOUBT)


def _step_time(measured: pd.DataFrame) -> StepTime:
    """The time of a step by its FLOPs, over all visits."""
    work = measured["flops_per_token"] * measured["batch_size"]
    found = fit_step_time(work.to_numpy(float), measured["seconds_per_step"].to_numpy(float))
    assert found is not None
    return found


def _shares_of_places(places: pd.Index, trials: Sequence[Trial]) -> Array:
    """How much each place counts for each trial in log-log, shape (trials, places)."""
    units = np.exp(np.eye(len(places)))
    columns = [interpolated(pd.Series(unit, index=places), trials, log=True) for unit in units]
    return np.log(np.column_stack(columns))


def memory_of(measured: pd.DataFrame, trials: Sequence[Trial]) -> Array:
    """Bytes of each trial: the state grows with the parameters, the rest with size and batch."""
    by_place = measured.assign(per_param=measured["state_bytes"] / measured["num_params"]).groupby(
        ["flops_per_token", "batch_size"]
    )
    means = by_place[["per_param", "work_bytes"]].mean()
    num_params = np.array([trial.num_params for trial in trials])
    state = interpolated(means["per_param"], trials, log=False) * num_params
    return state + interpolated(means["work_bytes"], trials, log=False)


def interpolated(by_place: pd.Series, trials: Sequence[Trial], *, log: bool) -> Array:
    """A positive value of each trial, interpolated from its values at the measured places.

    Args:
        by_place: Positive values, indexed by FLOPs per token and batch size: a full grid.
        trials: The trials whose value is wanted.
        log: Interpolate in log-log rather than linearly.
    """
    grid = by_place.unstack()
    scale, unscale = (np.log, np.exp) if log else (np.asarray, np.asarray)
    costs, batches = scale(grid.index.to_numpy(float)), scale(grid.columns.to_numpy(float))
    rows = scale(grid.to_numpy(float))

    def at(trial: Trial) -> float:
        at_batch = [np.interp(scale(float(trial.batch_size)), batches, row) for row in rows]
        return float(np.interp(scale(trial.flops_per_token), costs, at_batch))

    return np.asarray(unscale([at(trial) for trial in trials]))


def _problems(
    plan: Grid,
    calibrated: object,
    flops_per_second: object,
    price_per_hour: object,
    devices: object,
) -> Iterator[str]:
    if flops_per_second is None and calibrated is not True:
        yield "calibrate: if it is False, pass flops_per_second=, the speed of the device"
    for name, value in (("flops_per_second", flops_per_second), ("price_per_hour", price_per_hour)):
        if value is not None and not is_positive(value):
            yield f"{name}: expected a positive number, got {value!r}"
    if not is_count_or_auto(devices):
        yield f"devices: expected a positive whole number or 'auto', got {devices!r}"
    if plan.origin is None and flops_per_second is None:
        yield (
            "calibrate: this plan holds no model and data to measure with; make it by plan_sweep, "
            "or pass flops_per_second="
        )
