"""One CPU thread instead of several, where several slow training down.

torch's OpenMP threads wait for each other by spinning. If their cores are busy or rationed (by
other processes, or a container's quota), running threads wait for threads that are not scheduled,
and training is 10 to 100 times slower than on a single thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import nn

from flops_fit.runtime.rng import seeded
from flops_fit.warn import warn_user

# Above this ratio one thread is used; on an idle machine small models reach a ratio of two.
_MAX_SLOWDOWN = 4.0
_STEPS = 20  # timed


@contextmanager
def threads_that_help(measure_step: Callable[[], float] | None = None) -> Iterator[None]:
    """In this context torch uses one CPU thread if its several threads are far slower.

    A warning is given once if so.

    Args:
        measure_step: Returns the seconds of a training step with torch's current number of
            threads; by default those of a small model.
    """
    measure = measure_step or _measure_step
    num_threads = torch.get_num_threads()
    if num_threads == 1 or torch.cuda.is_available():
        yield
        return
    several_s = measure()
    torch.set_num_threads(1)
    slowdown = several_s / measure()
    try:
        if slowdown < _MAX_SLOWDOWN:
            torch.set_num_threads(num_threads)
        else:
            _warn_once(num_threads)
        yield
    finally:
        torch.set_num_threads(num_threads)


@cache
def _warn_once(num_threads: int) -> None:
    warn_user(
        f"{num_threads} CPU threads train far slower than one here (cores are busy or rationed, "
        "and OpenMP threads wait by spinning), so trials use one thread. To use all, set "
        "OMP_WAIT_POLICY=passive before Python starts"
    )


@seeded(0)
def _measure_step() -> float:
    """Mean seconds of a training step of a small model, after one step of warm-up."""
    model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
    inputs = torch.randn(64, 64)
    model(inputs).sum().backward()  # warm-up
    started = time.perf_counter()
    for _ in range(_STEPS):
        model(inputs).sum().backward()
    return (time.perf_counter() - started) / _STEPS
