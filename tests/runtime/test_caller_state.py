"""Whatever a call changes of the process's state is put back, however the call ends."""

import gc
import locale
import logging
import os
import random
import signal
import warnings

import matplotlib as mpl
import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

from flops_fit.runtime.caller_state import (
    caller_state_kept,
    keeps_caller_state,
    own_accelerate_state,
)

STATES = (AcceleratorState, GradientState, PartialState)


@pytest.fixture
def no_accelerator():
    """Accelerate as it is in a fresh process."""
    for state in STATES:
        state._shared_state.clear()
    yield
    for state in STATES:
        state._shared_state.clear()


def accelerate():
    for state in STATES:
        state._shared_state.clear()
    Accelerator(cpu=True)


OPTUNA, MLFLOW = logging.getLogger("optuna"), logging.getLogger("mlflow")


def set_in(holder, name, value):
    return lambda: setattr(holder, name, value)


# By kind: a function that reads the state, and one that changes it.
KINDS = {
    "environment, added": (lambda: os.environ.get("FF_NEW"), lambda: os.environ.update(FF_NEW="1")),
    "environment, changed": (lambda: os.environ["PATH"], lambda: os.environ.update(PATH="x")),
    "environment, removed": (lambda: "PATH" in os.environ, lambda: os.environ.pop("PATH")),
    "folder": (os.getcwd, lambda: os.chdir("/")),
    "log level": (lambda: OPTUNA.level, lambda: OPTUNA.setLevel(7)),
    "root's handlers": (
        lambda: logging.root.handlers[:],
        lambda: logging.root.addHandler(logging.NullHandler()),
    ),
    "propagation": (lambda: MLFLOW.propagate, set_in(MLFLOW, "propagate", None)),
    "logging as a whole": (lambda: logging.root.manager.disable, lambda: logging.disable(60)),
    "warnings": (lambda: warnings.filters[:], lambda: warnings.simplefilter("ignore")),
    "SIGTERM": (
        lambda: signal.getsignal(signal.SIGTERM),
        lambda: signal.signal(signal.SIGTERM, signal.SIG_IGN),
    ),
    "SIGINT": (
        lambda: signal.getsignal(signal.SIGINT),
        lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    ),
    "garbage collector": (gc.isenabled, gc.disable),
    "its thresholds": (gc.get_threshold, lambda: gc.set_threshold(1000, 99, 99)),
    "locale": (
        lambda: locale.setlocale(locale.LC_NUMERIC),
        lambda: locale.setlocale(locale.LC_NUMERIC, "C.UTF-8"),
    ),
    "random": (random.getstate, random.random),
    "NumPy's random": (lambda: str(np.random.get_state()), np.random.random),
    "NumPy's errors": (np.geterr, lambda: np.seterr(over="raise")),
    "torch's random": (lambda: torch.get_rng_state().tolist(), lambda: torch.manual_seed(5)),
    "dtype": (torch.get_default_dtype, lambda: torch.set_default_dtype(torch.float64)),
    "threads": (torch.get_num_threads, lambda: torch.set_num_threads(torch.get_num_threads() + 1)),
    "determinism": (
        torch.are_deterministic_algorithms_enabled,
        lambda: torch.use_deterministic_algorithms(True),
    ),
    "gradients": (torch.is_grad_enabled, lambda: torch.set_grad_enabled(False)),
    "matmul": (
        torch.get_float32_matmul_precision,
        lambda: torch.set_float32_matmul_precision("medium"),
    ),
    "cudnn": (
        lambda: torch.backends.cudnn.benchmark,
        set_in(torch.backends.cudnn, "benchmark", True),
    ),
    "plots": (lambda: mpl.rcParams["font.size"], lambda: mpl.rcParams.update({"font.size": 31})),
    "Accelerate": (lambda: [dict(s._shared_state) for s in STATES], accelerate),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("end", [None, ValueError, KeyboardInterrupt, SystemExit])
def test_each_kind_is_put_back(kind, end, no_accelerator):
    read, change = KINDS[kind]
    before = read()

    @keeps_caller_state
    def call():
        change()
        assert read() != before
        if end:
            raise end

    if end:
        with pytest.raises(end):
            call()
    else:
        call()
    assert read() == before


def test_ctrl_c_while_it_is_put_back_waits(monkeypatch):
    restored = []

    def keep():
        return lambda: (signal.raise_signal(signal.SIGINT), restored.append(1))

    monkeypatch.setattr("flops_fit.runtime.caller_state._KEPT", (keep, keep))
    with pytest.raises(KeyboardInterrupt), caller_state_kept():
        pass
    assert restored == [1, 1]


def test_a_folder_that_is_gone_meanwhile_is_no_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with caller_state_kept():
        tmp_path.rmdir()


def test_trials_have_an_accelerate_of_their_own(no_accelerator):
    mine = Accelerator(cpu=True, mixed_precision="bf16", gradient_accumulation_steps=4)
    with own_accelerate_state():
        theirs = Accelerator(cpu=True, mixed_precision="no")
        assert (theirs.mixed_precision, theirs.gradient_accumulation_steps) == ("no", 1)
    assert (mine.mixed_precision, mine.gradient_accumulation_steps) == ("bf16", 4)
    assert Accelerator(mixed_precision="bf16").state.mixed_precision == "bf16"


def test_in_mid_accumulation_too(no_accelerator):
    mine = Accelerator(cpu=True, gradient_accumulation_steps=4)
    mine.gradient_state._set_sync_gradients(False)
    with own_accelerate_state():
        assert GradientState().sync_gradients
    assert not mine.sync_gradients


def test_where_there_was_none_there_is_none_after(no_accelerator):
    with own_accelerate_state():
        Accelerator(cpu=True, mixed_precision="bf16")
    Accelerator(cpu=True, mixed_precision="no")  # refused if another precision were set
