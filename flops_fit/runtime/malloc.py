"""Makes glibc keep the memory that a training step frees, instead of returning it to the kernel.

A training step on a CPU frees its activations and gradients, and the next step allocates the same
amount. glibc requests every buffer over 32 MiB from the kernel, and returns smaller ones whenever
enough are free at the end of the heap; the kernel then zeroes every page again at each step. The
settings are those of mallopt(3). Current values cannot be read, so if the environment sets any of
them, all are left unchanged.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

# Parameters of mallopt(3), and the values that glibc adapts to after buffers of 32 MiB.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _MMAP_MAX = -1, -3, -4
_USUAL = {_TRIM_THRESHOLD: 64 << 20, _MMAP_THRESHOLD: 32 << 20, _MMAP_MAX: 65536}
_KEEPING = {_TRIM_THRESHOLD: 2**31 - 1, _MMAP_MAX: 0}
_SET_BY_ENVIRONMENT = (
    "GLIBC_TUNABLES",
    "MALLOC_MMAP_MAX_",
    "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TRIM_THRESHOLD_",
)


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """In this context freed memory stays with this process; at its end it is returned.

    Does nothing with a GPU, without glibc, and if the environment sets glibc's parameters, as a
    user may and as Dask's workers do.
    """
    libc = _glibc()
    if libc is None or torch.cuda.is_available():
        yield
        return
    _set(libc, _KEEPING)
    try:
        yield
    finally:
        _set(libc, _USUAL)
        # Returns the freed memory to the kernel.
        libc.malloc_trim(0)


def _set(libc: ctypes.CDLL, parameters: dict[int, int]) -> None:
    for parameter, value in parameters.items():
        libc.mallopt(parameter, value)


@cache
def _glibc() -> ctypes.CDLL | None:
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _SET_BY_ENVIRONMENT):
        return None
    return ctypes.CDLL(None)
