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

import numpy as np
import pandas as pd

from flops_fit.errors import ArgumentError, FlopsFitWarning, InfeasiblePlanError
from flops_fit.records import TRIAL_COLUMNS, Size, Trial, to_frame
from flops_fit.sweep.data import Source
from flops_fit.sweep.flops import Cost, FlopsConvention, cost_of, count_params
from flops_fit.sweep.recipe import Recipe
from flops_fit.sweep.sizes import SizeFinder, check_growth
from flops_fit.sweep.task import (
    Task,
    check_arguments,
    check_loss,
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
) -> Planned:
    """Check everything, then plan. See `flops_fit.plan_sweep` for the arguments.

    Raises:
        ArgumentError: Listing every fault of the arguments, the model, the data and the loss.
        InfeasiblePlanError: If no budget can be planned; says what would work.
    """
    recipe = recipe or Recipe()
    budgets, source = _check_all(task, compute_budgets, sizes, recipe, flops, seed)
    finder = SizeFinder(
        count=lambda size: count_params(task, size),
        measure=lambda size: cost_of(task, source, size, flops),
    )
    explicit = None if sizes is None else _explicit_costs(finder, sizes)
    smallest = explicit[0] if explicit else finder.cost(finder.smallest())
    raise_problems(check_loss(task, source, smallest.size))
    draft = _Draft(task_identity(task, source), source, recipe, seed)
    trials: list[Trial] = []
    skipped: list[Skipped] = []
    faults: list[str] = []
    for budget in budgets:
        row, passed = draft.row(budget, explicit or _grid(finder, budget, source, recipe))
        skipped += passed
        if len(row) >= FEWEST_SIZES:
            trials += row
        else:
            faults.append(_infeasible(budget, row, passed, smallest, source, recipe))
    if not trials:
        raise InfeasiblePlanError(faults, "no budget can be planned:")
    if faults:
        warnings.warn("left out: " + "; ".join(faults), FlopsFitWarning, stacklevel=3)
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
    flops: object,
    seed: object,
) -> tuple[list[float], Source]:
    """All faults of arguments and data in one error; the budgets, ascending, and the data."""
    problems = check_arguments(task)
    budgets = _check_budgets(compute_budgets, problems)
    if sizes is not None and (isinstance(sizes, str) or len(set(sizes)) < FEWEST_SIZES):
        problems.append(f"sizes: expected at least {FEWEST_SIZES} different values, got {sizes!r}")
    if not isinstance(recipe, Recipe):
        problems.append(f"recipe: expected a Recipe, got {type(recipe).__name__}")
    if flops not in ("measured", "6ND") and not callable(flops):
        problems.append(f"flops: expected 'measured', '6ND' or a function, got {flops!r}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        problems.append(f"seed: expected a whole number from 0 up, got {seed!r}")
    source = None
    if task.dataset is not None:
        try:
            source = task.open()
        except ArgumentError as error:
            problems += error.problems
    raise_problems(problems, "find_optimal cannot start:" if len(problems) > 1 else "")
    assert source is not None
    return budgets, source


def _check_budgets(compute_budgets: Iterable[float] | None, problems: list[str]) -> list[float]:
    try:
        given = [float(c) for c in compute_budgets or ()]
    except (TypeError, ValueError):
        problems.append(f"compute_budgets: expected numbers in FLOPs, got {compute_budgets!r}")
        return []
    if not given:
        problems.append("compute_budgets: missing; pass FLOPs, as in [1e16, 1e17, 1e18]")
    bad = [c for c in given if not (math.isfinite(c) and c > 0)]
    if bad:
        problems.append(f"compute_budgets: expected positive finite FLOPs, got {bad}")
    return sorted(set(given))


def _explicit_costs(finder: SizeFinder, sizes: Sequence[Size]) -> list[Cost]:
    counts = {size: n for size in dict.fromkeys(sizes) if (n := finder.num_params(size))}
    if not counts:
        reasons = [f"{size!r}: {reason}" for size, reason in finder.refused.items()]
        raise ArgumentError(reasons, "model_cls: it refused every one of the sizes:")
    if all(isinstance(size, int | float) for size in counts):
        check_growth(counts)
    return [finder.cost(size) for size in sorted(counts, key=lambda size: counts[size])]


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
    return [finder.cost(size) for size in dict.fromkeys(map(finder.nearest, wanted))]


def _most_params(
    finder: SizeFinder, start: float, budget: float, source: Source, recipe: Recipe
) -> float:
    """The N, at most about `start`, above which a budget would be over in `FEW_STEPS` steps."""
    batch = _batch_size(budget, source, recipe) * source.tokens_per_example
    per_token = budget / (FEW_STEPS * batch)
    cost = finder.cost(finder.nearest(start))
    while cost.flops_per_token > per_token:
        smaller = finder.nearest(cost.num_params * min(0.95, per_token / cost.flops_per_token))
        if smaller == cost.size:
            break
        cost = finder.cost(smaller)
    return cost.num_params


def _batch_size(budget: float, source: Source, recipe: Recipe) -> int:
    """Examples a step: the recipe's, else the user's loader's, else by the recipe's rule."""
    if recipe.batch_size == "auto" and source.batch_size is not None:
        return source.batch_size
    return recipe.examples_per_step(budget, source.unit, source.tokens_per_example)


def _fewest_params(finder: SizeFinder, budget: float, source: Source, recipe: Recipe) -> float:
    """The N below which a budget would need more data than there is."""
    cost = finder.cost(finder.smallest())
    if source.num_tokens is None:
        return cost.num_params
    per_token = budget / (source.num_tokens * recipe.max_epochs)
    while cost.flops_per_token < per_token:
        larger = finder.nearest(cost.num_params * max(1.05, per_token / cost.flops_per_token))
        if larger == cost.size:
            break
        cost = finder.cost(larger)
    return cost.num_params


@dataclass(frozen=True)
class _Draft:
    """What the trials of one sweep share."""

    identity: dict[str, object]
    source: Source
    recipe: Recipe
    seed: int

    def row(self, budget: float, costs: list[Cost]) -> tuple[list[Trial], list[Skipped]]:
        """The trials of one budget, and the sizes that cannot serve it."""
        trials: list[Trial] = []
        skipped: list[Skipped] = []
        for cost in costs:
            trial = self.trial(budget, cost, len(trials))
            reason = self._unfit(trial)
            if reason:
                skipped.append(Skipped(budget, cost.size, reason))
            else:
                trials.append(trial)
        return trials, skipped

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


def _infeasible(
    budget: float,
    row: list[Trial],
    passed: list[Skipped],
    smallest: Cost,
    source: Source,
    recipe: Recipe,
) -> str:
    """Why a budget has no row, and what would work."""
    reason = passed[0].reason if passed else f"only {len(row)} sizes lie in its range"
    text = f"budget {budget:.3g}: fewer than {FEWEST_SIZES} sizes fit ({reason})"
    if any("steps" in skip.reason for skip in passed) or not passed:
        batch = _batch_size(budget, source, recipe)
        needed = smallest.flops_per_token * batch * source.tokens_per_example * FEW_STEPS
        return f"{text}; use budgets from about {2 * needed:.1g} FLOPs, or a smaller batch_size"
    return f"{text}; use more data, a smaller budget, or Recipe(max_epochs=...)"


def _range(values: Iterable[float]) -> str:
    ordered = sorted(set(values))
    texts = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in ordered]
    return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]}"
