"""The MLflow client of a store, and the creation of its schema without a crash."""

from __future__ import annotations

import os
import sqlite3
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.tracking import MlflowClient
from mlflow.tracking._tracking_service.utils import _tracking_store_registry

from flops_fit.errors import StoreError
from flops_fit.runtime.atomic_write import move_into_place
from flops_fit.runtime.signals import stop_at_boundary
from flops_fit.store.faults import store_errors
from flops_fit.store.locks import one_at_a_time
from flops_fit.store.quiet import quieten
from flops_fit.store.uri import sqlite_file, sqlite_folder, sqlite_url, without_credentials

_SERVER_TIMEOUT_S = 10.0
_SQLITE_LOCK_TIMEOUT_S = 60.0


# By URI: the client, and which file its open connections belong to.
_CLIENTS: dict[str, tuple[MlflowClient, tuple[int, int] | None]] = {}


def client_of(uri: str) -> MlflowClient:
    """The client of a store, one per process and file.

    MLflow keeps a store and its connections for as long as the process lives. Where another file
    has taken the place of a SQLite file, they are dropped. Where there is none, they are kept: a
    sweep whose store was deleted must fail rather than write to an empty one.
    """
    identity = _identity(uri)
    known = _CLIENTS.get(uri)
    if known and identity in (known[1], None):
        return known[0]
    if known:
        _drop(uri)
    client = MlflowClient(tracking_uri=uri)
    _CLIENTS[uri] = (client, identity)
    return client


def _identity(uri: str) -> tuple[int, int] | None:
    """Device and inode of a SQLite file; None for a server, and where there is no file."""
    if sqlite_folder(uri) is None:
        return None
    try:
        status = os.stat(sqlite_file(uri))
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _drop(uri: str) -> None:
    """Forget a store, here and in MLflow, and close its connections."""
    _CLIENTS.pop(uri, None)
    _tracking_store_registry._get_store_with_resolved_uri.cache_clear()
    engine = SqlAlchemyStore._engine_map.pop(uri, None)
    if engine is not None:
        engine.dispose()


@contextmanager
def exclusive(uri: str) -> Iterator[None]:
    """Check that a store can be used, and lock it: MLflow may create its schema in this block.

    Args:
        uri: The MLflow store.

    Raises:
        StoreError: The store cannot be used.
    """
    quieten()
    if uri.startswith("http"):
        _check_answers(uri)
    with store_errors(uri), one_at_a_time(uri, ".flops_fit.lock"):
        if sqlite_folder(uri) is not None:
            _check_opens(sqlite_file(uri))
            _create_sqlite_store(uri)
        yield


def _check_answers(uri: str) -> None:
    """Ask a server once; MLflow itself would retry for minutes without a message."""
    shown = without_credentials(uri).rstrip("/")
    try:
        urllib.request.urlopen(f"{shown}/health", timeout=_SERVER_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return  # any HTTP answer, also a refusal, shows that a server is there
    except OSError as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):
            return  # it is there; MLflow has settings of its own for certificates
        raise StoreError(
            f"the MLflow server {shown} does not answer ({reason}); start it, "
            "or pass another tracking_uri"
        ) from error


def _check_opens(file: Path) -> None:
    """Read the header of a SQLite file; MLflow itself would retry for a minute."""
    if file.exists():
        with closing(sqlite3.connect(file, timeout=_SQLITE_LOCK_TIMEOUT_S)) as connection:
            connection.execute("PRAGMA schema_version")


def _create_sqlite_store(uri: str) -> None:
    """Create a missing SQLite file under another name and rename it when its schema is complete.

    A process killed in the middle of a migration would otherwise leave a file that MLflow can
    neither open nor repair. Ctrl-C waits until the schema is complete, which takes seconds.
    """
    file = sqlite_file(uri)
    if file.exists():
        return
    unfinished = file.with_name(f".{file.name}.half-made")
    url = sqlite_url(unfinished)
    _drop(uri)  # of a file that was deleted
    for suffix in ("", "-journal", "-wal", "-shm"):  # of a process that was killed here before
        Path(f"{unfinished}{suffix}").unlink(missing_ok=True)
    with stop_at_boundary() as stop:
        try:
            client_of(url).search_experiments()
        finally:
            _drop(url)
        move_into_place(unfinished, file)
    if stop:
        raise stop.exception()
