"""Objects sent to other processes: memory maps go as paths, and what cannot be sent is named."""

from __future__ import annotations

import contextlib
import io
import mmap
import os
import types
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import cloudpickle
import numpy as np
import torch

_LEAST_MAPPED = 2**20  # bytes: smaller arrays are sent whole
_DEEPEST = 20  # attributes of attributes that are searched for what cannot be sent
_READ, _READ_ONLY_COPY = "r", "c"


class UnsendableError(TypeError):
    """An object cannot be sent to another process.

    Attributes:
        path: Which part of it, such as ".files[0]"; empty for the object itself.
        part: That part.
        reason: What its pickling raises.
    """

    def __init__(self, path: str, part: object, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.part = part
        self.reason = reason


def dumps(value: object) -> bytes:
    """An object as bytes for `pickle.loads` in another process.

    Arrays that map a file are sent as its path, and map it there again.
    """
    with io.BytesIO() as file:
        _Pickler(file).dump(value)
        return file.getvalue()


def size_to_send(value: object) -> int:
    """How many bytes `dumps` would copy; large arrays are counted without being copied.

    Raises:
        UnsendableError: It cannot be sent.
    """
    counter = _Counter()
    try:
        counter.dump(value)
    except Exception as error:  # of any `__reduce__`, `__getstate__` or `__getattr__`
        path, part = _culprit(value)
        raise UnsendableError(path, part, str(error).strip().partition("\n")[0]) from error
    return counter.num_bytes


class _Pickler(cloudpickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, np.ndarray) and (mapped := _as_mapped(obj)):
            return mapped
        return super().reducer_override(obj)


class _Counter(_Pickler):
    """Counts bytes in place of writing them."""

    def __init__(self) -> None:
        super().__init__(self, protocol=5, buffer_callback=self._count_buffer)
        self.num_bytes = 0
        self._storages: set[int] = set()

    def write(self, data: Any) -> None:
        self.num_bytes += memoryview(data).nbytes

    def _count_buffer(self, buffer: Any) -> None:
        self.num_bytes += buffer.raw().nbytes

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, torch.storage.TypedStorage):
            obj = obj._untyped_storage  # its public name warns
        if isinstance(obj, torch.UntypedStorage):
            if obj.device.index:  # a worker sees one device, as its first
                raise TypeError(f"a worker has no device {obj.device}: keep it on the CPU")
            if obj.data_ptr() not in self._storages:
                self._storages.add(obj.data_ptr())
                self.num_bytes += obj.nbytes()
            return int, ()
        return super().reducer_override(obj)


def _as_mapped(array: np.ndarray) -> tuple[Callable[..., Any], tuple[Any, ...]] | None:
    """How to map the file of an array again; None where it has none, or was changed in memory."""
    root = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    if array.nbytes < _LEAST_MAPPED or array.dtype.hasobject:
        return None
    if not (isinstance(root, np.memmap) and isinstance(root.base, mmap.mmap) and root.filename):
        return None
    if root.mode == _READ_ONLY_COPY or not (array.flags.c_contiguous or array.flags.f_contiguous):
        return None
    path = os.path.abspath(root.filename)
    start = array.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    offset = root.offset + start
    try:
        if os.path.getsize(path) < offset + array.nbytes:
            return None
    except OSError:  # it was deleted
        return None
    order = "C" if array.flags.c_contiguous else "F"
    mode = _READ if root.mode == _READ else _READ_ONLY_COPY  # what it writes stays its own
    is_memmap = isinstance(array, np.memmap)
    return map_file, (path, array.dtype, mode, offset, array.shape, order, is_memmap)


def map_file(
    path: str,
    dtype: Any,
    mode: Any,
    offset: int,
    shape: tuple[int, ...],
    order: Any,
    is_memmap: bool,
) -> np.ndarray:
    """Map a part of a file as an array, in a process that was sent its path.

    Raises:
        FileNotFoundError: The file is not on this machine.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"{path}, which the data map into memory, is not on this machine: put it on a shared "
            "file system, or pass a function that opens the data where it runs"
        )
    array = np.memmap(path, dtype, mode, offset, shape, order)
    return array if is_memmap else np.asarray(array)


def _culprit(value: object) -> tuple[str, object]:
    """The path and the value of the innermost part that cannot be sent."""
    path, seen = "", {id(value)}
    for _ in range(_DEEPEST):
        for suffix, part in _parts(value):
            if id(part) not in seen and not _is_sendable(part):
                seen.add(id(part))
                path, value = path + suffix, part
                break
        else:
            break
    return path, value


def _is_sendable(value: object) -> bool:
    try:
        _Counter().dump(value)
    except Exception:
        return False
    return True


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """What an object consists of, each with the text that follows the object's name."""
    if isinstance(value, Mapping):
        yield from ((f"[{key!r}]", item) for key, item in value.items())
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{index}]", item) for index, item in enumerate(value))
    elif isinstance(value, partial):
        yield from ((".func", value.func), (".args", value.args), (".keywords", value.keywords))
    elif isinstance(value, types.MethodType):
        yield from ((".__self__", value.__self__), (".__func__", value.__func__))
    elif isinstance(value, types.FunctionType):
        yield from _captured(value)
    elif isinstance(value, type):
        yield from ((f".{name}", item) for name, item in vars(value).items())
    else:
        yield from ((f".{name}", item) for name, item in _state(value).items())
        yield ".__class__", type(value)


def _captured(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    """The variables from outside that a function uses."""
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # an empty cell: not assigned yet
            yield f": its variable {name}", cell.cell_contents
    for name in function.__code__.co_names:
        if name in function.__globals__:
            yield f": its variable {name}", function.__globals__[name]
    yield ".__defaults__", function.__defaults__


def _state(value: Any) -> dict[str, Any]:
    """The attributes of an object, as it hands them to pickle where it does so itself."""
    try:
        state = value.__getstate__()  # of `object` since Python 3.11
    except Exception:
        state = None
    if isinstance(state, tuple) and len(state) == 2:  # with slots
        state = {**(state[0] or {}), **(state[1] or {})}
    return state if isinstance(state, dict) else getattr(value, "__dict__", {})
