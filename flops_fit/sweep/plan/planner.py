"""Budgets x sizes -> a `Grid`: what will be trained, before anything is."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flops_fit.errors import InfeasiblePlanError
from flops_fit.records import Skipped, Trial
from flops_fit.sweep.data.source import Source
from flops_fit.sweep.plan.advice import on_one_side, what_would_work, why_not
from flops_fit.sweep.plan.grid import Grid, Origin
from flops_fit.sweep.plan.isoflop_row import Rows
from flops_fit.sweep.plan.request import PlanRequest
from flops_fit.sweep.plan.validation import check_all
from flops_fit.sweep.task.hashing import digest
from flops_fit.sweep.task.size_finder import SizeFinder
from flops_fit.sweep.task.task import Task, task_identity
from flops_fit.sweep.training.recipe import CHECKED_MULTIPLIERS
from flops_fit.warn import warn_user


@dataclass(frozen=True)
class Planned:
    """A plan with what was opened and measured on the way, for the stages that follow."""

    plan: Grid
    rows: Rows

    @property
    def source(self) -> Source:
        """The data."""
        return self.rows.source

    @property
    def finder(self) -> SizeFinder:
        """The sizes."""
        return self.rows.finder


def make_plan(task: Task, request: PlanRequest, faults: Sequence[str] = ()) -> Planned:
    """Check all arguments, then plan.

    Args:
        task: Model, data and loss.
        request: What to plan.
        faults: Errors found in other arguments, to be reported together with those found here.

    Raises:
        ArgumentError: Listing every fault of the arguments, the model, the data and the loss.
        InfeasiblePlanError: If no budget can be planned; says what would work.
    """
    budgets, source, finder = check_all(task, request, faults)
    recipe = request.recipe
    rows = Rows(task_identity(task, source), source, recipe, request.seed, finder)
    trials: list[Trial] = []
    skipped: list[Skipped] = []
    unplanned: list[str] = []
    for budget in budgets:
        row, passed = rows.row(budget)
        skipped += passed
        if rows.carries(row):
            trials += row
        else:
            unplanned.append(why_not(rows, budget, passed))
    if unplanned:
        unplanned += what_would_work(rows, budgets)
        if not trials:
            raise InfeasiblePlanError(unplanned, "no budget can be planned:")
        warn_user(_listed("left out", unplanned))
    if one_sided := on_one_side(rows, sorted({trial.compute_budget for trial in trials})):
        warn_user(_listed("sizes on one side", one_sided))
    refused = [Skipped(math.nan, size, why) for size, why in finder.refused.items()]
    conventions = sorted({finder.costs[trial.size].convention for trial in trials})
    plan = Grid(
        trials=tuple(_with_rates(rows, trials)),
        skipped=(*skipped, *refused),
        data_unit=source.unit,
        tokens_per_example=source.tokens_per_example,
        available=source.num_tokens,
        flops_convention=", ".join(conventions),
        recipe=recipe,
        model_name=task.model_name,
        size_param=task.size_param,
        setting=digest({**rows.identity, **recipe.setting(), "flops": conventions}),
        origin=Origin(task, rows),
    )
    return Planned(plan, rows)


def _listed(heading: str, lines: Sequence[str]) -> str:
    return "\n  - ".join([f"{heading}:", *lines])


def _with_rates(rows: Rows, trials: Sequence[Trial]) -> Iterator[Trial]:
    """Each trial at the learning rates that are tried at its place."""
    checked: set[str] = set()
    if rows.recipe.check_learning_rate:
        places = sorted(trials, key=lambda trial: (trial.num_params, trial.compute_budget))
        checked = {places[0].trial_id, places[-1].trial_id}
    for trial in trials:
        more = CHECKED_MULTIPLIERS if trial.trial_id in checked else ()
        yield from rows.at_rates(trial, {*map(float, rows.recipe.lr_multipliers), *more})
