"""An MLflow server of a test's own, which can be killed and started again."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path


class Server:
    """An `mlflow server` on one port and one database, up or down."""

    def __init__(self, folder: Path, backend: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self._folder, self._backend = folder, backend
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, wait: bool = True) -> None:
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
        """Until it answers."""
        while not self._answers():
            assert self._process is not None
            assert self._process.poll() is None, self._log()
            time.sleep(0.1)

    def _log(self) -> str:
        return (self._folder / "server.log").read_text()[-3000:]

    def kill(self) -> None:
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
    """A server that is up, and down at the end."""
    server = Server(folder, backend or f"sqlite:///{folder}/mlflow.db")
    server.start()
    try:
        yield server
    finally:
        server.kill()
