"""The trials that a sweep with a goal could train next, and those that it has begun."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from flops_fit.laws.design.candidates import REACH, SIZES_APART
from flops_fit.laws.model.recipe_law import FEW_STEPS
from flops_fit.records import Run, Trial
from flops_fit.sweep.plan.isoflop_row import IsoflopRows
from flops_fit.sweep.task.model_cost import ModelCost


def begun_trials(rows: IsoflopRows, runs: Iterable[Run], budgets: Sequence[float]) -> list[Trial]:
    """The trials at these budgets that runs have been begun of, by the budget and size.

    Args:
        rows: The rows of the sweep.
        runs: One run for each trial.
        budgets: Budgets in FLOPs.
    """
    found = []
    for run in runs:
        if run.role != "sweep" or run.lr_multiplier != 1 or run.compute_budget not in budgets:
            continue
        cost = None if run.size is None else rows.finder.cost(run.size)
        if cost is None or not math.isfinite(run.batch_size):
            continue
        again = rows.trial(
            run.compute_budget, cost, 0, batch=int(run.batch_size), rate=run.learning_rate
        )
        if again.trial_id == run.trial_id:
            found.append(replace(again, added=True))
    return sorted(found, key=lambda trial: (trial.compute_budget, trial.num_params))


def chosen_before(rows: IsoflopRows, points: Iterable[Mapping[str, Any]]) -> list[Trial]:
    """The trials of a round that was recorded, as far as they are trials of this sweep still.

    Args:
        rows: The rows of the sweep.
        points: `trial_id compute_budget size batch_size learning_rate` of each.
    """
    found = []
    for point in points:
        cost = rows.finder.cost(point["size"])
        if cost is not None:
            batch, rate = int(point["batch_size"]), float(point["learning_rate"])
            again = rows.trial(float(point["compute_budget"]), cost, 0, batch=batch, rate=rate)
            if again.trial_id == point["trial_id"]:
                found.append(replace(again, added=True))
    return found


def possible_trials(
    rows: IsoflopRows, begun: Sequence[Trial], optima: dict[float, float]
) -> list[Trial]:
    """What could be trained next: sizes around the expected optimum of each budget.

    All rows have sizes near the same values, so that few models need be built. A size that lies
    nearer than half their distance to one that has been begun is left out, as is one whose trial
    has too few steps or not enough data.

    Args:
        rows: The rows of the sweep.
        begun: The trials begun.
        optima: N at the expected optimum of each budget.
    """
    found = []
    for budget, optimum in optima.items():
        near = [trial.num_params for trial in begun if trial.compute_budget == budget]
        for index, cost in enumerate(_costs(rows, optimum)):
            if _is_near(cost.num_params, near, given=rows.finder.given is not None):
                continue
            trial = replace(rows.trial(budget, cost, index), added=True)
            if trial.steps >= FEW_STEPS and rows.is_feasible(trial):
                found.append(trial)
    return found


def _costs(rows: IsoflopRows, optimum: float) -> list[ModelCost]:
    """Sizes around an optimum: the caller's, or on the lattice."""
    finder = rows.finder
    if finder.given is not None:
        return [cost for cost in map(finder.cost, finder.ascending()) if cost is not None]
    middle = math.log10(optimum)
    first, last = math.ceil((middle - REACH) / SIZES_APART), (middle + REACH) / SIZES_APART
    targets = 10 ** (SIZES_APART * np.arange(first, last))
    costs = {cost.num_params: cost for cost in map(finder.nearest_cost, targets)}
    return [costs[num_params] for num_params in sorted(costs)]


def _is_near(num_params: float, others: Sequence[float], *, given: bool) -> bool:
    closest = min((abs(math.log10(num_params / other)) for other in others), default=math.inf)
    return closest < (1e-9 if given else SIZES_APART / 2)
