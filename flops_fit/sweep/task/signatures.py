"""Errors in the user's model, loss and metrics that show without calling them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from textwrap import shorten
from typing import Any

from torch import nn

from flops_fit.sweep.task.task import Task

_METRIC_NAME = re.compile(r"[\w.-]{1,100}")
_POSITIONAL_ONLY = inspect.Parameter.POSITIONAL_ONLY


def check_model_arguments(task: Task) -> list[str]:
    """Errors in the model's class and arguments, without building it."""
    problems = []
    named = isinstance(task.size_param, str)
    if not named:
        problems.append(f"model_size_param: expected the argument's name, got {task.size_param!r}")
    if not callable(task.model_cls) or isinstance(task.model_cls, nn.Module):
        problems.append(
            f"model_cls: expected a class or function that returns an nn.Module, got "
            f"{_shown(task.model_cls)}; pass the class itself, not an instance or its name"
        )
    if not isinstance(task.model_kwargs, Mapping):
        problems.append(f"model_kwargs: expected a dict, got {type(task.model_kwargs).__name__}")
    elif named and task.size_param in task.model_kwargs:
        problems.append(
            f"model_kwargs: holds {task.size_param!r}, which is the size parameter; leave it out, "
            "because flops-fit sets it"
        )
    if named and callable(task.model_cls) and isinstance(task.model_kwargs, Mapping):
        problems += _check_signature(task)
    return problems


def _shown(value: object) -> str:
    """A value in one line; the repr of a module fills a page."""
    if isinstance(value, nn.Module):
        return f"an instance of {type(value).__name__}"
    return shorten(repr(value), 100, placeholder=" ...")


def check_data_arguments(task: Task) -> list[str]:
    """Errors in data, loss and metrics, without reading or calling anything."""
    problems = []
    if task.dataset is None:
        problems.append("dataset: missing; pass a Dataset, IterableDataset, DataLoader or factory")
    return problems + loss_faults(task) + metric_faults(task)


def metric_faults(task: Task) -> list[str]:
    """Errors in the metrics, without calling them."""
    if not isinstance(task.metrics, Mapping):
        return [f"metrics: expected functions by name, got {type(task.metrics).__name__}"]
    return [
        f"metrics: expected a name and a function (outputs, targets) -> number, got {name!r}: "
        f"{metric!r}"
        for name, metric in task.metrics.items()
        if not (isinstance(name, str) and _METRIC_NAME.fullmatch(name))
        or not callable(metric)
        or isinstance(metric, type)
        or name == "loss"  # is logged under this name already
    ]


def loss_faults(task: Task) -> list[str]:
    """Errors in the loss, without calling it."""
    if isinstance(task.loss_fn, type):
        name = task.loss_fn.__name__
        return [f"loss_fn: got the class {name}; pass an instance of it, {name}()"]
    if not callable(task.loss_fn):
        return [
            f"loss_fn: expected a function (outputs, targets) -> scalar tensor, got "
            f"{task.loss_fn!r}"
        ]
    signature = _signature(task.loss_fn)
    if signature and not _takes_two(signature):
        return [
            f"loss_fn: it is called as loss_fn(outputs, targets), or loss_fn(outputs, batch) for "
            f"mapping batches; this one takes {signature}"
        ]
    return []


def _check_signature(task: Task) -> list[str]:
    """Errors in the names of the size parameter and the model's other arguments."""
    signature = _signature(task.model_cls)
    if signature is None:
        return []
    problems = []
    accepted = signature.parameters
    catch_all = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    if task.size_param not in accepted and not catch_all:
        problems.append(
            f"model_size_param: {task.model_name} takes no {task.size_param!r}; it takes "
            f"{', '.join(accepted) or 'nothing'}. If the class is not yours, pass a function of "
            f"{task.size_param!r} that builds the model"
        )
    elif task.size_param in accepted and accepted[task.size_param].kind is _POSITIONAL_ONLY:
        problems.append(
            f"model_size_param: {task.model_name} takes {task.size_param!r} by position only; "
            "flops-fit passes it by name, so drop the '/' from its signature"
        )
    unknown = [key for key in task.model_kwargs if key not in accepted and not catch_all]
    if unknown:
        problems.append(
            f"model_kwargs: {task.model_name} takes no {', '.join(map(repr, unknown))}; it takes "
            f"{', '.join(accepted) or 'nothing'}"
        )
    given = {task.size_param, *task.model_kwargs}
    missing = [
        p.name
        for p in accepted.values()
        if p.default is p.empty
        and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
        and p.name not in given
    ]
    if missing and not problems:  # a misspelt name would be reported twice
        problems.append(f"model_kwargs: {task.model_name} also needs {', '.join(missing)}")
    return problems


def _signature(function: Callable[..., Any]) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):  # builtins have none
        return None


def _takes_two(signature: inspect.Signature) -> bool:
    try:
        signature.bind(None, None)
    except TypeError:
        return False
    return True
