"""What was passed, checked before any compute is spent: every fault in one error."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from flops_fit.errors import ArgumentError
from flops_fit.records import Size
from flops_fit.sweep.flops import FlopsConvention, cost_of, params_of
from flops_fit.sweep.recipe import Recipe, recipe_faults
from flops_fit.sweep.rows import FEWEST_SIZES
from flops_fit.sweep.seeding import seeded
from flops_fit.sweep.sizes import SizeFinder
from flops_fit.sweep.source import Source
from flops_fit.sweep.task import (
    Task,
    check_data_arguments,
    check_loss,
    check_model_arguments,
    raise_problems,
)

_MOST_TRIES = 64  # sizes tried until the model runs
_TINY_PARAMS = 1_000_000  # a model this small is tried for real without a second thought


def check_all(
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
        data_faults = _loss_faults(task, source, finder) or _size_faults(finder)
        if isinstance(recipe, Recipe) and not data_faults:
            with seeded(0):
                problems += recipe_faults(recipe, task.build(finder.smallest()))
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
    enough = max(_TINY_PARAMS, 4 * finder.counts[size])
    for _ in range(_MOST_TRIES):
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
