"""Model and loss tried on one real batch of each data set, before any compute is spent."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_map

from flops_fit.errors import ArgumentError, in_short
from flops_fit.records import Size
from flops_fit.runtime.rng import seeded
from flops_fit.sweep.data.source import Source, count_examples
from flops_fit.sweep.task.signatures import metric_faults
from flops_fit.sweep.task.size_finder import SizeFinder
from flops_fit.sweep.task.task import Task, outputs_of
from flops_fit.sweep.training.optimizer import build_optimizer
from flops_fit.sweep.training.recipe import Recipe
from flops_fit.validate import is_non_negative

_MOST_TRIES = 64  # sizes tried until the model runs
_TINY_PARAMS = 1_000_000  # a model this small is tried for real without a second thought
_TAKE_THE_MEAN = "return the mean over the batch"


def try_batches(
    task: Task, source: Source, finder: SizeFinder, *, with_loss: bool = True
) -> list[str]:
    """Faults of the loss and of the held-out data, at the smallest size at which the model runs.

    Args:
        task: What is tried.
        source: Its data.
        finder: The sizes; those at which the model or its loss fails are refused.
        with_loss: Whether the loss can be called at all.

    Raises:
        ArgumentError: No size is left.
    """
    fault, first = "", finder.smallest()
    size = first
    enough = max(_TINY_PARAMS, 4 * finder.counts[size])
    for _ in range(_MOST_TRIES):
        if finder.counts[size] > enough:
            break
        try:
            return check_batches(task, source, size, with_loss=with_loss)
        except Exception as error:
            fault = fault or f"one batch at size {size!r} raised {in_short(error)}"
            finder.refuse(size, error)
        try:
            size = finder.smallest()
        except ArgumentError:  # none is left
            break
    if not with_loss:
        return [f"model_cls: {fault}"]
    try:
        return [f"loss_fn: {fault}", *check_batches(task, source, first, with_loss=False)]
    except Exception:
        return [f"model or loss_fn: {fault}"]


@seeded(0)
def check_batches(task: Task, source: Source, size: Size, *, with_loss: bool = True) -> list[str]:
    """Faults of the loss on one real batch (shape, gradient, finiteness), and of held-out data.

    Raises:
        Exception: What the model or the loss raises on a batch of the training data.
    """
    model = task.build(size).train()
    if with_loss:
        faults = _loss_faults(task, model, source, size)
    else:
        faults = []
        with torch.no_grad():
            outputs_of(model, source.sample)
    return faults + _held_out_faults(task, model.eval(), source, with_loss and not faults)


@seeded(0)
def step_faults(task: Task, source: Source, recipe: Recipe, size: Size) -> list[str]:
    """Faults of one step of the recipe's optimiser on a real batch: no trial would pass."""
    try:
        model = task.build(size).train()
        optimizer = build_optimizer(recipe, model, 1e-3)
        task.loss(model, source.sample).backward()
        if recipe.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
    except Exception as error:
        return [f"recipe: one step at size {size!r} raised {in_short(error)}"]
    return []


def _loss_faults(task: Task, model: nn.Module, source: Source, size: Size) -> list[str]:
    loss: Any = task.loss(model, source.sample)
    if not isinstance(loss, torch.Tensor):
        return [f"loss_fn: expected a scalar tensor, got {type(loss).__name__}"]
    if loss.ndim:
        return [f"loss_fn: expected a scalar, got shape {tuple(loss.shape)}; {_TAKE_THE_MEAN}"]
    if not loss.requires_grad:
        return ["loss_fn: its result carries no gradient; do not detach it or call .item()"]
    if not torch.isfinite(loss) or not loss:
        return [
            f"loss_fn: the loss of one batch at size {size!r} is {loss.item()}; expected a finite "
            "number that is not 0"
        ]
    if _adds_up(task, model.eval(), source.sample):
        return [f"loss_fn: twice the examples give twice the loss; {_TAKE_THE_MEAN}"]
    return []


def _adds_up(task: Task, model: nn.Module, batch: Any) -> bool:
    """Whether the loss of an example taken twice is twice its loss; False where that fails."""
    count = count_examples(batch)

    def first(times: int) -> Any:
        def repeat(leaf: Any) -> Any:
            whole = isinstance(leaf, torch.Tensor) and leaf.ndim > 0 and len(leaf) == count
            return torch.cat([leaf[:1]] * times) if whole else leaf

        return tree_map(repeat, dict(batch) if isinstance(batch, Mapping) else batch)

    try:
        with torch.no_grad():
            one, two = (float(task.loss(model, first(times))) for times in (1, 2))
    except Exception:
        return False
    return one != 0 and math.isclose(two, 2 * one, rel_tol=1e-3)


def _held_out_faults(task: Task, model: nn.Module, source: Source, with_loss: bool) -> list[str]:
    """The first held-out examples must pass model and loss too: they come after the training."""
    try:
        with torch.no_grad():
            batch = source.held_out_sample()
            if not with_loss:
                outputs_of(model, batch)
                return []
            loss = float(task.loss(model, batch))
    except Exception as error:
        return [f"eval_dataset: one batch raised {in_short(error)}"]
    if not math.isfinite(loss):
        return [f"eval_dataset: the loss of one batch is {loss}"]
    return [] if metric_faults(task) else _metric_faults(task, model, batch)


@torch.no_grad()
def _metric_faults(task: Task, model: nn.Module, batch: Any) -> list[str]:
    """Each metric must make a number of the first held-out examples."""
    faults = []
    for name in task.metrics:
        try:
            one = replace(task, metrics={name: task.metrics[name]})
            float(one.held_out(model, batch)[name])
        except Exception as error:
            faults.append(f"metrics: {name!r} raised {in_short(error)}")
    return faults


def recipe_faults(recipe: Recipe, model: torch.nn.Module) -> list[str]:
    """Faults of the recipe's own functions, tried on a model."""
    problems = []
    if callable(recipe.optimizer):
        try:
            made: Any = build_optimizer(recipe, model, 1e-3)
        except Exception as error:
            problems.append(f"optimizer: its function raised {in_short(error)}")
        else:
            if not isinstance(made, torch.optim.Optimizer):
                problems.append(
                    "optimizer: expected its function (parameters, learning_rate) to return an "
                    f"Optimizer, got {type(made).__name__}"
                )
    if callable(recipe.schedule):
        problems += _schedule_faults(recipe.schedule)
    return problems


def _schedule_faults(schedule: Callable[[float], float]) -> list[str]:
    for share in (0.01, 0.5, 1.0):
        try:
            value = schedule(share)
        except Exception as error:
            return [f"schedule: its function raised {in_short(error)}, at {share}"]
        if not is_non_negative(value):
            return [
                "schedule: expected its function to return a number from 0 up, got "
                f"{value!r} at {share} of the steps"
            ]
    return []
