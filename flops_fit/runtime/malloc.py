"""glibc keeps the memory of a training step, rather than giving it back and asking again.

A step on the CPU frees its activations and gradients and allocates as many in the next. glibc takes
every buffer over 32 MiB straight from the kernel, and returns smaller ones whenever enough lie free
at the end of the heap; the kernel then zeroes every page anew at each step. mallopt(3) has the
switches; they cannot be read, so those that the environment sets are left alone.
"""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

# Parameters of mallopt(3), and what they come to once glibc has seen buffers of 32 MiB.
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
    """Within, what a step frees stays with this process; afterwards it is returned.

    Does nothing where a GPU trains, without glibc, and where the environment sets its switches, as
    the user may and as Dask's workers do.
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
        libc.malloc_trim(0)


def _set(libc: ctypes.CDLL, switches: dict[int, int]) -> None:
    for switch, value in switches.items():
        libc.mallopt(switch, value)


@cache
def _glibc() -> ctypes.CDLL | None:
    if platform.libc_ver()[0] != "glibc" or any(name in os.environ for name in _SET_BY_ENVIRONMENT):
        return None
    return ctypes.CDLL(None)
