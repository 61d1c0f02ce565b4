"""Budgets x sizes -> a `SweepPlan`: what will be trained, before anything is.

For each budget C an IsoFLOP row (Hoffmann et al. 2022, approach 2): sizes spaced evenly in log N
around the expected optimum, each with D = C / FLOPs per token, rounded to whole steps. The optimum
is expected where D/N would be 20 at 6 FLOPs a parameter and token: N = sqrt(C / 120). The row spans
three quarters of a decade to each side, since width and span narrow the answer more than points.
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from flops_fit.errors import ArgumentError, FlopsFitWarning, InfeasiblePlanError
from flops_fit.records import TRIAL_COLUMNS, Size, Trial, to_frame
from flops_fit.sweep.data import Source
from flops_fit.sweep.flops import Cost, FlopsConvention, cost_of, params_of
from flops_fit.sweep.recipe import Recipe
from flops_fit.sweep.sizes import SizeFinder
from flops_fit.sweep.task import (
    Task,
    check_data_arguments,
    check_loss,
    check_model_arguments,
    digest,
    raise_problems,
    task_identity,
)

SIZES_PER_BUDGET = 7
HALF_WIDTH_DECADES = 0.75
TOKENS_PER_PARAM = 20.0  # Hoffmann et al. 2022
FEWEST_STEPS = 10  # below, a schedule has no shape: the point is passed over
FEW_STEPS = 200  # below, a check on the answer warns
FEWEST_SIZES = 3  # a row with fewer has no minimum to find
FARTHEST = 24  # doublings or halvings over which a budget that works is looked for
MOST_TRIES = 64  # sizes tried until the model runs
TINY_PARAMS = 1_000_000  # a model this small is tried for real without a second thought


@dataclass(frozen=True)
class Skipped:
    """A grid point that was passed over, and why."""

    compute_budget: float
    size: Size
    reason: str


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep will train.

    Attributes:
        trials: The grid points, budget by budget, from the smallest size up.
        skipped: Points passed over, each with its reason.
        data_unit: What D counts: "tokens" or "examples".
        tokens_per_example: Units of D in one example.
        available: Units of D in the training data; None where it cannot be known.
        flops_convention: How FLOPs were counted.
        recipe: How each trial trains.
        model_name: Dotted name of the model class.
        size_param: Name of the size parameter.
        setting: Hash of what all trials share: model, data, loss, recipe and FLOPs convention.
            Runs of one setting may be fitted together.
    """

    trials: tuple[Trial, ...]
    skipped: tuple[Skipped, ...]
    data_unit: str
    tokens_per_example: int
    available: int | None
    flops_convention: str
    recipe: Recipe
    model_name: str
    size_param: str
    setting: str

    @property
    def total_flops(self) -> float:
        """FLOPs of all trials together."""
        return sum(trial.flops for trial in self.trials)

    @property
    def compute_budgets(self) -> list[float]:
        """The budgets planned, ascending."""
        return sorted({trial.compute_budget for trial in self.trials})

    def to_frame(self) -> pd.DataFrame:
        """A row per trial, with tokens per parameter and passes over the data beside its fields."""
        frame = to_frame(self.trials, TRIAL_COLUMNS)
        frame.insert(6, "tokens_per_param", frame["num_tokens"] / frame["num_params"])
        frame["epochs"] = frame["num_tokens"] / (self.available or math.nan)
        return frame

    def __repr__(self) -> str:
        head = (
            f"SweepPlan: {len(self.trials)} trials of {self.model_name}, "
            f"{self.total_flops:.3g} FLOPs ({self.flops_convention})"
        )
        columns = (
            f"{'budget':>9}  {'trials':>6}  {self.size_param + ' (N)':<28}  D in {self.data_unit}"
        )
        rows = [self._row(budget) for budget in self.compute_budgets]
        skipped = [f"passed over: {text}" for text in self._skipped_lines()]
        return "\n".join([head, columns, *rows, *skipped])

    def _row(self, budget: float) -> str:
        row = [trial for trial in self.trials if trial.compute_budget == budget]
        first, last = row[0], row[-1]
        sizes = f"{first.size} ({first.num_params:.3g}) to {last.size} ({last.num_params:.3g})"
        rate = (
            f"lr {_range(t.learning_rate for t in row)}, batch {_range(t.batch_size for t in row)}"
        )
        return (
            f"{budget:>9.3g}  {len(row):>6}  {sizes:<28}  {first.num_tokens:.3g} to "
            f"{last.num_tokens:.3g}; {rate}, steps {_range(t.steps for t in row)}"
        )

    def _skipped_lines(self) -> list[str]:
        counts = Counter(f"{self.size_param}={s.size}: {s.reason}" for s in self.skipped)
        lines = list(counts)
        return lines[:5] + ([f"… and {len(lines) - 5} more (.skipped)"] if len(lines) > 5 else [])


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
    budgets, source, finder = _check_all(task, compute_budgets, sizes, recipe, flops, seed, faults)
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


def _check_all(
    task: Task,
    compute_budgets: Iterable[float] | None,
    sizes: Sequence[Size] | None,
    recipe: object,
    flops: FlopsConvention,
    seed: object,
    faults: Sequence[str],
) -> tuple[list[float], Source, SizeFinder]:
    """All faults in one error; else the budgets, ascending, the data, and the sizes to start from.

    Model and data are each opened where their own arguments stand; the loss is tried where both do.
    """
    problems = list(faults)
    budgets = _check_budgets(compute_budgets, problems)
    wanted = None if sizes is None else _check_sizes(sizes, problems)
    if not isinstance(recipe, Recipe):
        problems.append(f"recipe: expected a Recipe, got {type(recipe).__name__}")
    if not callable(flops) and flops not in ("measured", "6ND"):
        problems.append(f"flops: expected 'measured', '6ND' or a function, got {flops!r}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        problems.append(f"seed: expected a whole number from 0 up, got {seed!r}")
    finder = SizeFinder(
        count=lambda size: params_of(task, size),
        measure=lambda size: cost_of(task, _known(source), size, flops),
        given=wanted or None,
    )
    source: Source | None = None
    model_faults = check_model_arguments(task) or _model_faults(finder)
    data_faults = check_data_arguments(task)
    if task.dataset is not None:
        try:
            source = task.open()
        except ArgumentError as error:
            data_faults += error.problems
    if source is not None and not model_faults and not data_faults:
        data_faults = _loss_faults(task, source, finder)
    problems = [*model_faults, *data_faults, *problems]
    raise_problems(problems, "find_optimal cannot start:" if len(problems) > 1 else "")
    return budgets, _known(source), finder


def _known(source: Source | None) -> Source:
    assert source is not None
    return source


def _check_sizes(sizes: Any, problems: list[str]) -> list[Size]:
    try:
        given = list(dict.fromkeys(getattr(sizes, "tolist", lambda: sizes)()))
    except TypeError:
        given = []
    if isinstance(sizes, str) or len(given) < FEWEST_SIZES:
        problems.append(f"sizes: expected at least {FEWEST_SIZES} different values, got {sizes!r}")
        return []
    return [getattr(size, "item", lambda size=size: size)() for size in given]


def _model_faults(finder: SizeFinder) -> list[str]:
    """Faults seen by building models on the meta device."""
    try:
        finder.check_growth()
    except ArgumentError as error:
        return error.problems
    return []


def _loss_faults(task: Task, source: Source, finder: SizeFinder) -> list[str]:
    """Faults of the loss on one real batch, at the smallest size at which the model runs."""
    fault = ""
    size = finder.smallest()
    enough = max(TINY_PARAMS, 4 * finder.counts[size])
    for _ in range(MOST_TRIES):
        if finder.counts[size] > enough:
            break
        try:
            return check_loss(task, source, size)
        except Exception as error:
            fault = fault or f"one batch at size {size!r} raised {type(error).__name__}: {error}"
            finder.refuse(size, error)
        try:
            size = finder.smallest()
        except ArgumentError:  # none is left
            break
    return [f"model or loss_fn: {fault}"]


def _check_budgets(compute_budgets: Iterable[float] | None, problems: list[str]) -> list[float]:
    try:
        given = [float(c) for c in (() if compute_budgets is None else compute_budgets)]
    except (TypeError, ValueError):
        problems.append(f"compute_budgets: expected numbers in FLOPs, got {compute_budgets!r}")
        return []
    if not given:
        problems.append("compute_budgets: missing; pass FLOPs, as in [1e16, 1e17, 1e18]")
    bad = [c for c in given if not (math.isfinite(c) and c > 0)]
    if bad:
        problems.append(f"compute_budgets: expected positive finite FLOPs, got {bad}")
    return sorted(set(given))


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
    per_token = budget / (FEW_STEPS * batch)
    cost = finder.nearest_cost(start)
    while cost.flops_per_token > per_token:
        ratio = min(0.95, per_token / cost.flops_per_token)
        smaller = finder.nearest_cost(cost.num_params * ratio)
        if smaller == cost:
            break
        cost = smaller
    return cost.num_params


def _batch_size(budget: float, source: Source, recipe: Recipe) -> int:
    """Examples a step: the recipe's, else the user's loader's, else by the recipe's rule."""
    if recipe.batch_size == "auto" and source.batch_size is not None:
        return source.batch_size
    return recipe.examples_per_step(budget, source.unit, source.tokens_per_example)


def _fewest_params(finder: SizeFinder, budget: float, source: Source, recipe: Recipe) -> float:
    """The N below which a budget would need more data than there is."""
    cost = finder.nearest_cost(1)
    if source.num_tokens is None:
        return cost.num_params
    per_token = budget / (source.num_tokens * recipe.max_epochs)
    while cost.flops_per_token < per_token:
        ratio = max(1.05, per_token / cost.flops_per_token)
        larger = finder.nearest_cost(cost.num_params * ratio)
        if larger == cost:
            break
        cost = larger
    return cost.num_params


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


def _range(values: Iterable[float]) -> str:
    ordered = sorted(set(values))
    texts = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in ordered]
    return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]}"
