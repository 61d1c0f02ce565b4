"""The user's model, data and loss: what they must offer, checked before compute is spent."""

from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from numbers import Integral
from textwrap import shorten
from typing import Any

import numpy as np
import torch
from torch import nn

from flops_fit.errors import ArgumentError, in_short
from flops_fit.records import Size
from flops_fit.sweep.data import open_source
from flops_fit.sweep.source import Source, targets_of

_METRIC_NAME = re.compile(r"[\w.-]{1,100}")
_BY_PLACE = inspect.Parameter.POSITIONAL_ONLY
_HOW_TO_COUNT = (
    "add `def num_params(self): return sum(p.numel() for p in self.parameters())`, or, where the "
    "class is not yours, pass a function that builds the model and returns it after "
    "`model.num_params = lambda: sum(p.numel() for p in model.parameters())`"
)


@dataclass(frozen=True)
class Task:
    """What the user wants trained, taken untouched.

    Attributes:
        model_cls: Called as `model_cls(**{size_param: size}, **model_kwargs)`, returns a module.
        size_param: Name of the argument that sets the model's size.
        model_kwargs: The other arguments.
        dataset: Training data, or a factory of it.
        loss_fn: `loss_fn(outputs, targets)`, or `loss_fn(outputs, batch)` for mapping batches.
        eval_dataset: Held-out data; None sets a share of `dataset` aside.
        metrics: By name, what else is measured on held-out data; called as `loss_fn` is.
    """

    model_cls: Callable[..., nn.Module]
    size_param: str
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    dataset: Any = None
    loss_fn: Callable[..., torch.Tensor] | None = None
    eval_dataset: Any = None
    metrics: Mapping[str, Callable[..., Any]] = field(default_factory=dict)

    @property
    def model_name(self) -> str:
        """Dotted name of the model class."""
        return qualified_name(self.model_cls)

    def build(self, size: Size) -> nn.Module:
        """A model of this size, on torch's current default device."""
        return self.model_cls(**{self.size_param: size}, **self.model_kwargs)

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        """The loss of a model on a batch, as a tensor that carries a gradient."""
        assert self.loss_fn is not None
        return self.loss_fn(outputs_of(model, batch), _judged_by(batch))

    def held_out(self, model: nn.Module, batch: Any) -> dict[str, torch.Tensor]:
        """Loss (as "loss") and metrics of a model on a batch, from one pass: scalar tensors."""
        assert self.loss_fn is not None
        outputs, truth = outputs_of(model, batch), _judged_by(batch)
        judges = {"loss": self.loss_fn, **self.metrics}
        return {name: torch.as_tensor(judge(outputs, truth)) for name, judge in judges.items()}

    def open(self) -> Source:
        """The data, opened and split."""
        return open_source(self.dataset, self.eval_dataset)


def outputs_of(model: nn.Module, batch: Any) -> Any:
    """What a model makes of a batch."""
    return model(**batch) if isinstance(batch, Mapping) else model(batch[0])


def _judged_by(batch: Any) -> Any:
    """What loss and metrics get beside the outputs."""
    return batch if isinstance(batch, Mapping) else targets_of(batch)


def check_model_arguments(task: Task) -> list[str]:
    """Faults of the model's class and arguments that can be seen without building it."""
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
            "flops-fit sets it"
        )
    if named and callable(task.model_cls) and isinstance(task.model_kwargs, Mapping):
        problems += _check_signature(task)
    return problems


def _shown(value: object) -> str:
    """A value in few words: a module's own description fills a page."""
    if isinstance(value, nn.Module):
        return f"an instance of {type(value).__name__}"
    return shorten(repr(value), 100, placeholder=" ...")


def check_data_arguments(task: Task) -> list[str]:
    """Faults of data and loss that can be seen without reading anything."""
    missing = "dataset: missing; pass a Dataset, IterableDataset, DataLoader or factory"
    return [missing] * (task.dataset is None) + loss_faults(task) + metric_faults(task)


def metric_faults(task: Task) -> list[str]:
    """Faults of the metrics that can be seen without calling them."""
    if not isinstance(task.metrics, Mapping):
        return [f"metrics: expected functions by name, got {type(task.metrics).__name__}"]
    return [
        f"metrics: expected a name and a function (outputs, targets) -> number, got {name!r}: "
        f"{metric!r}"
        for name, metric in task.metrics.items()
        if not (isinstance(name, str) and _METRIC_NAME.fullmatch(name))
        or not callable(metric)
        or isinstance(metric, type)
        or name == "loss"
    ]


def loss_faults(task: Task) -> list[str]:
    """Faults of the loss that can be seen without calling it."""
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


def count_params(model: object, size: Size) -> int:
    """N, by the model's own `num_params()`.

    Raises:
        ArgumentError: It is not a module, has no `num_params()`, or its count is none.
    """
    name = type(model).__name__
    if not isinstance(model, nn.Module):
        raise ArgumentError(f"model_cls: expected it to return an nn.Module, got {name}")
    own_count: Any = getattr(model, "num_params", None)
    if own_count is None:
        raise ArgumentError(f"model_cls: {name} has no num_params(); {_HOW_TO_COUNT}")
    if not callable(own_count):
        raise ArgumentError(f"model_cls: {name}.num_params must be a method, not a value")
    try:
        count = own_count()
    except Exception as error:
        raise ArgumentError(f"model_cls: num_params() raised {in_short(error)}") from error
    whole = isinstance(count, Integral) and not isinstance(count, bool)
    if not whole or count <= 0:
        raise ArgumentError(
            f"model_cls: num_params() must return a positive int, got {count!r} at size {size!r}"
        )
    return int(count)


def task_identity(task: Task, source: Source) -> dict[str, Any]:
    """What of the task determines a trial's result, as plain JSON values."""
    return {
        "model": plain(task.model_cls),
        "size_param": task.size_param,
        "model_kwargs": plain(task.model_kwargs),
        "data": source.fingerprint,
        "loss": plain(task.loss_fn),
    }


def digest(value: Any) -> str:
    """A hash of plain values: 16 hex digits, the same in every process."""
    text = json.dumps(plain(value), sort_keys=True, allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plain(value: Any) -> Any:
    """JSON values as they are; functions and classes by name; objects by type and fields.

    What a function was given beforehand counts too: a partial's arguments, the numbers and words in
    a closure, and a lambda's code, since its name says nothing.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(map(str, map(plain, value)))
    if isinstance(value, partial):
        return [plain(value.func), plain(value.args), plain(value.keywords)]
    if inspect.isfunction(value):
        return [qualified_name(value), *_captured(value)]
    if hasattr(value, "__qualname__"):
        return qualified_name(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().double().numpy()
    if isinstance(value, np.ndarray):
        return [list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
    fields_of = getattr(value, "__dict__", None)
    return [qualified_name(type(value)), plain(fields_of) if fields_of else _stable_repr(value)]


def qualified_name(value: object) -> str:
    """`package.module.Name` of a class or function; of its type for any other object."""
    inner = getattr(value, "func", value)  # functools.partial
    named = inner if hasattr(inner, "__qualname__") else type(inner)
    return f"{named.__module__}.{named.__qualname__}"


def _captured(function: Any) -> list[Any]:
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    values = [value for value in cells if isinstance(value, bool | int | float | str)]
    if function.__name__ == "<lambda>":
        code = function.__code__
        values += [code.co_code.hex(), repr(code.co_names), repr(plain(code.co_consts))]
    return values


def _stable_repr(value: object) -> str:
    text = repr(value)
    return text if " at 0x" not in text else ""


def _check_signature(task: Task) -> list[str]:
    signature = _signature(task.model_cls)
    if signature is None:
        return []
    problems = []
    accepted = signature.parameters
    catch_all = any(p.kind is p.VAR_KEYWORD for p in accepted.values())
    if task.size_param not in accepted and not catch_all:
        problems.append(
            f"model_size_param: {task.model_name} takes no {task.size_param!r}; it takes "
            f"{', '.join(accepted) or 'nothing'}. Where the class is not yours, pass a function of "
            f"{task.size_param!r} that builds the model"
        )
    elif task.size_param in accepted and accepted[task.size_param].kind is _BY_PLACE:
        problems.append(
            f"model_size_param: {task.model_name} takes {task.size_param!r} by place only; "
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
    if missing and not problems:
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


def raise_problems(problems: list[str], heading: str = "") -> None:
    """Raise one `ArgumentError` that lists every problem, if there is any."""
    if problems:
        raise ArgumentError(problems, heading)
