"""MLflow as a process of ours: up when it answers, and gone when we are."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from textwrap import shorten

import psutil

from flops_fit.errors import ArgumentError, SweepError

STORE = "MLFLOW_BACKEND_STORE_URI"
_STOP_S = 10.0


@contextlib.contextmanager
def served(
    uri: str, host: str, port: int, *options: str, env: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Within, MLflow serves a store, and answers.

    Args:
        uri: The store. It may hold a password, so it is handed on where `ps` does not show it.
        host: Address to listen on.
        port: Port to listen on.
        options: More options of `mlflow server`.
        env: More of its environment.

    Raises:
        ArgumentError: The port is taken.
        SweepError: MLflow does not come up.
    """
    require_free(host, port, "--port")
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port)]
    command += ["--uvicorn-opts", "--log-level warning"]
    environment = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONWARNINGS": "ignore:starlette.middleware.wsgi",  # MLflow's own, a line a process
        **os.environ,
        STORE: uri,
        **(env or {}),
    }
    process = subprocess.Popen([*command, *options], env=environment, start_new_session=True)
    try:
        _wait_until_up(process, f"http://{_reached(host)}:{port}")
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
        with contextlib.suppress(ProcessLookupError):  # its own, where it was killed before them
            os.killpg(process.pid, signal.SIGKILL)


def ended(process: subprocess.Popen[bytes]) -> SweepError:
    """Wait for the end of a server that was to stay."""
    return SweepError(f"MLflow ended with exit code {process.wait()}; see its words above")


def require_free(host: str, port: int, option: str) -> None:
    """Refuse a port that something listens on.

    Raises:
        ArgumentError: Names the option to pass.
    """
    with socket.socket() as probe:
        if probe.connect_ex((_reached(host), port)) == 0:
            raise ArgumentError(f"port {port} is taken{_by(port)}; pass another {option}")


def _by(port: int) -> str:
    """Who listens there, as far as this user may know."""
    with contextlib.suppress(psutil.Error):
        for found in psutil.net_connections("tcp"):
            if (
                found.status == psutil.CONN_LISTEN
                and getattr(found.laddr, "port", 0) == port
                and found.pid
            ):
                command = " ".join(psutil.Process(found.pid).cmdline())
                return f" by process {found.pid} ({shorten(command, 100)})"
    return ""


def _reached(host: str) -> str:
    return "127.0.0.1" if host == "0.0.0.0" else host


def _wait_until_up(process: subprocess.Popen[bytes], address: str) -> None:
    while process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
            return
        time.sleep(0.2)
    raise ended(process)
