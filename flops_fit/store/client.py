"""The MLflow client of a store, and the creation of its schema without a crash."""

from __future__ import annotations

import logging
import os
import sqlite3
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path

from mlflow.tracking import MlflowClient
from sqlalchemy import make_url

from flops_fit.errors import StoreError
from flops_fit.runtime.atomic_write import move_into_place
from flops_fit.store.faults import store_errors
from flops_fit.store.locks import one_at_a_time
from flops_fit.store.uri import sqlite_folder, without_credentials

_SERVER_TIMEOUT_S = 10.0
_SQLITE_LOCK_TIMEOUT_S = 60.0


@lru_cache(maxsize=8)
def client_of(uri: str) -> MlflowClient:
    """The client of a store, one per process; silences the log of migrations and drivers."""
    for name in ("mlflow.store.tracking", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # Its errors are raised too, and `store_errors` words them.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    # MLflow would print two lines for every run that ends.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    return MlflowClient(tracking_uri=uri)


@contextmanager
def exclusive(uri: str) -> Iterator[None]:
    """Check that a store can be used, and lock it: MLflow may create its schema in this block.

    Args:
        uri: The MLflow store.

    Raises:
        StoreError: The store cannot be used.
    """
    if uri.startswith("http"):
        _check_answers(uri)
    with store_errors(uri), one_at_a_time(uri, ".flops_fit.lock"):
        if uri.startswith("sqlite"):
            _check_opens(make_url(uri).database or "")
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


def _check_opens(file: str) -> None:
    """Read the header of a SQLite file; MLflow itself would retry for a minute."""
    if os.path.exists(file):
        with closing(sqlite3.connect(file, timeout=_SQLITE_LOCK_TIMEOUT_S)) as connection:
            connection.execute("PRAGMA schema_version")


def _create_sqlite_store(uri: str) -> None:
    """Create a missing SQLite file under another name and rename it when its schema is complete.

    A process killed in the middle of a migration would otherwise leave a file that MLflow can
    neither open nor repair.
    """
    file = Path(make_url(uri).database or "")
    if sqlite_folder(uri) is None or file.exists():
        return
    unfinished = file.with_name(f".{file.name}.half-made")
    for suffix in ("", "-journal", "-wal", "-shm"):  # of a process that was killed here before
        Path(f"{unfinished}{suffix}").unlink(missing_ok=True)
    client_of(f"sqlite:///{unfinished}").search_experiments()
    move_into_place(unfinished, file)
