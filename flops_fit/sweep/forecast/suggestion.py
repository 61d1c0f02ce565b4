"""`BudgetSuggestion`: budgets for a time or for money, and what their answer will be worth.

The device is timed on small sweeps that grow, each as large as its predecessor's speed allows,
until one takes the time that there is. The times are those of `estimate`, with pilot and check.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass

import pandas as pd

from flops_fit.display.number_text import duration, flops
from flops_fit.errors import FitError, InfeasiblePlanError
from flops_fit.laws.design.simulation import BEYOND, expected_intervals, usual_noise
from flops_fit.laws.model.arrays import Array
from flops_fit.records import TRIAL_COLUMNS, to_frame
from flops_fit.report import budget_text
from flops_fit.runtime.announce import announce_if_slow
from flops_fit.sweep.execution.executors import count_side_by_side, count_workers
from flops_fit.sweep.forecast.calibration import QUICK_ROUNDS, ROUNDS, Calibration, calibrate
from flops_fit.sweep.forecast.estimate import makespan, places_of, seconds_of
from flops_fit.sweep.forecast.ladders import LEAST_DECADES, Ladder, ladder_below
from flops_fit.sweep.plan.advice import smallest_budget, what_would_work
from flops_fit.sweep.plan.isoflop_row import IsoflopRows
from flops_fit.sweep.plan.planner import Opened
from flops_fit.sweep.plan.request import Spending

MOST_ROUNDS = 10  # of measuring ever larger sweeps
NEAR = 1.3  # a sweep whose time is so near to the one wanted is measured thoroughly
CLOSE = 1.1  # near enough then
_FAR, _LEAST_POWER = 10.0, 0.6
_STRIDE, _STRIDES = 1.3, 24  # between the smallest sweeps tried, and how many
_NO_TIME = "no time would be long enough with this model and dataset"
# All simulated sweeps have errors of one size, so that few of them show the width of an interval.
SWEEPS = 8


@dataclass(frozen=True, repr=False)
class BudgetSuggestion:
    """Budgets for a sweep that may take a time or an amount of money.

    Attributes:
        compute_budgets: The budgets in FLOPs, ascending, to two digits.
        spending: What the sweep may take, as "2 h".
        hours: Expected, with pilot and check, on all devices; the fit is not counted.
        hours_interval: (low, high), about 95 %.
        cost: Expected price; NaN if no price was given.
        cost_interval: The same for `hours_interval`.
        table: One row per budget: `compute_budget`, `trials`, `size_low` and `size_high`,
            `num_params_low` and `num_params_high`, `num_tokens_low` and `num_tokens_high` (units of
            D), `steps_low` and `steps_high`, and `hours` (of one device).
        num_trials: Trials of the grid.
        num_expected: Trials expected of pilot and check, beside the grid.
        worth: One row for the largest budget, for 10 and for 100 times it: `compute_budget`,
            `extrapolation`, and `factor`: N_opt will be known to within this factor, if losses
            scatter by `noise`. NaN where the sweep could carry no law.
        noise: Assumed standard deviation of ln L between runs.
        devices: Trials that run at a time.
        device: What was timed.
        data_unit: What D counts.
        size_param: Name of the size parameter.
        remarks: What limits the budgets.
    """

    compute_budgets: list[float]
    spending: str
    hours: float
    hours_interval: tuple[float, float]
    cost: float
    cost_interval: tuple[float, float]
    table: pd.DataFrame
    num_trials: int
    num_expected: int
    worth: pd.DataFrame
    noise: float
    devices: int
    device: str
    data_unit: str
    size_param: str
    remarks: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return "\n".join(budget_text.of_suggestion(self))

    def _repr_html_(self) -> str:
        return budget_text.suggestion_html(self)


def suggest(
    opened: Opened,
    spending: Spending,
    *,
    workers: int | str = 1,
    price_per_hour: float | None = None,
) -> BudgetSuggestion:
    """Choose budgets.

    Args:
        opened: The task, and the rows that can be planned for it.
        spending: What the sweep may take.
        workers: Trials that run side by side, as of `flops_fit.find_optimal`. What several gain
            on one GPU is not counted.
        price_per_hour: Of one device.

    Raises:
        InfeasiblePlanError: The data or the time do not suffice for a sweep over a decade.
        SweepError: Every measuring process died.
        Exception: Whatever the model or the loss raises.
    """
    devices = count_side_by_side(workers)
    hours = spending.hours_at(price_per_hour, devices)
    clock = _Clock(opened, devices)
    ladder, remarks = _largest_within(clock, 3600 * hours, spending)
    each, total, doubt = clock.seconds(ladder)
    expected = total / 3600
    interval = (expected / (1 + doubt), expected * (1 + doubt))
    price = (price_per_hour or math.nan) * devices
    noise = usual_noise(statistics.median(trial.num_params for trial in ladder.trials))
    return BudgetSuggestion(
        compute_budgets=list(ladder.budgets),
        spending=spending.text,
        hours=expected,
        hours_interval=interval,
        cost=price * expected,
        cost_interval=(price * interval[0], price * interval[1]),
        table=_table(ladder, each),
        num_trials=len(ladder.trials),
        num_expected=len(ladder.expected),
        worth=_worth(ladder, noise),
        noise=noise,
        devices=devices,
        device=clock.device,
        data_unit=opened.rows.source.unit,
        size_param=opened.task.size_param,
        remarks=(*remarks, *budget_text.remarks(ladder.span, ladder.least_steps)),
    )


class _Clock:
    """Times sweeps by the latest measurement."""

    def __init__(self, opened: Opened, devices: int) -> None:
        self.opened = opened
        self.devices = devices
        self._measured: Calibration | None = None

    @property
    def device(self) -> str:
        """What was timed."""
        return self._latest.device

    @property
    def _latest(self) -> Calibration:
        assert self._measured is not None
        return self._measured

    def measure(self, ladder: Ladder, *, quick: bool) -> None:
        """Time a few steps at the smallest and largest trials of a sweep.

        Args:
            ladder: The sweep.
            quick: Whether once is enough, in this process alone.
        """
        processes = 1 if quick else min(self.devices, count_workers("auto"))
        rounds = QUICK_ROUNDS if quick else ROUNDS
        task, rows = self.opened.task, self.opened.rows
        top = flops(ladder.budgets[-1])
        with announce_if_slow(f"Choosing budgets: timing this device, for budgets up to {top}"):
            self._measured = calibrate(
                task, rows.source, places_of(ladder.with_expected), rows.recipe, processes, rounds
            )

    def seconds(self, ladder: Ladder) -> tuple[Array, float, float]:
        """Seconds of each trial, until the last one ends, and the relative doubt of these."""
        batch_open = "batch_size" in self.opened.rows.tuned
        table = self._latest.table
        each, doubt = seconds_of(table, ladder.with_expected, batch_open=batch_open)
        return each, self._latest.start_s + makespan(each, self.devices), doubt

    def total(self, ladder: Ladder) -> float:
        """Seconds until the last trial of a sweep ends."""
        return self.seconds(ladder)[1]


def _largest_within(
    clock: _Clock, allowed: float, spending: Spending
) -> tuple[Ladder, tuple[str, ...]]:
    """The largest ladder that fits into so many seconds, and what limits it besides the time.

    Raises:
        InfeasiblePlanError: There is none.
    """
    ladder = _smallest(clock.opened.rows)
    clock.measure(ladder, quick=True)
    ladder = _nearer(clock, ladder, allowed, NEAR, measure=True)
    clock.measure(ladder, quick=False)
    ladder = _nearer(clock, ladder, allowed, CLOSE, measure=False)
    needed = clock.total(ladder)
    if needed > NEAR * allowed:
        raise InfeasiblePlanError(_too_short(ladder, needed, spending))
    if needed < allowed / NEAR:
        return ladder, (_end_of_data(clock.opened.rows, ladder),)
    return ladder, ()


def _nearer(
    clock: _Clock, ladder: Ladder, allowed: float, factor: float, *, measure: bool
) -> Ladder:
    """A ladder whose time is within a factor of the allowed one, or the nearest that there is.

    Args:
        clock: What times ladders.
        ladder: Where to start.
        allowed: Seconds.
        factor: How near is enough.
        measure: Whether to time the device again on each ladder.
    """
    power = 1.0  # of the largest budget, with which the time grows: less where steps cost alike
    for _ in range(MOST_ROUNDS):
        needed = clock.total(ladder)
        share = allowed / needed
        # Far away the power is not known: it nears 1, and a sweep that is too large takes long.
        far = share > _FAR
        if 1 / factor < share < factor:
            break
        scaled = _scaled(clock.opened.rows, ladder, share if far else share ** (1 / power))
        if scaled is None:
            break
        if measure:
            clock.measure(scaled, quick=True)
        grown = math.log(clock.total(scaled) / needed)
        grown /= math.log(scaled.budgets[-1] / ladder.budgets[-1])
        power = min(max(grown, _LEAST_POWER), 1.0)
        ladder = scaled
    return ladder


def _smallest(rows: IsoflopRows) -> Ladder:
    """The ladder with the smallest largest budget.

    Raises:
        InfeasiblePlanError: The data do not suffice for a decade.
    """
    with announce_if_slow("Choosing budgets: which of them the data allow"):
        low = smallest_budget(rows)
        if low is None:
            raise InfeasiblePlanError(
                what_would_work(rows, []), f"{_NO_TIME}: no budget can be planned:"
            )
        for power in range(_STRIDES):
            ladder = ladder_below(rows, low * 10**LEAST_DECADES * _STRIDE**power)
            if ladder is not None:
                return ladder
        raise InfeasiblePlanError(
            [
                *what_would_work(rows, [low, low * 10**LEAST_DECADES], "a decade can be planned"),
                "smaller batches (Recipe(batch_size=...)), more data or more passes over them "
                "(Recipe(max_epochs=...)) make room",
            ],
            f"{_NO_TIME}: no sweep over a decade can be planned, with 200 steps in every trial:",
        )


def _scaled(rows: IsoflopRows, ladder: Ladder, share: float) -> Ladder | None:
    """The ladder up to `share` times the largest budget, or as near as there is one.

    Returns:
        None if that would change nothing.
    """
    now = ladder.budgets[-1]
    top = share * now
    # At the end of the data there may be none: go half the way back, until it is not worth it.
    while max(top / now, now / top) > _STRIDE**0.5:
        scaled = ladder_below(rows, top)
        if scaled is not None:
            return None if scaled.budgets == ladder.budgets else scaled
        top = math.sqrt(top * now)
    return None


def _too_short(ladder: Ladder, needed: float, spending: Spending) -> str:
    return (
        f"compute_budgets: {spending.text} is too short: the smallest sweep over a decade whose "
        f"trials have {ladder.least_steps} steps or more, with budgets from "
        f"{flops(ladder.budgets[0])} to {flops(ladder.budgets[-1])} FLOPs, takes about "
        f"{duration(needed)} on this machine"
    )


def _end_of_data(rows: IsoflopRows, ladder: Ladder) -> str:
    examples = rows.source.num_examples or 0
    return (
        f"the data end the sweep, not the time: beyond about {flops(ladder.budgets[-1])} FLOPs the "
        f"smaller models of a budget need more than {rows.recipe.max_epochs:g} epochs of the "
        f"{examples:,} training examples"
    )


def _table(ladder: Ladder, seconds: Array) -> pd.DataFrame:
    """`BudgetSuggestion.table`."""
    of_grid = seconds[len(ladder.expected) :]
    rows = []
    for budget in ladder.budgets:
        row = [t for t in ladder.trials if t.compute_budget == budget]
        time = sum(
            s for t, s in zip(ladder.trials, of_grid, strict=True) if t.compute_budget == budget
        )
        rows.append(
            {
                "compute_budget": budget,
                "trials": len(row),
                "size_low": row[0].size,
                "size_high": row[-1].size,
                "num_params_low": row[0].num_params,
                "num_params_high": row[-1].num_params,
                "num_tokens_low": min(trial.num_tokens for trial in row),
                "num_tokens_high": max(trial.num_tokens for trial in row),
                "steps_low": min(trial.steps for trial in row),
                "steps_high": max(trial.steps for trial in row),
                "hours": float(time) / 3600,
            }
        )
    return pd.DataFrame(rows)


def _worth(ladder: Ladder, noise: float) -> pd.DataFrame:
    """`BudgetSuggestion.worth`."""
    trials = [trial for trial in ladder.trials if trial.lr_multiplier == 1]
    runs = to_frame(trials, TRIAL_COLUMNS)
    try:
        with announce_if_slow("Choosing budgets: simulating what the answer will be worth"):
            table = expected_intervals(runs, noise=noise, num_sweeps=SWEEPS).table
    except FitError:
        top = ladder.budgets[-1]
        table = pd.DataFrame(
            {
                "compute_budget": [top * k for k in BEYOND],
                "extrapolation": BEYOND,
                "factor": math.nan,
            }
        )
    return table[["compute_budget", "extrapolation", "factor"]]
