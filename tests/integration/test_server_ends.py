"""What `flops-fit server` and `ui` do about an MLflow that dies; processes stand in its place."""

import contextlib
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest

from flops_fit.cli.servers import mlflow_server, postgres_and_mlflow, ui
from flops_fit.errors import SweepError


def gone(pid: int) -> bool:
    """Whether a process has ended within some seconds."""
    for _ in range(100):
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.05)
                continue
        return True
    return False


@contextlib.contextmanager
def dying(*_, **__):
    """In place of MLflow a process that kills itself."""
    yield subprocess.Popen([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"])


def test_a_dead_mlflow_ends_the_server_with_an_error(monkeypatch, tmp_path):
    monkeypatch.setattr(postgres_and_mlflow, "_postgres", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(postgres_and_mlflow, "served", dying)
    with pytest.raises(SweepError, match="MLflow ended with exit code -9"):
        postgres_and_mlflow.serve(tmp_path, "127.0.0.1", 5000, 5432)


def test_a_dead_mlflow_ends_its_pages_with_an_error(monkeypatch):
    ledger = SimpleNamespace(name="tiny", tracking_uri="sqlite:///mlflow.db", page="#/1")
    monkeypatch.setattr(ui, "list_ledgers", lambda _: [ledger])
    monkeypatch.setattr(ui, "served", dying)
    with pytest.raises(SweepError, match="MLflow ended with exit code -9"):
        ui.serve(None, None, 5000)


def test_what_a_killed_mlflow_started_ends_with_it(monkeypatch, tmp_path):
    started = tmp_path / "started"
    python = tmp_path / "python"
    python.write_text(
        f"#!/bin/sh\nsleep 60 &\necho $! > {started}.tmp\nmv {started}.tmp {started}\nwait\n"
    )
    python.chmod(0o700)

    def wait_until_up(*_):
        while not started.exists():
            time.sleep(0.01)

    monkeypatch.setattr(mlflow_server.sys, "executable", str(python))
    monkeypatch.setattr(mlflow_server, "_wait_until_up", wait_until_up)
    with mlflow_server.served("sqlite://", "127.0.0.1", 1) as process:
        child = int(started.read_text())
        process.kill()
        assert process.wait() == -9
        assert psutil.pid_exists(child)
    assert gone(child)


@pytest.mark.parametrize("word", ["mlflow", "mlflow.server.fastapi_app:app"])
def test_what_a_killed_server_left_is_ended(word, tmp_path):
    env = {"PGPASSFILE": str(tmp_path / "pgpass"), mlflow_server.STORE: "postgresql://mlflow@h/m"}
    command = [sys.executable, "-c", "import time; print(flush=True); time.sleep(60)", word]
    mine, other = (
        subprocess.Popen(command, env={**os.environ, **its}, stdout=subprocess.PIPE)
        for its in (env, {**env, "PGPASSFILE": "another"})
    )
    with mine, other:
        assert mine.stdout.readline()
        assert other.stdout.readline()
        postgres_and_mlflow._end_leftover(env)
        assert gone(mine.pid)
        assert other.poll() is None
        other.kill()
