"""MLflow as a child process: ready when it answers, ended when the caller ends."""

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
    """Serve a store with MLflow; the block runs once MLflow answers.

    Args:
        uri: The store. It may hold a password, so it is passed in the environment: `ps` shows
            command lines.
        host: Address to listen on.
        port: Port to listen on.
        options: Further options of `mlflow server`.
        env: Further environment variables.

    Raises:
        ArgumentError: The port is taken.
        SweepError: MLflow does not start.
    """
    require_free(host, port, "--port")
    command = [sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port)]
    command += ["--uvicorn-opts", "--log-level warning"]
    environment = {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "PYTHONWARNINGS": "ignore:starlette.middleware.wsgi",  # of MLflow itself, once per process
        **os.environ,
        STORE: uri,
        **(env or {}),
    }
    # A session of its own: Ctrl-C reaches only us, and its workers can be ended as one group.
    process = subprocess.Popen([*command, *options], env=environment, start_new_session=True)
    try:
        _wait_until_up(process, f"http://{_client_host(host)}:{port}")
        yield process
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
        # Its workers, in case MLflow was killed before it could stop them.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def ended(process: subprocess.Popen[bytes]) -> SweepError:
    """Wait for the server to end; the error that reports it."""
    return SweepError(f"MLflow ended with exit code {process.wait()}; see its output above")


def require_free(host: str, port: int, option: str) -> None:
    """Raise if another process listens on a port.

    Raises:
        ArgumentError: The port is taken; names the option to pass.
    """
    with socket.socket() as probe:
        if probe.connect_ex((_client_host(host), port)) == 0:  # somebody answers
            raise ArgumentError(f"port {port} is taken{_owner(port)}; pass another {option}")


def _owner(port: int) -> str:
    """The process that listens on a port, as far as this user may see."""
    # Other users' processes may be hidden from us.
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


def _client_host(host: str) -> str:
    """The address at which a local client reaches a server that listens on `host`."""
    return "127.0.0.1" if host == "0.0.0.0" else host


def _wait_until_up(process: subprocess.Popen[bytes], address: str) -> None:
    """Wait until MLflow answers; raise if it ends before."""
    while process.poll() is None:
        with contextlib.suppress(urllib.error.URLError, OSError):
            urllib.request.urlopen(f"{address}/health", timeout=5).close()
            return
        time.sleep(0.2)
    raise ended(process)
