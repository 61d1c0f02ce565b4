"""An MLflow server of a test's own, which can be killed and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from processes import wait_until


class Server:
    """An `mlflow server` on one port and one database, up or down."""

    def __init__(self, folder: Path, backend: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._folder = folder
        self._backend = backend
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, wait: bool = True) -> None:
        """Start the server; wait until it answers, unless told otherwise."""
        with open(self._folder / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", self._backend,
                 "--artifacts-destination", self._folder / "artifacts",
                 "--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"],
                stdout=log, stderr=log, start_new_session=True,
                env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            )  # fmt: skip
        if wait:
            self.wait()

    def wait(self) -> None:
        """Wait until it answers; fails if it ends, or is stuck."""
        process = self._process
        assert process is not None

        def is_up() -> bool:
            assert process.poll() is None, self._log()
            return self._answers()

        wait_until(is_up, process)

    def _log(self) -> str:
        return (self._folder / "server.log").read_text()[-3000:]

    def kill(self) -> None:
        """Kill it with its workers; does nothing if it is down."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.uri}/health", timeout=5).close()
        except OSError:
            return False
        return True


@contextlib.contextmanager
def served(folder: Path, backend: str | None = None) -> Iterator[Server]:
    """A server that is up, and down at the end whatever happens."""
    server = Server(folder, backend or f"sqlite:///{folder}/mlflow.db")
    try:
        server.start()
        yield server
    finally:
        server.kill()
