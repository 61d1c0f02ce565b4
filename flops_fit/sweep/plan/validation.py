"""What was passed, checked before any compute is spent: every fault in one error."""

from __future__ import annotations

import contextlib
import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from flops_fit.errors import ArgumentError, FlopsFitWarning
from flops_fit.records import Size
from flops_fit.runtime.rng import seeded
from flops_fit.sweep.data.source import Source
from flops_fit.sweep.plan.dry_run import recipe_faults, step_faults, try_batches
from flops_fit.sweep.plan.isoflop_row import FEWEST_SIZES
from flops_fit.sweep.plan.request import PlanRequest
from flops_fit.sweep.task.model_cost import build_empty, cost_of, params_of
from flops_fit.sweep.task.signatures import check_data_arguments, check_model_arguments, loss_faults
from flops_fit.sweep.task.size_finder import SizeFinder
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.recipe import Recipe
from flops_fit.validate import raise_problems


def check_all(
    task: Task, request: PlanRequest, faults: Sequence[str]
) -> tuple[list[float], Source, SizeFinder]:
    """All faults in one error; else the budgets, ascending, the data, and the sizes to start from.

    Model and data are each opened where their own arguments stand; the loss is tried where both do.
    """
    problems = list(faults)
    budgets = _check_budgets(request.compute_budgets, problems)
    sizes = None if request.sizes is None else _check_sizes(request.sizes, problems)
    recipe: object = request.recipe
    flops = request.flops
    seed: object = request.seed
    if not isinstance(recipe, Recipe):
        problems.append(f"recipe: expected a Recipe, got {type(recipe).__name__}")
    if not callable(flops) and flops not in ("measured", "6ND"):
        problems.append(f"flops: expected 'measured', '6ND' or a function, got {flops!r}")
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        problems.append(f"seed: expected a whole number from 0 up, got {seed!r}")
    mended = _without_clash(task)
    source, data_faults = _opened(task)
    finder = SizeFinder(
        count=lambda size: params_of(mended, size),
        measure=lambda size: cost_of(mended, _known(source), size, flops),
        given=sizes or None,
    )
    model_faults = check_model_arguments(task)
    if not check_model_arguments(mended):
        model_faults += _model_faults(finder)
        tried = _counted_by_us(mended, finder) if model_faults else finder
        data_faults += _tried(mended, source, tried, recipe)
        if source is not None and not model_faults and not data_faults:
            data_faults += _size_faults(finder)
    problems = [*model_faults, *data_faults, *problems]
    raise_problems(problems, "flops-fit cannot start:" if len(problems) > 1 else "")
    return budgets, _known(source), finder


def _without_clash(task: Task) -> Task:
    """The task, its kwargs without the size parameter: what else is wrong shows then."""
    if not isinstance(task.model_kwargs, Mapping) or task.size_param not in task.model_kwargs:
        return task
    others = {key: task.model_kwargs[key] for key in task.model_kwargs if key != task.size_param}
    return replace(task, model_kwargs=others)


def _opened(task: Task) -> tuple[Source | None, list[str]]:
    """The data, and the faults of data and loss that show before a model is at hand."""
    faults = check_data_arguments(task)
    if task.dataset is None:
        return None, faults
    try:
        return task.open(), faults
    except ArgumentError as error:
        faults += error.problems
    with contextlib.suppress(ArgumentError), warnings.catch_warnings():
        warnings.simplefilter("ignore", FlopsFitWarning)
        return replace(task, eval_dataset=None).open(), faults
    return None, faults


def _counted_by_us(task: Task, finder: SizeFinder) -> SizeFinder:
    """Sizes for trying the rest where `num_params()` is at fault."""
    return SizeFinder(
        count=lambda size: sum(p.numel() for p in build_empty(task, size).parameters()),
        measure=finder.measure,
        given=finder.given,
    )


def _tried(task: Task, source: Source | None, finder: SizeFinder, recipe: object) -> list[str]:
    """Faults that show once a model is built: of loss, held-out data and the recipe's functions."""
    faults: list[str] = []
    with contextlib.suppress(ArgumentError):  # no size builds, which was said
        smallest = finder.smallest()
        if isinstance(recipe, Recipe):
            with seeded(0):
                faults += recipe_faults(recipe, task.build(smallest))
        if source is not None:
            faults += try_batches(task, source, finder, with_loss=not loss_faults(task))
        if source is not None and isinstance(recipe, Recipe) and not (faults or loss_faults(task)):
            faults += step_faults(task, source, recipe, finder.smallest())
    return faults


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


def _size_faults(finder: SizeFinder) -> list[str]:
    """Too few of the sizes given are left, once those at which the model does not run are out."""
    given = finder.given or ()
    count = sum(finder.cost(size) is not None for size in given)
    if not given or count >= FEWEST_SIZES:
        return []
    reasons = "; ".join(f"{size!r}: {why}" for size, why in finder.refused.items())
    return [
        f"sizes: the model works at {count} of the {len(given)} given, {FEWEST_SIZES} are needed "
        f"({reasons})"
    ]


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError("True and False are no budgets")
    return float(value)


def _check_budgets(compute_budgets: Iterable[float] | None, problems: list[str]) -> list[float]:
    try:
        if isinstance(compute_budgets, str | bytes):
            raise TypeError("its letters are no budgets")
        given = [_number(c) for c in (() if compute_budgets is None else compute_budgets)]
    except (TypeError, ValueError):
        problems.append(
            f"compute_budgets: expected a list of FLOPs, as [1e16, 1e17, 1e18]; got "
            f"{compute_budgets!r}"
        )
        return []
    if not given:
        problems.append("compute_budgets: missing; pass FLOPs, as in [1e16, 1e17, 1e18]")
    bad = [c for c in given if not (math.isfinite(c) and c > 0)]
    if bad:
        problems.append(f"compute_budgets: expected positive finite FLOPs, got {bad}")
    return sorted(set(given))
