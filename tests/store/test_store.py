"""The store: its address, its credentials, and the errors when it does not answer."""

import http.server
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from flops_fit import store, tracking
from flops_fit.errors import ArgumentError, StoreError, SweepError
from flops_fit.store import client, locks, retry
from flops_fit.sweep.execution.trial_queue import open_study


def test_the_default_store_and_its_overrides(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert store.resolve_uri() == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/other.db")
    assert store.resolve_uri() == f"sqlite:///{tmp_path}/other.db"
    assert store.resolve_uri("http://host:5000") == "http://host:5000"


def test_a_store_deleted_under_its_user_is_called_that(tmp_path):
    error = sqlite3.OperationalError("attempt to write a readonly database")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    told = str(store.store_error(uri, error))
    assert "its file was deleted: restore it from a backup, then call again" in told
    (tmp_path / "mlflow.db").touch()
    assert "make sure that it can be written" in str(store.store_error(uri, error))


def test_credentials_are_not_shown():
    shown = store.without_credentials("postgresql://me:secret@db:5432/x?y=1")
    assert shown == "postgresql://db:5432/x?y=1"
    assert store.without_credentials("https://token@host/x") == "https://host/x"
    for harmless in ("sqlite:////a/b.db", "postgresql://optuna@db/optuna"):
        assert store.without_credentials(harmless) == harmless


@pytest.mark.slow
def test_a_fresh_store_comes_up_for_several_processes_at_once(tmp_path, start):
    """Also where one was killed before, as it made the schema."""
    (tmp_path / ".mlflow.db.half-made").write_text("a part of a schema")
    (tmp_path / ".mlflow.db.half-made-journal").write_text("what would undo it")
    code = (
        "import sys; from flops_fit import tracking; "
        "print(tracking.open_ledger('x', 'sqlite:///' + sys.argv[1] + '/mlflow.db').parent_run_id)"
    )
    command = [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)]
    parents = set()
    for process in [start(*command, stdout=subprocess.PIPE) for _ in range(3)]:
        errors = process.finish()
        with process.stdout:
            parents.add(process.stdout.read().strip())
        assert process.returncode == 0, errors
    assert len(parents) == 1
    assert {file.name for file in tmp_path.iterdir()} == {".flops_fit.lock", "mlflow.db"}
    shutil.rmtree(tmp_path)


def test_a_schema_that_is_not_whole_never_takes_its_name(tmp_path, monkeypatch):
    def killed(uri):
        Path(uri.removeprefix("sqlite:///")).write_text("a part of a schema")
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "client_of", killed)
    with pytest.raises(KeyboardInterrupt), store.exclusive(f"sqlite:///{tmp_path}/mlflow.db"):
        pass
    assert not (tmp_path / "mlflow.db").exists()


def test_a_store_that_may_only_be_read_is_read(empty_store, monkeypatch):
    access = os.access

    def none_here(path, mode):
        # MLflow looks at files of its own too.
        return not str(path).startswith(str(empty_store)) and access(path, mode)

    monkeypatch.setattr(os, "access", none_here)
    monkeypatch.setattr(locks, "FileLock", None)
    assert tracking.list_ledgers(f"sqlite:///{empty_store}/mlflow.db") == []


@pytest.mark.parametrize("uri", ["", "  ", 3])
def test_an_empty_address_is_refused_rather_than_left_to_mlflow(uri):
    with pytest.raises(ArgumentError, match="tracking_uri: expected an address"):
        store.resolve_uri(uri)


def test_a_server_that_does_not_answer_is_said_at_once():
    with socket.socket() as taken:  # bound, not listening
        taken.bind(("127.0.0.1", 0))
        uri = f"http://me:secret@127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            SweepError, match=r"does not answer .*refused.*start it, or pass"
        ) as caught:
            store.exclusive(uri).__enter__()
    assert "secret" not in str(caught.value)


def test_a_server_without_a_health_page_is_there_all_the_same():
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.handle_request).start()
        with store.exclusive(f"http://me:secret@127.0.0.1:{server.server_port}"):
            pass


@pytest.fixture
def asked(monkeypatch):
    """A function that answers after some faults, and the times that it was asked."""
    monkeypatch.setattr(retry, "_PAUSE_S", 0.0)
    times = []

    def after(*faults):
        def ask():
            times.append(len(times))
            if len(times) <= len(faults):
                raise faults[len(times) - 1]
            return "an answer"

        return ask

    return after, times


def test_a_server_that_is_away_for_a_moment_is_asked_again(asked, caplog):
    after, times = asked
    assert (
        store.wait_for_store(after(StoreError("it is away"), StoreError("still")), 60)
        == "an answer"
    )
    assert len(times) == 3
    assert caplog.messages == ["it is away. Waiting for it, 60 s at most"]


@pytest.mark.parametrize(
    ("fault", "seconds"), [(StoreError("no", refused=True), 60), (StoreError("no"), -1)]
)
def test_a_server_that_declines_or_stays_away_is_not(asked, fault, seconds):
    after, times = asked
    with pytest.raises(StoreError, match=r"^no$"):
        store.wait_for_store(after(fault), seconds)
    assert len(times) == 1


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (Path.mkdir, r"unable to open .*; make sure that it can be written"),
        (lambda file: file.write_text("prose" * 100), "not a database; restore it from a backup"),
    ],
)
def test_a_file_that_is_no_database_is_said_at_once(tmp_path, make, words):
    make(tmp_path / "mlflow.db")
    with (
        pytest.raises(StoreError, match=words),
        store.exclusive(f"sqlite:///{tmp_path}/mlflow.db"),
    ):
        pytest.fail("MLflow would try for a minute")


def test_a_database_whose_driver_is_not_installed_is_one_line():
    with pytest.raises(
        StoreError, match=r"mysql://host/x cannot .*; install the database's driver"
    ):
        open_study("a", "mysql://user:secret@host/x")
