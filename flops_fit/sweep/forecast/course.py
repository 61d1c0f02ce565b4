"""`CourseForecast`: what a sweep with a goal will take until its answer is precise enough."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

from flops_fit.display import html
from flops_fit.display.number_text import flops, percent, with_interval
from flops_fit.errors import ArgumentError
from flops_fit.laws.design.assumed_law import assumed_law
from flops_fit.laws.design.course import Course, simulate_course
from flops_fit.laws.design.goal import Goal
from flops_fit.laws.design.simulation import require_sound, usual_noise
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.records import TRIAL_COLUMNS, Trial, to_frame
from flops_fit.sweep.growth.rounds import further_row
from flops_fit.sweep.plan.grid import Grid

SWEEPS = 8  # simulated; each takes seconds


@dataclass(frozen=True, repr=False)
class CourseForecast:
    """The course of a sweep with a goal, from simulated sweeps.

    Attributes:
        goal: The goal.
        flops: FLOPs that the sweep will take, pilot and check included: the median.
        flops_interval: The least and the most of the simulated sweeps.
        num_trials: Trials of the sweep, without pilot and check: the median.
        num_rounds: Rounds: the median.
        reached: Share of the simulated sweeps in which the answer became precise enough.
        ends: Why the other simulated sweeps ended.
        noise: Assumed standard deviation of ln L between runs.
        law: The assumed law.
        num_sweeps: Number of simulated sweeps.
    """

    goal: Goal
    flops: float
    flops_interval: tuple[float, float]
    num_trials: int
    num_rounds: int
    reached: float
    ends: tuple[str, ...]
    noise: float
    law: ParametricLaw
    num_sweeps: int

    def __repr__(self) -> str:
        return "\n".join(self._lines)

    def _repr_html_(self) -> str:
        return html.block(self._lines)

    @property
    def _lines(self) -> list[str]:
        assert self.goal.max_flops is not None
        taken = with_interval(self.flops, self.flops_interval, flops)
        share = percent(self.flops / self.goal.max_flops)
        return [
            f"Course: {self.goal}",
            f"  {taken} FLOPs, {share} of what may be spent, by {self.num_trials} trials in "
            f"{self.num_rounds} rounds",
            f"  precise enough in {percent(self.reached)} of {self.num_sweeps} simulated sweeps "
            f"with noise {self.noise:g} in ln L, where the law holds",
            *(f"  else: {end}" for end in self.ends),
        ]


def forecast_course(
    plan: Grid, *, noise: float | None, law: ParametricLaw | None, seed: int
) -> CourseForecast:
    """Implements `SweepPlan.course`; see there.

    Raises:
        ArgumentError: The plan has no goal, or an argument is invalid.
    """
    goal = plan.goal
    if goal is None or goal.max_flops is None:
        raise ArgumentError(
            "this plan has no goal to foretell the course of: pass target= to plan_sweep; for the "
            "precision of a grid use .precision()"
        )
    trials = [trial for trial in plan.trials if trial.lr_multiplier == 1]
    if noise is None:
        noise = usual_noise(statistics.median(trial.num_params for trial in trials))
    require_sound(law, noise, SWEEPS)
    law = assumed_law(to_frame(trials, TRIAL_COLUMNS)) if law is None else law
    C, N = _places(trials)

    def further(begun: Collection[float], left: float) -> tuple[Array, Array]:
        rows = plan.origin.rows if plan.origin else None
        return _places(further_row(rows, goal.budgets, begun, left) if rows else ())

    courses = [
        simulate_course(law, goal, C, N, noise=noise, seed=1000 * seed + i, further_row=further)
        for i in range(SWEEPS)
    ]
    return _forecast(goal, courses, plan, noise, law)


def _places(trials: Iterable[Trial]) -> tuple[Array, Array]:
    """C and N of trials, each of shape (n,)."""
    places = [(trial.compute_budget, float(trial.num_params)) for trial in trials]
    C, N = np.array(places).reshape(-1, 2).T
    return C, N


def flops_of_rounds(plan: Grid) -> tuple[float, float]:
    """FLOPs of the trials that follow the first: the least and the most of simulated sweeps."""
    found = forecast_course(plan, noise=None, law=None, seed=0)
    first = sum(trial.flops for trial in plan.trials if trial.lr_multiplier == 1)
    first += _pilot_flops(plan)
    rates = len(plan.recipe.lr_multipliers)
    low, high = (rates * max(0.0, end - first) for end in found.flops_interval)
    return low, high


def _pilot_flops(plan: Grid) -> float:
    return 0.0 if plan.pilot is None else sum(trial.flops for trial in plan.pilot.expected)


def _forecast(
    goal: Goal, courses: list[Course], plan: Grid, noise: float, law: ParametricLaw
) -> CourseForecast:
    spent = [course.flops + _pilot_flops(plan) for course in courses]
    return CourseForecast(
        goal=goal,
        flops=statistics.median(spent),
        flops_interval=(min(spent), max(spent)),
        num_trials=round(statistics.median(course.reached[-1].num_runs for course in courses)),
        num_rounds=round(statistics.median(len(course.reached) for course in courses)),
        reached=statistics.mean(course.is_precise for course in courses),
        ends=tuple(dict.fromkeys(c.end.partition(";")[0] for c in courses if not c.is_precise)),
        noise=noise,
        law=law,
        num_sweeps=len(courses),
    )
