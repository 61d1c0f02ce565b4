"""Hashes of plain values, functions and objects: what trial ids are made of.

The hashes are a stored format. A change here gives every trial a new id, and finished runs would be
trained again.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import torch

LONGEST_LINE = 80  # characters


def digest(value: Any) -> str:
    """A hash of a value: 16 hex digits, the same in every process."""
    text = json.dumps(plain(value), sort_keys=True, allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def in_one_line(value: Any) -> str:
    """What a function or object is, as text: equal for equal ones, and short."""
    text = json.dumps(plain(value), ensure_ascii=False).strip('"')
    return text if len(text) <= LONGEST_LINE else f"{text[:LONGEST_LINE]}... {digest(text)[:8]}"


def plain(value: Any) -> Any:
    """A value as plain JSON values.

    Functions and classes become their names, other objects their type and fields. What a function
    was given in advance counts too: the arguments of a partial, and the scalars in a closure. A
    lambda counts by its byte code, since all lambdas share one name.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(value[key]) for key in sorted(value, key=str)}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, set | frozenset):  # in an order that is the same in every process
        return sorted(map(str, map(plain, value)))
    if isinstance(value, partial):
        return [plain(value.func), plain(value.args), plain(value.keywords)]
    if inspect.isfunction(value):
        return [qualified_name(value), *_captured(value)]
    if hasattr(value, "__qualname__"):
        return qualified_name(value)
    if isinstance(value, np.generic):
        return value.item()
    # Arrays and tensors count by shape and content, other objects by type and attributes.
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().double().numpy()
    if isinstance(value, np.ndarray):
        return [list(value.shape), hashlib.sha256(value.tobytes()).hexdigest()]
    fields_of = getattr(value, "__dict__", None)
    return [qualified_name(type(value)), plain(fields_of) if fields_of else _stable_repr(value)]


def qualified_name(value: object) -> str:
    """`package.module.Name` of a class or function, or of the type of another object."""
    inner = getattr(value, "func", value)  # functools.partial
    named = inner if hasattr(inner, "__qualname__") else type(inner)
    return f"{named.__module__}.{named.__qualname__}"


def short_name(qualified: str) -> str:
    """The last part of a dotted name: what a sweep of this model class is called by default."""
    return qualified.rpartition(".")[2]


def _captured(function: Any) -> list[Any]:
    """The scalars in a function's closure, and the code of a lambda."""
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    values = [value for value in cells if isinstance(value, bool | int | float | str)]
    if function.__name__ == "<lambda>":
        code = function.__code__
        values += [code.co_code.hex(), repr(code.co_names), repr(plain(code.co_consts))]
    return values


def _stable_repr(value: object) -> str:
    """The repr, or nothing if it holds a memory address, which differs between processes."""
    text = repr(value)
    return text if " at 0x" not in text else ""
