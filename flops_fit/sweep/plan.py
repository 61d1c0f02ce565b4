"""Budgets x sizes -> a `SweepPlan`: what will be trained, before anything is.

For each budget C an IsoFLOP row (Hoffmann et al. 2022, approach 2): sizes spaced evenly in log N
around the expected optimum, each with D = C / FLOPs per token, rounded to whole steps. The optimum
is expected where D/N would be 20 at 6 FLOPs a parameter and token: N = sqrt(C / 120). The row spans
three quarters of a decade to each side, since width and span narrow the answer more than points.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from flops_fit.errors import FlopsFitWarning, InfeasiblePlanError
from flops_fit.records import Size, Trial
from flops_fit.sweep.checks import FEWEST_SIZES, check_all
from flops_fit.sweep.flops import Cost, FlopsConvention
from flops_fit.sweep.grid import Skipped, SweepPlan
from flops_fit.sweep.recipe import Recipe
from flops_fit.sweep.sizes import SizeFinder
from flops_fit.sweep.source import Source
from flops_fit.sweep.task import (
    Task,
    digest,
    task_identity,
)

SIZES_PER_BUDGET = 7
HALF_WIDTH_DECADES = 0.75
TOKENS_PER_PARAM = 20.0  # Hoffmann et al. 2022
FEWEST_STEPS = 10  # below, a schedule has no shape: the point is passed over
FEW_STEPS = 200  # below, a check on the answer warns
FARTHEST = 24  # doublings or halvings over which a budget that works is looked for


@dataclass(frozen=True)
class Planned:
    """A plan with what was opened and measured on the way, for the stages that follow."""

    plan: SweepPlan
    source: Source
    finder: SizeFinder


def make_plan(
    task: Task,
    compute_budgets: Iterable[float] | None,
    *,
    sizes: Sequence[Size] | None = None,
    recipe: Recipe | None = None,
    flops: FlopsConvention = "measured",
    seed: int = 0,
    faults: Sequence[str] = (),
) -> Planned:
    """Check everything, then plan. See `flops_fit.plan_sweep` for the arguments.

    Raises:
        ArgumentError: Listing every fault of the arguments, the model, the data and the loss.
        InfeasiblePlanError: If no budget can be planned; says what would work.
    """
    recipe = Recipe() if recipe is None else recipe
    budgets, source, finder = check_all(task, compute_budgets, sizes, recipe, flops, seed, faults)
    draft = _Draft(task_identity(task, source), source, recipe, seed, finder)
    trials: list[Trial] = []
    skipped: list[Skipped] = []
    unplanned: list[str] = []
    for budget in budgets:
        row, passed = draft.row(budget)
        skipped += passed
        if len(row) >= FEWEST_SIZES:
            trials += row
        else:
            unplanned.append(_infeasible(draft, budget, row, passed))
    if not trials:
        raise InfeasiblePlanError(unplanned, "no budget can be planned:")
    if unplanned:
        warnings.warn("left out: " + "; ".join(unplanned), FlopsFitWarning, stacklevel=3)
    refused = [Skipped(math.nan, size, why) for size, why in finder.refused.items()]
    conventions = sorted({finder.costs[trial.size].convention for trial in trials})
    plan = SweepPlan(
        trials=tuple(trials),
        skipped=(*skipped, *refused),
        data_unit=source.unit,
        tokens_per_example=source.tokens_per_example,
        available=source.num_tokens,
        flops_convention=", ".join(conventions),
        recipe=recipe,
        model_name=task.model_name,
        size_param=task.size_param,
        setting=digest({**draft.identity, **recipe.setting(), "flops": conventions}),
    )
    return Planned(plan, source, finder)


def _grid(finder: SizeFinder, budget: float, source: Source, recipe: Recipe) -> list[Cost]:
    """Different sizes, evenly spaced in log N around the expected optimum of a budget.

    The row is cut short where the data would not last, and where fewer than `FEW_STEPS` steps would
    be left: so short a run measures its warm-up, not its size.
    """
    centre = math.sqrt(budget / (6 * TOKENS_PER_PARAM))
    low = max(centre / 10**HALF_WIDTH_DECADES, _fewest_params(finder, budget, source, recipe))
    high = centre * 10**HALF_WIDTH_DECADES
    high = max(low, min(high, _most_params(finder, high, budget, source, recipe)))
    wanted = np.geomspace(low, high, SIZES_PER_BUDGET)
    nearest = map(finder.nearest_cost, wanted)
    return list({cost.num_params: cost for cost in nearest}.values())


def _most_params(
    finder: SizeFinder, start: float, budget: float, source: Source, recipe: Recipe
) -> float:
    """The N, at most about `start`, above which a budget would be over in `FEW_STEPS` steps."""
    batch = _batch_size(budget, source, recipe) * source.tokens_per_example
    most = budget / (FEW_STEPS * batch)
    return _walk(finder, finder.nearest_cost(start), most, up=False).num_params


def _batch_size(budget: float, source: Source, recipe: Recipe) -> int:
    """Examples a step: the recipe's, else the user's loader's, else by the recipe's rule."""
    if recipe.batch_size == "auto" and source.batch_size is not None:
        return source.batch_size
    return recipe.examples_per_step(budget, source.unit, source.tokens_per_example)


def _fewest_params(finder: SizeFinder, budget: float, source: Source, recipe: Recipe) -> float:
    """The N below which a budget would need more data than there is."""
    smallest = finder.nearest_cost(1)
    if source.num_tokens is None:
        return smallest.num_params
    least = budget / (source.num_tokens * recipe.max_epochs)
    return _walk(finder, smallest, least, up=True).num_params


def _walk(finder: SizeFinder, cost: Cost, limit: float, *, up: bool) -> Cost:
    """From one size to the first, up or down, whose FLOPs per token reach a limit."""

    def short(cost: Cost) -> bool:
        return cost.flops_per_token < limit if up else cost.flops_per_token > limit

    while short(cost):
        ratio = limit / cost.flops_per_token
        ratio = max(1.05, ratio) if up else min(0.95, ratio)
        nearer = finder.nearest_cost(cost.num_params * ratio)
        if nearer == cost:
            break
        cost = nearer
    return cost


@dataclass(frozen=True)
class _Draft:
    """What the trials of one sweep share."""

    identity: dict[str, object]
    source: Source
    recipe: Recipe
    seed: int
    finder: SizeFinder

    def row(self, budget: float) -> tuple[list[Trial], list[Skipped]]:
        """The trials of one budget, and the sizes that cannot serve it."""
        trials: list[Trial] = []
        skipped: list[Skipped] = []
        for cost in self._costs(budget):
            trial = self.trial(budget, cost, len(trials))
            reason = self._unfit(trial)
            if reason:
                skipped.append(Skipped(budget, cost.size, reason))
            else:
                trials.append(trial)
        return trials, skipped

    def _costs(self, budget: float) -> list[Cost]:
        finder = self.finder
        if finder.given is None:
            return _grid(finder, budget, self.source, self.recipe)
        costs = map(finder.cost, finder.ascending())
        return [cost for cost in costs if cost is not None]

    def trial(self, budget: float, cost: Cost, index: int) -> Trial:
        """One grid point: D is the budget over FLOPs per token, in whole steps."""
        per_example = self.source.tokens_per_example
        batch = _batch_size(budget, self.source, self.recipe)
        steps = round(budget / (cost.flops_per_token * batch * per_example))
        tokens = steps * batch * per_example
        trial = Trial(
            trial_id="",
            compute_budget=budget,
            size=cost.size,
            size_index=index,
            num_params=cost.num_params,
            num_tokens=tokens,
            flops=tokens * cost.flops_per_token,
            steps=steps,
            batch_size=batch,
            learning_rate=math.nan,
            seed=self.seed,
        )
        trial = replace(trial, learning_rate=self.recipe.peak_learning_rate(trial))
        return replace(trial, trial_id=self._trial_id(trial, cost))

    def _trial_id(self, trial: Trial, cost: Cost) -> str:
        return digest(
            {
                **self.identity,
                "size": trial.size,
                "shapes": cost.shapes,
                "recipe": self.recipe.identity(),
                "steps": trial.steps,
                "batch_size": trial.batch_size,
                "learning_rate": trial.learning_rate,
                "seed": trial.seed,
            }
        )

    def _unfit(self, trial: Trial) -> str:
        limit, available = self.recipe.max_epochs, self.source.num_tokens
        if trial.steps < FEWEST_STEPS:
            return (
                f"{trial.compute_budget:.3g} FLOPs are {trial.steps} steps of {trial.batch_size} "
                f"examples, fewer than {FEWEST_STEPS}"
            )
        if available is not None and trial.num_tokens > limit * available:
            return (
                f"{trial.compute_budget:.3g} FLOPs need {trial.num_tokens:.3g} {self.source.unit}, "
                f"over {limit:g} epochs of {available:.3g}"
            )
        return ""


def _infeasible(draft: _Draft, budget: float, row: list[Trial], passed: list[Skipped]) -> str:
    """Why a budget has no row, and what would work."""
    reason = passed[0].reason if passed else f"only {len(row)} sizes lie in its range"
    text = f"budget {budget:.3g}: fewer than {FEWEST_SIZES} sizes fit ({reason})"
    if not passed or any("steps" in skip.reason for skip in passed):
        found = _feasible(draft, budget, 2.0)
        fewer = _feasible(draft, budget, 0.5) if found is None else None
        if fewer is not None:
            return f"{text}; use budgets up to about {fewer:.1g} FLOPs, or more data"
        budgets = "larger budgets" if found is None else f"budgets from about {found:.1g} FLOPs"
        return f"{text}; use {budgets}, or a smaller batch_size"
    found = _feasible(draft, budget, 0.5)
    budgets = "a smaller budget" if found is None else f"budgets up to about {found:.1g} FLOPs"
    return f"{text}; use more data, {budgets}, or Recipe(max_epochs=...)"


def _feasible(draft: _Draft, budget: float, ratio: float) -> float | None:
    """The first budget, up or down from one that has no row, that has one."""
    for power in range(1, FARTHEST):
        tried = float(f"{budget * ratio**power:.1g}")
        if len(draft.row(tried)[0]) >= FEWEST_SIZES:
            return tried
    return None
