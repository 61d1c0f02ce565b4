"""All arguments of a plan, checked before any compute is spent; all errors in one exception."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flops_fit.errors import ArgumentError, FlopsFitWarning
from flops_fit.records import Size
from flops_fit.runtime.rng import seeded
from flops_fit.sweep.data.source import Source
from flops_fit.sweep.plan.dry_run import recipe_faults, step_faults, try_batches
from flops_fit.sweep.plan.isoflop_row import MIN_GIVEN_SIZES
from flops_fit.sweep.plan.real_batches import extreme_faults
from flops_fit.sweep.plan.request import PlanRequest, Spending
from flops_fit.sweep.task.count_curve import CountCurve
from flops_fit.sweep.task.kept_costs import KeptCosts
from flops_fit.sweep.task.model_cost import build_empty, cost_of, params_of
from flops_fit.sweep.task.signatures import check_data_arguments, check_model_arguments, loss_faults
from flops_fit.sweep.task.size_finder import SizeFinder
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.recipe import Recipe
from flops_fit.validate import is_positive, is_whole_number, raise_problems


@dataclass(frozen=True)
class Checked:
    """What a plan is made of, without a fault.

    Attributes:
        asked: The budgets in FLOPs, ascending, or what they are to be chosen from.
        source: The data, opened.
        finder: The sizes to plan with.
        kept: The file of their costs; None if there is none.
    """

    asked: list[float] | Spending
    source: Source
    finder: SizeFinder
    kept: KeptCosts | None


def check_all(
    task: Task, request: PlanRequest, faults: Sequence[str], folder: Path | None = None
) -> Checked:
    """Check the task and the request.

    An error in one argument does not hide those in others: the data are opened although the model
    cannot be built, the model is built although the data cannot be read, and the loss is tried if
    there are both.

    Args:
        task: Model, data and loss.
        request: What to plan.
        faults: Errors found in other arguments, reported together with those found here.
        folder: Where what models cost is kept; None if it is not.

    Raises:
        ArgumentError: Lists every error found.
    """
    problems = list(faults)
    budgets = _check_budgets(request, problems)
    sizes = None if request.sizes is None else _check_sizes(request.sizes, problems)
    problems += _request_faults(request)
    buildable = _without_clash(task)
    source, data_faults = _open(task)
    curve = CountCurve()
    finder = SizeFinder(
        count=lambda size: params_of(buildable, size),
        measure=lambda size: cost_of(buildable, _known(source), size, request.flops, curve),
        given=sizes or None,
    )
    model_faults = check_model_arguments(task)
    kept = None
    # The finder is lazy: nothing has been built so far.
    if not check_model_arguments(buildable):
        model_faults += _growth_faults(finder)
        trial_finder = _counting_tensors(buildable, finder) if model_faults else finder
        data_faults += _dry_run_faults(buildable, source, trial_finder, request.recipe)
        if source is not None and not data_faults and not loss_faults(task):
            data_faults += _extreme_faults(buildable, source, trial_finder)
        if source is not None and not model_faults and not data_faults:
            kept = _recalled(folder, buildable, source, request, finder)
            data_faults += _size_faults(finder)
    if request.twins is not None and not isinstance(budgets, Spending):
        fingerprint = None if source is None else source.fingerprint
        problems += request.twins.faults(budgets, fingerprint)
    problems = [*model_faults, *data_faults, *problems]
    raise_problems(problems, "flops-fit cannot start:" if len(problems) > 1 else "")
    return Checked(budgets, _known(source), finder, kept)


def _recalled(
    folder: Path | None, task: Task, source: Source, request: PlanRequest, finder: SizeFinder
) -> KeptCosts | None:
    """The file of the costs, which the finder then has; None if nothing slow is counted."""
    if folder is None or request.flops != "measured":
        return None
    kept = KeptCosts.of(folder, task, source)
    kept.recall(finder)
    return kept


def _request_faults(request: PlanRequest) -> list[str]:
    """Errors in the recipe, the FLOPs convention and the seed."""
    problems = []
    recipe: object = request.recipe
    seed: object = request.seed
    if not isinstance(recipe, Recipe):
        problems.append(f"recipe: expected a Recipe, got {type(recipe).__name__}")
    if not callable(request.flops) and request.flops not in ("measured", "6ND"):
        problems.append(f"flops: expected 'measured', '6ND' or a function, got {request.flops!r}")
    if not (isinstance(seed, int) and is_whole_number(seed) and seed >= 0):
        problems.append(f"seed: expected a whole number from 0 up, got {seed!r}")
    return problems


def _without_clash(task: Task) -> Task:
    """The task with the size parameter removed from its kwargs, so that other errors show."""
    if not isinstance(task.model_kwargs, Mapping) or task.size_param not in task.model_kwargs:
        return task
    others = {key: task.model_kwargs[key] for key in task.model_kwargs if key != task.size_param}
    return replace(task, model_kwargs=others)


def _open(task: Task) -> tuple[Source | None, list[str]]:
    """The data, if they can be opened, and errors in data and loss that need no model."""
    faults = check_data_arguments(task)
    if task.dataset is None:
        return None, faults
    try:
        return task.open(), faults
    except ArgumentError as error:
        faults += error.problems
    # The held-out data may be the only ones at fault: the training data suffice for a dry run.
    with contextlib.suppress(ArgumentError), warnings.catch_warnings():
        warnings.simplefilter("ignore", FlopsFitWarning)
        return replace(task, eval_dataset=None).open(), faults
    return None, faults


def _counting_tensors(task: Task, finder: SizeFinder) -> SizeFinder:
    """A finder that counts parameters itself, for a dry run of a model without `num_params()`."""
    return SizeFinder(
        count=lambda size: sum(p.numel() for p in build_empty(task, size).parameters()),
        measure=finder.measure,
        given=finder.given,
    )


def _dry_run_faults(
    task: Task, source: Source | None, finder: SizeFinder, recipe: object
) -> list[str]:
    """Errors that show once a model is built: in loss, held-out data and recipe functions."""
    faults: list[str] = []
    # If no size builds, the finder raises; that error is reported already.
    with contextlib.suppress(ArgumentError):
        smallest = finder.smallest()
        if isinstance(recipe, Recipe):
            with seeded(0):
                faults += recipe_faults(recipe, task.build_quietly(smallest))
        if source is not None:
            faults += try_batches(task, source, finder, with_loss=not loss_faults(task))
        if source is not None and isinstance(recipe, Recipe) and not (faults or loss_faults(task)):
            faults += step_faults(task, source, recipe, finder.smallest())
    return faults


def _extreme_faults(task: Task, source: Source, finder: SizeFinder) -> list[str]:
    """Errors of examples far from the first, at the smallest size."""
    with contextlib.suppress(ArgumentError):
        size = finder.smallest()
        return extreme_faults(task, source, size, 6.0 * finder.counts[size])
    return []


def _known(source: Source | None) -> Source:
    assert source is not None
    return source


def _check_sizes(sizes: Any, problems: list[str]) -> list[Size]:
    """The different sizes as Python scalars; empty if there are errors, added to `problems`."""
    try:
        # Arrays and tensors have `tolist`.
        given = list(getattr(sizes, "tolist", lambda: sizes)())
    except TypeError:
        given = []
    try:
        given = list(dict.fromkeys(given))  # drops repeated sizes, in order
    except TypeError:
        problems.append(
            f"sizes: expected numbers or names, got {given}; give each size a name, and pass a "
            "function of the name that builds the model"
        )
        return []
    if isinstance(sizes, str) or len(given) < MIN_GIVEN_SIZES:
        problems.append(
            f"sizes: expected at least {MIN_GIVEN_SIZES} different values, got {sizes!r}"
        )
        return []
    return [getattr(size, "item", lambda size=size: size)() for size in given]


def _growth_faults(finder: SizeFinder) -> list[str]:
    """Errors in the model's sizes, seen by building models on the meta device."""
    try:
        finder.check_growth()
    except ArgumentError as error:
        return error.problems
    return []


def _size_faults(finder: SizeFinder) -> list[str]:
    """An error if the model runs at too few of the given sizes."""
    given = finder.given or ()
    count = sum(finder.cost(size) is not None for size in given)
    if not given or count >= MIN_GIVEN_SIZES:
        return []
    reasons = "; ".join(f"{size!r}: {reason}" for size, reason in finder.refused.items())
    return [
        f"sizes: the model works at {count} of the {len(given)} given, {MIN_GIVEN_SIZES} are "
        f"needed ({reasons})"
    ]


def _check_budgets(request: PlanRequest, problems: list[str]) -> list[float] | Spending:
    """The different budgets, ascending, or what may be spent; errors are added to `problems`."""
    compute_budgets, price = request.compute_budgets, request.price_per_hour
    if price is not None and not is_positive(price):
        problems.append(f"price_per_hour: expected a positive number, got {price!r}")
    if request.goal is not None:
        problems += request.goal.faults()
    if isinstance(compute_budgets, str | Spending):
        return _check_spending(compute_budgets, price, problems)
    try:
        if isinstance(compute_budgets, bytes):
            raise TypeError("bytes are iterable, but they are not budgets")
        if compute_budgets is None:
            compute_budgets = () if request.twins is None else request.twins.budgets
        given = [_as_float(c) for c in compute_budgets]
    except (TypeError, ValueError):
        problems.append(
            "compute_budgets: expected a list of FLOPs, as [1e14, 5e14, 2e15, 1e16], or what the "
            f"sweep may take, as '2h' or '50 USD'; got {compute_budgets!r}"
        )
        return []
    if not given and not (request.twins and not request.twins.rows):
        problems.append(
            "compute_budgets: missing; pass FLOPs, as [1e14, 5e14, 2e15, 1e16], or what the sweep "
            "may take, as '2h'"
        )
    bad = [c for c in given if not is_positive(c)]
    if bad:
        problems.append(f"compute_budgets: expected positive finite FLOPs, got {bad}")
    elif request.goal is not None:
        problems += request.goal.faults_with(sorted(set(given)))
    return sorted(set(given))


def _check_spending(
    asked: str | Spending, price: object, problems: list[str]
) -> list[float] | Spending:
    """What may be spent; errors are added to `problems`."""
    try:
        spending = Spending.parse(asked) if isinstance(asked, str) else asked
    except ArgumentError as error:
        problems += error.problems
        return []
    if spending.money is not None and price is None:
        problems.append(
            "price_per_hour: missing; pass the price of one device for an hour, so that budgets "
            f"can be chosen for {spending.text}"
        )
    return spending


def _as_float(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError("float(True) is 1.0, but a bool is not a budget")
    return float(value)
