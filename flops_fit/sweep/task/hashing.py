"""flops_fit.sweep.task.task.hashing."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch


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
