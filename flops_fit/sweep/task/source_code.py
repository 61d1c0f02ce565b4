"""Hashes of the source code of the user's model, data and loss.

A trial's id holds these by name only; the hash shows whether the code behind a name has changed.
It covers the functions, classes and plain constants that the code refers to, directly or through
others, if they are in the same module or in the user's own code. Dicts and lists of functions or
classes are followed too; those of plain values count only if their name is in capitals, since they
may be caches. Comments, layout and docstrings do not count. The hashes are a stored format.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import sysconfig
import textwrap
from collections.abc import Iterable, Iterator
from functools import partial
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

from torch.utils.data import DataLoader, Subset

from flops_fit.sweep.task.task import Task

_INSTALLED = tuple(sysconfig.get_paths()[key] for key in ("stdlib", "purelib", "platlib"))


def code_of(task: Task) -> str:
    """`model:… loss:… data:…`, with a hash of the source of each, the same in every process."""
    data = [*_data_code(task.dataset), *_data_code(task.eval_dataset)]
    parts: dict[str, list[Any]] = {"model": [task.model_cls], "loss": [task.loss_fn], "data": data}
    return " ".join(f"{part}:{_hash(roots)}" for part, roots in parts.items())


def parts_changed(before: str, after: str) -> set[str]:
    """In which of model, loss and data two results of `code_of` differ; none if one is empty."""
    pairs = zip(before.split(), after.split(), strict=False)
    return {new.partition(":")[0] for old, new in pairs if old != new}


def _data_code(data: Any) -> list[Any]:
    """The objects whose code reads and collates the data."""
    if isinstance(data, DataLoader):
        return [*_data_code(data.dataset), data.collate_fn]
    return _data_code(data.dataset) if isinstance(data, Subset) else [data]


def _hash(roots: list[Any]) -> str:
    """Hash of the source of some objects and of all that it refers to."""
    seen: dict[str, str] = {}
    for root in map(_definition, roots):
        _follow(root, getattr(root, "__module__", ""), seen)
    text = "\n".join(f"{name} {seen[name]}" for name in sorted(seen))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _definition(value: Any) -> Any:
    """The function or class that defines a value: a partial's function, an object's type."""
    if isinstance(value, partial):
        return _definition(value.func)
    if isinstance(value, MethodType):
        return value.__func__
    return value if isinstance(value, FunctionType | type) else type(value)


def _follow(value: Any, home: str, seen: dict[str, str]) -> None:
    """Add the source of a function or class to `seen`, and that of all it refers to.

    Args:
        value: The function or class.
        home: Module of the root object, followed even if it is installed.
        seen: Source by qualified name.
    """
    name = f"{value.__module__}.{value.__qualname__}"
    if name in seen or not (value.__module__ == home or _is_own(value.__module__)):
        return
    seen[name] = _text(value)
    # A class inherits the code of its bases.
    for base in value.__mro__[1:] if isinstance(value, type) else ():
        _follow(base, home, seen)
    for function in _functions(value):
        for key, found in _referred(function):
            # A lower-case dict or list may be a cache, which changes at run time.
            if (key.isupper() or not isinstance(found, dict | list)) and _is_plain(found):
                seen[f"{name} {key}"] = repr(found)
            for part in _parts(found):
                if isinstance(part, FunctionType | type | partial):
                    _follow(_definition(part), home, seen)


def _is_plain(value: Any) -> bool:
    """Whether a value is fully given by its `repr`, which is the same in every process."""
    if type(value) is dict:  # the repr of a defaultdict holds a memory address
        return all(map(_is_plain, [*value, *value.values()]))
    return all(map(_is_plain, value)) if isinstance(value, list | tuple) else _is_scalar(value)


def _is_scalar(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float | str | bytes)


def _parts(value: Any) -> Iterable[Any]:
    """The items of a dict, list or tuple; else the value itself."""
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else [value]


def _is_own(module: str) -> bool:
    """Whether a module is the user's: neither in the standard library nor installed."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return module == "__main__" or (file is not None and not file.startswith(_INSTALLED))


def _text(value: Any) -> str:
    """The source without comments, layout and docstrings; the byte code if there is no source."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(value)))
    except (OSError, TypeError, SyntaxError):
        return "".join(map(_byte_code, (function.__code__ for function in _functions(value))))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]  # a body must not be empty
    return ast.dump(tree)


def _byte_code(code: CodeType) -> str:
    inner = [_byte_code(c) if isinstance(c, CodeType) else repr(c) for c in code.co_consts]
    return f"{code.co_code.hex()} {code.co_names} {inner}"


def _functions(value: Any) -> list[FunctionType]:
    """The function itself, or the methods and property getters of a class."""
    if isinstance(value, FunctionType):
        return [value]
    # `__func__` of class methods and static methods is the function.
    members = [getattr(member, "__func__", member) for member in vars(value).values()]
    members += [member.fget for member in members if isinstance(member, property)]
    return [member for member in members if isinstance(member, FunctionType)]


def _referred(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """Names and values of the globals that a function uses, and of its closure."""
    names = sorted(_names(function.__code__))
    for name in names:
        found = function.__globals__.get(name)
        # Of `helpers.total(x)`, the byte code holds the names `helpers` and `total` only.
        if isinstance(found, ModuleType) and _is_own(found.__name__):
            yield from ((key, getattr(found, key)) for key in names if hasattr(found, key))
        elif name in function.__globals__:
            yield name, found
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # an empty cell: not assigned yet
            continue


def _names(code: CodeType) -> set[str]:
    inner = [_names(const) for const in code.co_consts if isinstance(const, CodeType)]
    return set(code.co_names).union(*inner)
