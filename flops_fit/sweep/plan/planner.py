"""Budgets x sizes -> a `Grid`: the trials of a sweep, planned before anything trains."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flops_fit.errors import InfeasiblePlanError
from flops_fit.laws.design.goal import Goal
from flops_fit.laws.design.search import SIZES_PER_ROW
from flops_fit.laws.model.recipe_law import FEW_STEPS, TOO_FEW_STEPS
from flops_fit.laws.runs.exclusions import MOST_EPOCHS
from flops_fit.records import Skipped, Trial
from flops_fit.runtime.announce import announce_if_slow
from flops_fit.sweep.data.held_out import BLOCKS, Rule
from flops_fit.sweep.data.source import Source
from flops_fit.sweep.plan.advice import on_one_side, what_would_work, why_not
from flops_fit.sweep.plan.grid import ChosenBudgets, Grid, Origin
from flops_fit.sweep.plan.isoflop_row import IsoflopRows, plural
from flops_fit.sweep.plan.loss_probe import find_weighting
from flops_fit.sweep.plan.real_batches import batch_size_faults
from flops_fit.sweep.plan.request import PlanRequest, Spending
from flops_fit.sweep.plan.validation import check_all
from flops_fit.sweep.task.hashing import digest
from flops_fit.sweep.task.kept_costs import KeptCosts
from flops_fit.sweep.task.size_finder import SizeFinder
from flops_fit.sweep.task.task import Task, task_identity
from flops_fit.sweep.task.weighting import Weighting
from flops_fit.sweep.training.recipe import Recipe
from flops_fit.validate import raise_problems
from flops_fit.warn import warn_user


@dataclass(frozen=True)
class Planned:
    """A plan, and what later stages need to train and extend it.

    Attributes:
        plan: The plan.
        rows: The rows it was made from.
        kept: The file of what the sizes cost; None if there is none.
    """

    plan: Grid
    rows: IsoflopRows
    kept: KeptCosts | None = None

    def keep_costs(self) -> None:
        """Write down what was counted since, so that the next plan need not count it."""
        if self.kept is not None:
            self.kept.keep(self.finder)

    def setting_with(self, recipe: Recipe) -> str:
        """The hash of what all trials share, if they had another recipe."""
        costs = self.finder.costs
        conventions = sorted({costs[trial.size].convention for trial in self.plan.trials})
        return _setting(self.rows, recipe, conventions)

    @property
    def source(self) -> Source:
        """The data, opened."""
        return self.rows.source

    @property
    def weighting(self) -> Weighting:
        """What a batch's loss weighs."""
        return self.plan.origin.task.weighting if self.plan.origin else Weighting()

    @property
    def held_out_rule(self) -> Rule:
        """How a share of the data is set aside, if it is."""
        return self.plan.origin.task.held_out_rule if self.plan.origin else BLOCKS

    @property
    def finder(self) -> SizeFinder:
        """The sizes at which the model can be built."""
        return self.rows.finder


@dataclass(frozen=True)
class Opened:
    """A task whose arguments have been checked, and the rows that can be planned for it.

    Attributes:
        task: Model, data and loss, with what a batch's loss weighs.
        rows: The rows of its sweep.
        asked: The budgets, ascending, or what they are to be chosen from.
        kept: The file of what models cost; None if there is none.
    """

    task: Task
    rows: IsoflopRows
    asked: list[float] | Spending
    kept: KeptCosts | None = None


def make_plan(
    task: Task,
    request: PlanRequest,
    faults: Sequence[str] = (),
    folder: Path | None = None,
    choose: Callable[[Opened, Spending], ChosenBudgets] | None = None,
) -> Planned:
    """Check all arguments, then plan.

    Args:
        task: Model, data and loss.
        request: What to plan.
        faults: Errors found in other arguments, reported together with those found here.
        folder: Where what models cost is kept; None if it is not.
        choose: Chooses the budgets where a time or money is given instead.

    Raises:
        ArgumentError: Lists every error in the arguments, the model, the data and the loss.
        InfeasiblePlanError: No budget can be planned; says what would work.
    """
    opened = open_rows(task, request, faults, folder)
    if not isinstance(opened.asked, Spending):
        return _plan_budgets(opened, opened.asked, request.goal)
    assert choose is not None
    chosen = choose(opened, opened.asked)
    planned = _plan_budgets(opened, chosen.budgets, request.goal)
    return replace(planned, plan=replace(planned.plan, chosen=chosen))


def open_rows(
    task: Task, request: PlanRequest, faults: Sequence[str] = (), folder: Path | None = None
) -> Opened:
    """Check all arguments, and open the data.

    Args:
        task: Model, data and loss.
        request: What to plan.
        faults: Errors found in other arguments, reported together with those found here.
        folder: Where what models cost is kept; None if it is not.

    Raises:
        ArgumentError: Lists every error in the arguments, the model, the data and the loss.
    """
    with announce_if_slow("Planning: opening the data, trying the model and loss on one batch"):
        checked = check_all(task, request, faults, folder)
    source, finder = checked.source, checked.finder
    task = replace(task, weighting=find_weighting(task, source, finder.smallest()))
    rows = IsoflopRows(
        task_identity(task, source),
        source,
        request.recipe,
        request.seed,
        finder,
        twins=request.twins,
    )
    return Opened(task, rows, checked.asked, checked.kept)


def _plan_budgets(opened: Opened, budgets: Sequence[float], goal: Goal | None = None) -> Planned:
    """The plan of these budgets; with a goal, that of what the sweep begins with.

    Raises:
        ArgumentError: The model fails on batches as they will be trained.
        InfeasiblePlanError: No budget can be planned; says what would work.
    """
    task, rows = opened.task, opened.rows
    source, finder, recipe = rows.source, rows.finder, rows.recipe
    num_sizes = None
    if goal is not None:
        # Budgets that were chosen for a time are not known when the arguments are checked.
        raise_problems([*goal.faults_with(budgets), *_too_few_sizes(rows)])
        goal = goal.between(budgets)
        budgets, num_sizes = goal.first_budgets, SIZES_PER_ROW
    with announce_if_slow(lambda: f"Planning: FLOPs of {len(finder.costs)} sizes counted so far"):
        trials, skipped = _plan_rows(rows, budgets, num_sizes)
    with announce_if_slow("Planning: trying the model on batches as they will be trained"):
        batch_sizes = sorted({trial.batch_size for trial in trials})
        smallest = finder.costs[min(trials, key=lambda trial: trial.num_params).size]
        raise_problems(batch_size_faults(task, source, recipe, batch_sizes, smallest))
    # Sizes that the model refused are refused at every budget.
    refused = [Skipped(math.nan, size, reason) for size, reason in finder.refused.items()]
    for note in sorted({note for cost in finder.costs.values() for note in cost.notes}):
        warn_user(note)
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
        setting=_setting(rows, recipe, conventions),
        rules=rows.rules,
        data_notes=(*source.notes, *_pairs_in_words(rows, trials)),
        goal=goal,
        origin=Origin(task, rows),
    )
    return Planned(plan, rows, opened.kept)


def _too_few_sizes(rows: IsoflopRows) -> list[str]:
    """An error if the caller gave too few sizes for the rows of a sweep with a goal."""
    given = rows.finder.given
    if given is None or len(given) >= SIZES_PER_ROW:
        return []
    return [f"sizes: with a target, expected at least {SIZES_PER_ROW}, got {len(given)}"]


def _pairs_in_words(rows: IsoflopRows, trials: Sequence[Trial]) -> list[str]:
    """A line on the trials that share their randomness with those of another sweep."""
    if rows.twins is None:
        return []
    paired = sum(bool(trial.at_own_rate) for trial in trials)
    return [
        f"{paired} of {plural(len(trials), 'trial')} begin from the state, and see the data in the "
        f"order, of a trial of {rows.twins.name!r}"
    ]


def _setting(rows: IsoflopRows, recipe: Recipe, conventions: Sequence[str]) -> str:
    """Hash of what all trials share. Its content is a stored format."""
    paired = {} if rows.twins is None else {"paired_with": rows.twins.setting}
    return digest({**rows.identity, **recipe.setting(), **paired, "flops": conventions})


def _plan_rows(
    rows: IsoflopRows, budgets: Sequence[float], num_sizes: int | None = None
) -> tuple[list[Trial], list[Skipped]]:
    """The trials of all budgets that can be planned, and the points skipped.

    Of each row so many sizes are planned, or all.

    Warns of budgets left out, and of rows that do not surround the expected optimum.

    Raises:
        InfeasiblePlanError: No budget can be planned.
    """
    trials: list[Trial] = []
    skipped: list[Skipped] = []
    problems: list[str] = []
    for budget in budgets:
        row, skipped_of_row = rows.row(budget)
        skipped += skipped_of_row
        if rows.can_show_minimum(row):
            trials += row if num_sizes is None else first_row(row, num_sizes)
        else:
            problems.append(why_not(rows, budget, skipped_of_row))
    if problems:
        problems += what_would_work(rows, budgets)
        if not trials:
            raise InfeasiblePlanError(problems, "no budget can be planned:")
        _warn("budgets left out:", problems)
    one_sided = on_one_side(rows, sorted({trial.compute_budget for trial in trials}))
    if one_sided:
        _warn("rows on one side of the expected optimum:", one_sided)
    for message in _short_trials(rows, trials):
        warn_user(message)
    return trials, skipped


def first_row(row: Sequence[Trial], num_sizes: int) -> list[Trial]:
    """So many trials of a row, evenly spread, ends included."""
    last = len(row) - 1
    places = {round(i * last / (num_sizes - 1)) for i in range(num_sizes)}
    return [row[i] for i in sorted(places)]


def _short_trials(rows: IsoflopRows, trials: Sequence[Trial]) -> list[str]:
    """A message if trials have fewer than `FEW_STEPS` steps, with what would give them more."""
    short = [trial for trial in trials if trial.steps < TOO_FEW_STEPS]
    if not short:
        return []
    message = (
        f"{len(short)} of {plural(len(trials), 'trial')} have fewer than {FEW_STEPS} steps, the "
        f"shortest {min(trial.steps for trial in short)}: so short a run depends on its warm-up "
        "more than on its size"
    )
    # The fewest examples that a trial sees: the largest model's at the smallest budget.
    tokens = min(t.compute_budget for t in trials) / max(t.flops_per_token for t in trials)
    fewest = max(1, int(tokens / rows.source.tokens_per_example))
    batch = max(1, fewest // FEW_STEPS)
    remedies = [f"Recipe(batch_size={batch})"] if batch < max(t.batch_size for t in short) else []
    factor = FEW_STEPS * batch / fewest
    if factor > 1:
        remedies.append(f"budgets {math.ceil(factor)} times as large")
        most = factor * max(trial.num_tokens for trial in trials)
        epochs = math.ceil(most / (rows.source.num_tokens or math.inf))
        if epochs > MOST_EPOCHS:
            remedies.append("more data")
        elif epochs > rows.recipe.max_epochs:
            remedies.append(f"Recipe(max_epochs={epochs})")
    return [f"{message}; all have more with {' and '.join(remedies)}"]


def _warn(heading: str, lines: Sequence[str]) -> None:
    warn_user("\n  - ".join([heading, *lines]))


def _with_rates(rows: IsoflopRows, trials: Sequence[Trial]) -> Iterator[Trial]:
    """Each trial at the learning rates to be tried with it."""
    for trial in trials:
        yield from rows.at_rates(trial, rows.recipe.lr_multipliers)
