"""The model, the loss and the recipe tried on one real batch, before any compute is spent."""

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
from flops_fit.sweep.plan.explanation import explained
from flops_fit.sweep.task.signatures import metric_faults
from flops_fit.sweep.task.size_finder import SizeFinder
from flops_fit.sweep.task.task import Task, outputs_of
from flops_fit.sweep.task.weighting import split_loss
from flops_fit.sweep.training.model_state import model_state, overlaps
from flops_fit.sweep.training.optimizer import build_optimizer
from flops_fit.sweep.training.recipe import Recipe
from flops_fit.sweep.training.state_tree import pack
from flops_fit.validate import is_non_negative
from flops_fit.warn import warn_user

_MAX_SIZES = 64  # sizes tried until the model runs
_TINY_PARAMS = 1_000_000  # models up to this size are always run
_TEST_RATE = 1e-3  # learning rate of the step that is tried
_TAKE_THE_MEAN = "return the mean over the batch"


def try_batches(
    task: Task, source: Source, finder: SizeFinder, *, with_loss: bool = True
) -> list[str]:
    """Errors in the loss and the held-out data, found at the smallest size at which the model runs.

    Args:
        task: Model and loss.
        source: The data.
        finder: The sizes. Those at which model or loss raise are refused from now on.
        with_loss: Whether the loss can be called at all.

    Raises:
        ArgumentError: Every size is refused.
    """
    first = size = finder.smallest()
    first_error = ""
    # The smallest size is always run, and larger ones up to four times as large.
    max_params = max(_TINY_PARAMS, 4 * finder.counts[size])
    for _ in range(_MAX_SIZES):
        if finder.counts[size] > max_params:  # running it would take long
            break
        try:
            return check_batches(task, source, size, with_loss=with_loss)
        except Exception as error:
            first_error = first_error or _first_error(error, task, source, size)
            finder.refuse(size, error)
        try:
            size = finder.smallest()
        except ArgumentError:  # all are refused
            break
    if not with_loss:
        return [f"model_cls: {first_error}"]
    # If the model runs without the loss, the error is the loss's.
    try:
        return [f"loss_fn: {first_error}", *check_batches(task, source, first, with_loss=False)]
    except Exception:
        return [f"model or loss_fn: {first_error}"]


@seeded(0)
def _first_error(error: Exception, task: Task, source: Source, size: Size) -> str:
    try:
        reason = explained(error, task, task.build_quietly(size), source.sample)
    except Exception:  # the model cannot be built
        reason = in_short(error)
    return f"one batch at size {size!r} raised {reason}"


@seeded(0)
def check_batches(task: Task, source: Source, size: Size, *, with_loss: bool = True) -> list[str]:
    """Errors in the loss of one real batch (shape, gradient, finiteness), and in held-out data.

    Raises:
        Exception: Whatever the model or the loss raises on a batch of the training data.
    """
    model = task.build(size).train()
    if fault := _meta_fault(model):
        return [fault]
    if with_loss:
        faults = _loss_faults(task, model, source, size)
    else:
        faults = []
        with torch.no_grad():
            outputs_of(model, source.sample)
    return faults + _held_out_faults(task, model.eval(), source, with_loss and not faults)


@seeded(0)
def step_faults(task: Task, source: Source, recipe: Recipe, size: Size) -> list[str]:
    """An error if one step of the recipe's optimiser on a real batch raises."""
    try:
        model = task.build_quietly(size).train()
        if shared := [name for name, p in model.named_parameters() if overlaps(p)]:
            return [
                f"model_cls: elements of {', '.join(shared)} share a single memory location, as "
                "those of an expanded tensor do, so that no optimizer can update them; call "
                ".clone() on the tensor first"
            ]
        optimizer = build_optimizer(recipe, model, _TEST_RATE)
        task.loss(model, source.sample).backward()
        if recipe.clip is not None:
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
        optimizer.step()
        _warn_if_unsavable(model, optimizer)
    except Exception as error:
        return [f"recipe: one step at size {size!r} raised {in_short(error)}"]
    return []


def _warn_if_unsavable(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Warn if a trial cannot be saved, which would show only once it is stopped."""
    try:
        pack({"model": model_state(model), "optimizer": optimizer.state_dict()})
    except Exception as error:
        warn_user(
            "trials of this model and optimiser cannot be saved while they train, so one that is "
            f"stopped starts over: {in_short(error)}. Keep tensors, numbers, texts, lists and "
            "dicts of these in buffers, get_extra_state() and the optimiser's state"
        )


def _meta_fault(model: nn.Module) -> str:
    """An error if a tensor of a built model holds no data; empty otherwise."""
    tensors = (*model.named_parameters(), *model.named_buffers())
    names = [name for name, tensor in tensors if tensor.is_meta]
    if not names:
        return ""
    return (
        f"model_cls: {', '.join(names[:3])} of the built model are on the meta device and hold no "
        "data; create them on the default device, or fill them with to_empty() and initial values"
    )


def _loss_faults(task: Task, model: nn.Module, source: Source, size: Size) -> list[str]:
    raw: Any = task.raw_loss(model, source.sample)
    if isinstance(raw, tuple) and not _is_sum_and_count(raw):
        return [
            f"loss_fn: expected a scalar tensor, or a tuple (sum, count) of the loss's sum and the "
            f"number of labels in it, got a tuple of {len(raw)}: {', '.join(map(_kind, raw))}"
        ]
    loss, _ = split_loss(raw)
    if not isinstance(loss, torch.Tensor):
        return [f"loss_fn: expected a scalar tensor, got {type(loss).__name__}{_of_type(loss)}"]
    if loss.ndim:
        return [f"loss_fn: expected a scalar, got shape {tuple(loss.shape)}; {_TAKE_THE_MEAN}"]
    if not loss.requires_grad and not any(p.requires_grad for p in model.parameters()):
        return ["model_cls: no parameter has requires_grad set, so nothing can be trained"]
    if not loss.requires_grad:
        return ["loss_fn: its result carries no gradient; do not detach it or call .item()"]
    if not torch.isfinite(loss) or not loss:
        return [
            f"loss_fn: the loss of one batch at size {size!r} is {loss.item()}; expected a finite "
            "number that is not 0"
        ]
    ratio = _ratio_of_repeated(task, model.eval(), source.sample)
    if math.isclose(ratio, 2, rel_tol=1e-3):
        return [f"loss_fn: twice the examples give twice the loss; {_TAKE_THE_MEAN}"]
    if isinstance(raw, tuple) and math.isclose(ratio, 0.5, rel_tol=1e-3):
        return [
            "loss_fn: of twice the examples it returns twice the count, but not twice the sum; "
            "return (sum, count), not (mean, count)"
        ]
    return []


def _is_sum_and_count(value: tuple[Any, ...]) -> bool:
    if len(value) != 2 or not isinstance(value[0], torch.Tensor) or value[0].ndim:
        return False
    count = value[1]
    if isinstance(count, torch.Tensor):
        return count.ndim == 0 and not count.requires_grad and bool(count >= 0)
    return is_non_negative(count)


def _kind(value: object) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    return type(value).__name__


def _of_type(loss: object) -> str:
    """What to do about a loss that is no tensor."""
    if loss is None:
        return "; is a `return` missing?"
    if isinstance(loss, float | int):
        return "; do not call .item() or float()"
    return "; return the loss alone"


def _ratio_of_repeated(task: Task, model: nn.Module, batch: Any) -> float:
    """The loss of a repeated example over that of one; NaN if the model fails on it."""
    count = count_examples(batch)

    def first_example(times: int) -> Any:
        def repeat(leaf: Any) -> Any:
            per_example = isinstance(leaf, torch.Tensor) and leaf.ndim > 0 and len(leaf) == count
            return torch.cat([leaf[:1]] * times) if per_example else leaf

        return tree_map(repeat, dict(batch) if isinstance(batch, Mapping) else batch)

    try:
        with torch.no_grad():
            once = float(task.loss(model, first_example(1)))
            twice = float(task.loss(model, first_example(2)))
    except Exception:
        return math.nan
    return twice / once if once else math.nan


def _held_out_faults(task: Task, model: nn.Module, source: Source, with_loss: bool) -> list[str]:
    """An error if the first held-out examples fail, which would show only after the training."""
    batch = None
    try:
        with torch.no_grad():
            batch = source.held_out_sample()
            if not with_loss:
                outputs_of(model, batch)
                return []
            loss = float(task.loss(model, batch))
    except Exception as error:
        reason = in_short(error) if batch is None else explained(error, task, model, batch)
        return [f"eval_dataset: one batch raised {reason}"]
    if not math.isfinite(loss):
        return [f"eval_dataset: the loss of one batch is {loss}"]
    return [] if metric_faults(task) else _metric_faults(task, model, batch)


@torch.no_grad()
def _metric_faults(task: Task, model: nn.Module, batch: Any) -> list[str]:
    """An error for each metric that does not return a number for a held-out batch."""
    faults = []
    for name in task.metrics:
        try:
            one = replace(task, metrics={name: task.metrics[name]})
            float(one.held_out(model, batch)[name][0])
        except Exception as error:
            faults.append(f"metrics: {name!r} raised {in_short(error)}")
    return faults


def recipe_faults(recipe: Recipe, model: torch.nn.Module) -> list[str]:
    """Errors in the optimiser and schedule that are functions, tried on a model."""
    problems = []
    if callable(recipe.optimizer):
        try:
            optimizer: Any = build_optimizer(recipe, model, _TEST_RATE)
        except Exception as error:
            problems.append(f"optimizer: its function raised {in_short(error)}")
        else:
            if not isinstance(optimizer, torch.optim.Optimizer):
                problems.append(
                    "optimizer: expected its function (parameters, learning_rate) to return an "
                    f"Optimizer, got {type(optimizer).__name__}"
                )
    if callable(recipe.schedule):
        problems += _schedule_faults(recipe.schedule)
    return problems


def _schedule_faults(schedule: Callable[[float], float]) -> list[str]:
    for share in (0.01, 0.5, 1.0):  # near the start, halfway, and at the last step
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
