"""CUDA's Multi-Process Service, by which kernels of several processes run on a GPU at once.

Without it their kernels take turns, which still hides what each process does on its CPU core. The
service of the machine is used if there is one; else one of our own is started, which ends with this
process, however that ends. It is tried before any worker relies on it: where the service does not
work, a process would find no GPU at all.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flops_fit.runtime.polling import NotYetError, poll
from flops_fit.sweep.devices.device import Packing

CONTROL = "nvidia-cuda-mps-control"
_PIPES = "CUDA_MPS_PIPE_DIRECTORY"
_LOGS = "CUDA_MPS_LOG_DIRECTORY"
_START_S = 10.0
_ANSWER_S = 10.0
_STOP_S = 20.0
# The daemon ends when our end of the pipe is closed, as it is if we are killed.
_UNTIL_PIPE_CLOSES = """
"$1" -f & child=$!
cat
echo quit -t 5 | "$1"
kill "$child"
wait "$child"
"""
# A context on the first device, by the driver alone: importing torch would take seconds.
_TRIAL_OF_SERVICE = """
import ctypes, sys
cuda = ctypes.CDLL("libcuda.so.1")
device, context = ctypes.c_int(), ctypes.c_void_p()
sys.exit(
    cuda.cuInit(0)
    or cuda.cuDeviceGet(ctypes.byref(device), 0)
    or cuda.cuCtxCreate_v2(ctypes.byref(context), 0, device)
)
"""


@contextmanager
def devices_shared(packing: Packing | None) -> Iterator[list[str]]:
    """Let workers that are started in this context share GPUs, if they are to.

    Yields:
        Lines about it for the user.
    """
    if packing is None:
        yield []
        return
    with multi_process_service() as problem:
        how = f"their kernels take turns, without CUDA MPS: {problem}" if problem else "by CUDA MPS"
        yield [f"{packing.per_device} workers share each GPU ({how})"]


@contextmanager
def multi_process_service() -> Iterator[str]:
    """Let processes that are started in this context share GPUs by CUDA MPS, if it runs here.

    Yields:
        Why it is not used; empty if it is.
    """
    control = shutil.which(CONTROL)
    if control is None:
        yield f"{CONTROL} is not installed"
        return
    with ExitStack() as started:
        environment = dict(os.environ)
        problem = ""
        if not _answers(control, environment):
            folder = Path(
                started.enter_context(tempfile.TemporaryDirectory(prefix="flops-fit-mps-"))
            )
            environment |= {_PIPES: str(folder / "pipes"), _LOGS: str(folder / "logs")}
            problem = started.enter_context(_own_service(control, environment))
        problem = problem or _try_out(environment)
        before = os.environ.get(_PIPES)
        if not problem and _PIPES in environment:
            os.environ[_PIPES] = environment[_PIPES]
        try:
            yield problem
        finally:
            if before is None:
                os.environ.pop(_PIPES, None)
            else:
                os.environ[_PIPES] = before


@contextmanager
def _own_service(control: str, environment: dict[str, str]) -> Iterator[str]:
    """Run a daemon in this context; yields why it does not answer, empty if it does."""
    for name in (_PIPES, _LOGS):
        Path(environment[name]).mkdir()
    # All GPUs, under their own numbers: else those that this process sees would be counted anew.
    environment = {k: v for k, v in environment.items() if k != "CUDA_VISIBLE_DEVICES"}
    process = subprocess.Popen(
        ["sh", "-c", _UNTIL_PIPE_CLOSES, "sh", control],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
    )

    def check() -> None:
        if not _answers(control, environment):
            raise NotYetError("its daemon does not answer")

    try:
        try:
            poll(
                check,
                is_temporary=lambda error: isinstance(error, NotYetError),
                timeout_s=_START_S,
                pause_s=0.1,
                report=lambda error: None,
            )
            problem = ""
        except NotYetError as error:
            problem = str(error)
        yield problem
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _answers(control: str, environment: dict[str, str]) -> bool:
    """Whether a daemon takes commands."""
    try:
        done = subprocess.run(
            [control], input=b"get_server_list\n", capture_output=True,
            env=environment, timeout=_ANSWER_S, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _try_out(environment: dict[str, str]) -> str:
    """Why a process cannot use a GPU through the service; empty if it can."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _TRIAL_OF_SERVICE],
            capture_output=True, env=environment, timeout=6 * _ANSWER_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "its server does not answer"
    return "" if done.returncode == 0 else f"its server refuses (CUDA error {done.returncode})"
