"""Where the MLflow store is: its address, its client, its coming up without a crash, its faults."""

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
from flops_fit.store.faults import store_errors
from flops_fit.store.locks import one_at_a_time
from flops_fit.store.uri import sqlite_folder, without_credentials

_ANSWER_S = 10.0


@lru_cache(maxsize=8)
def client_of(uri: str) -> MlflowClient:
    """The client of a store, one a process; what migrations and drivers chat about is not shown."""
    for name in ("mlflow.store.tracking", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # we tell its faults
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # two lines a run
    return MlflowClient(tracking_uri=uri)


@contextmanager
def exclusive(uri: str) -> Iterator[None]:
    """One process at a time where MLflow's schema may have to be made.

    Raises:
        StoreError: The store cannot be used.
    """
    if uri.startswith("http"):
        _check_answers(uri)
    with store_errors(uri), one_at_a_time(uri, ".flops_fit.lock"):
        if uri.startswith("sqlite"):
            _check_opens(make_url(uri).database or "")
            _make_whole(uri)
        yield


def _check_answers(uri: str) -> None:
    """Ask a server once: MLflow itself would try for minutes, without a word."""
    shown = without_credentials(uri).rstrip("/")
    try:
        urllib.request.urlopen(f"{shown}/health", timeout=_ANSWER_S).close()
    except urllib.error.HTTPError:
        return  # whatever it says, it is there
    except OSError as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):
            return  # there; MLflow has its own settings for certificates
        raise StoreError(
            f"the MLflow server {shown} does not answer ({reason}); start it, "
            "or pass another tracking_uri"
        ) from error


def _check_opens(file: str) -> None:
    """Read the head of a SQLite file: MLflow itself would try for a minute, without a word."""
    if os.path.exists(file):
        with closing(sqlite3.connect(file, timeout=60)) as connection:
            connection.execute("PRAGMA schema_version")


def _make_whole(uri: str) -> None:
    """Make a SQLite file that is not there aside, and rename it: one cut off could not be used."""
    file = Path(make_url(uri).database or "")
    if sqlite_folder(uri) is None or file.exists():
        return
    half = file.with_name(f".{file.name}.half-made")
    for left in ("", "-journal", "-wal", "-shm"):
        Path(f"{half}{left}").unlink(missing_ok=True)
    client_of(f"sqlite:///{half}").search_experiments()
    os.replace(half, file)
