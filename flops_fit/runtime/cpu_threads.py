"""CPU threads that help rather than hinder.

torch's OpenMP threads wait for each other by spinning. Where their cores are busy or rationed
(other processes, a container's quota) each then waits for one that is not running, and training is
10 to 100 times slower than on a single thread.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

import torch
from torch import nn

from flops_fit.errors import FlopsFitWarning
from flops_fit.runtime.rng import seeded

_FAR_SLOWER = 4.0  # small models run up to twice as slow on several threads of a healthy machine
_STEPS = 20


@contextmanager
def threads_that_help(seconds_a_step: Callable[[], float] | None = None) -> Iterator[None]:
    """Within, torch uses one CPU thread if all of them together are far slower; says so.

    Args:
        seconds_a_step: Measures a training step on torch's present threads.
    """
    measure = seconds_a_step or _seconds_a_step
    before = torch.get_num_threads()
    if before == 1 or torch.cuda.is_available():
        yield
        return
    together = measure()
    torch.set_num_threads(1)
    ratio = together / measure()
    try:
        if ratio < _FAR_SLOWER:
            torch.set_num_threads(before)
        else:
            _say_once(before)
        yield
    finally:
        torch.set_num_threads(before)


@cache
def _say_once(threads: int) -> None:
    warnings.warn(
        f"{threads} CPU threads train far slower than one here (cores are busy or rationed, and "
        "OpenMP's threads wait by spinning): trials use one. To use them all, set "
        "OMP_WAIT_POLICY=passive before Python starts",
        FlopsFitWarning,
        stacklevel=2,
    )


@seeded(0)
def _seconds_a_step() -> float:
    model = nn.Sequential(nn.Linear(64, 256), nn.GELU(), nn.Linear(256, 64))
    inputs = torch.randn(64, 64)
    model(inputs).sum().backward()
    started = time.perf_counter()
    for _ in range(_STEPS):
        model(inputs).sum().backward()
    return (time.perf_counter() - started) / _STEPS
