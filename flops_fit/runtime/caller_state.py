"""The state of the process that belongs to the caller, left as it was by every public call.

The libraries that a sweep uses, the user's own functions and this package change settings that the
whole process shares. Each function below notes one kind of them, and returns a function that puts
it back. Libraries that are not imported have no state to keep, and are not imported for it.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import locale
import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, ParamSpec, TypeVar

from flops_fit.runtime.signals import stop_at_boundary

_P = ParamSpec("_P")
_T = TypeVar("_T")
_Restore = Callable[[], object]
# Getter and setter of torch's global settings.
_TORCH_SETTINGS = (
    ("get_default_dtype", "set_default_dtype"),
    ("get_num_threads", "set_num_threads"),
    ("get_float32_matmul_precision", "set_float32_matmul_precision"),
    ("is_grad_enabled", "set_grad_enabled"),
    ("is_anomaly_enabled", "set_anomaly_enabled"),
)
_CUDNN_SETTINGS = ("enabled", "benchmark", "deterministic", "allow_tf32")


def keeps_caller_state(function: Callable[_P, _T]) -> Callable[_P, _T]:
    """Decorate a public call: however it ends, the caller's state is as it was before."""

    @functools.wraps(function)
    def called(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        with caller_state_kept():
            return function(*args, **kwargs)

    return called


@contextmanager
def caller_state_kept() -> Iterator[None]:
    """Put back, at the end of this context, what it has changed of the state of the process.

    A second Ctrl-C must not leave half of it, so signals wait until all is put back.
    """
    with ExitStack() as restored, warnings.catch_warnings():
        for keep in _KEPT:
            restored.callback(keep())
        try:
            yield
        finally:
            with stop_at_boundary(patient=True) as stop:
                restored.close()
            if stop:
                raise stop.exception()


@contextmanager
def own_accelerate_state() -> Iterator[None]:
    """In this context Accelerate has no settings yet, whatever the caller made of it before.

    Its settings belong to the process: an `Accelerator` of the caller's would decide the precision,
    the device and the accumulation of our trials, and ours would decide theirs afterwards.
    """
    restore = _accelerate()
    for state in _accelerate_states():
        state.clear()
    try:
        yield
    finally:
        restore()


def _accelerate_states() -> list[dict[str, Any]]:
    """The dicts that all of Accelerate's state objects of a process share."""
    from accelerate.state import AcceleratorState, GradientState, PartialState

    return [kind._shared_state for kind in (AcceleratorState, GradientState, PartialState)]


def _environment() -> _Restore:
    before = dict(os.environ)

    def restore() -> None:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        for name, value in before.items():
            if os.environ.get(name) != value:
                os.environ[name] = value

    return restore


def _folder() -> _Restore:
    before = os.getcwd()

    def restore() -> None:
        with contextlib.suppress(OSError):  # it was deleted
            if os.getcwd() == before:
                return
        with contextlib.suppress(OSError):
            os.chdir(before)

    return restore


def _logging() -> _Restore:
    """Levels and handlers of the loggers that exist; a library imported later brings its own."""
    known = [logging.root, *logging.root.manager.loggerDict.values()]
    before = [
        (logger, logger.level, logger.handlers[:], logger.filters[:], logger.propagate)
        for logger in known
        if isinstance(logger, logging.Logger)
    ]
    disabled = logging.root.manager.disable

    def restore() -> None:
        for logger, level, handlers, filters, propagate in before:
            logger.handlers[:], logger.filters[:] = handlers, filters
            logger.propagate = propagate
            if logger.level != level:
                logger.setLevel(level)
        if logging.root.manager.disable != disabled:
            logging.disable(disabled)

    return restore


def _signals() -> _Restore:
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)

    return restore


def _garbage_collector() -> _Restore:
    enabled, thresholds = gc.isenabled(), gc.get_threshold()

    def restore() -> None:
        (gc.enable if enabled else gc.disable)()
        gc.set_threshold(*thresholds)

    return restore


def _locale() -> _Restore:
    before = locale.setlocale(locale.LC_ALL)
    return lambda: locale.setlocale(locale.LC_ALL, before)


def _random() -> _Restore:
    """Python's, NumPy's and torch's generators, and NumPy's handling of overflow."""
    restores: list[_Restore] = [partial(random.setstate, random.getstate())]
    if numpy := sys.modules.get("numpy"):
        restores.append(partial(numpy.random.set_state, numpy.random.get_state()))
        restores.append(partial(numpy.seterr, **numpy.geterr()))
    if torch := sys.modules.get("torch"):
        restores.append(partial(torch.set_rng_state, torch.get_rng_state()))
        restores.append(_cuda_random(torch))
    return lambda: [restore() for restore in restores]


def _cuda_random(torch: Any) -> _Restore:
    """CUDA's generators; they start from torch's seed when CUDA is first used."""
    if torch.cuda.is_initialized():
        before = torch.cuda.get_rng_state_all()
        return lambda: torch.cuda.set_rng_state_all(before)
    seed = torch.initial_seed()
    return lambda: torch.cuda.is_available() and torch.cuda.manual_seed_all(seed)


def _torch() -> _Restore:
    torch = sys.modules.get("torch")
    if torch is None:
        return lambda: None
    settings = {setter: getattr(torch, getter)() for getter, setter in _TORCH_SETTINGS}
    cudnn = {name: getattr(torch.backends.cudnn, name) for name in _CUDNN_SETTINGS}
    determinism = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    device = torch.cuda.current_device() if torch.cuda.is_initialized() else None

    def restore() -> None:
        for setter, value in settings.items():
            getattr(torch, setter)(value)
        for name, value in cudnn.items():
            setattr(torch.backends.cudnn, name, value)
        torch.use_deterministic_algorithms(determinism[0], warn_only=determinism[1])
        if device is not None:
            torch.cuda.set_device(device)

    return restore


def _matplotlib() -> _Restore:
    """The settings of plots; the backend is left alone, since changing it closes figures."""
    matplotlib: Any = sys.modules.get("matplotlib")
    if matplotlib is None:
        return lambda: None
    before = dict.copy(matplotlib.rcParams)

    def restore() -> None:
        changed = [name for name in before if dict.get(matplotlib.rcParams, name) != before[name]]
        for name in changed:
            dict.__setitem__(matplotlib.rcParams, name, before[name])

    return restore


def _accelerate() -> _Restore:
    """Accelerate's settings, which each `Accelerator` of the process reads and may change."""
    if "accelerate" not in sys.modules:
        return lambda: None
    before = [dict(state) for state in _accelerate_states()]

    def restore() -> None:
        # In place: the caller's objects hold these very dicts.
        for state, values in zip(_accelerate_states(), before, strict=True):
            state.clear()
            state.update(values)

    return restore


_KEPT = (
    _environment,
    _folder,
    _logging,
    _signals,
    _garbage_collector,
    _locale,
    _random,
    _torch,
    _matplotlib,
    _accelerate,
)
