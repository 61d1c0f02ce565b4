"""Where the MLflow store is: its address, its client, and its coming up without a crash."""

from __future__ import annotations

import logging
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import mlflow
from filelock import FileLock
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from flops_fit.errors import ArgumentError, SweepError

_ANSWER_S = 10.0


def resolve_uri(tracking_uri: str | os.PathLike[str] | None = None) -> str:
    """The store to use: the argument, else MLflow's own setting, else `mlruns/mlflow.db` here."""
    if tracking_uri is not None:
        uri = check_uri(tracking_uri)
    elif mlflow.is_tracking_uri_set():
        uri = mlflow.get_tracking_uri()
    else:
        uri = f"sqlite:///{Path('mlruns/mlflow.db')}"
    if uri.startswith("sqlite:///"):
        path = Path(uri.removeprefix("sqlite:///")).absolute()
        return f"sqlite:///{path}"
    return uri


def check_uri(tracking_uri: object) -> str:
    """A tracking URI as text; the path of a `.db` file is taken as SQLite's.

    Raises:
        ArgumentError: If it is none, empty (an unset environment variable, often), or a mere path.
    """
    if not isinstance(tracking_uri, str | os.PathLike) or not str(tracking_uri).strip():
        raise ArgumentError(
            f"tracking_uri: expected an address as 'sqlite:///mlruns/mlflow.db' or "
            f"'http://host:5000', or None for the default; got {tracking_uri!r}"
        )
    uri = str(tracking_uri)
    if ":" in uri or uri.startswith("databricks"):
        return uri
    if uri.endswith(".db"):
        return f"sqlite:///{uri}"
    raise ArgumentError(
        f"tracking_uri: {uri!r} is no address; for a SQLite file there, pass "
        f"'sqlite:///{Path(uri) / 'mlflow.db'}'"
    )


def without_credentials(uri: str) -> str:
    """A URI that can be shown: user and password left out."""
    parts = urlsplit(uri)
    if "@" not in parts.netloc:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


@lru_cache(maxsize=8)
def client_of(uri: str) -> MlflowClient:
    """The client of a store, one a process; what migrations and drivers chat about is not shown."""
    for name in ("mlflow.store.db.utils", "mlflow.store.tracking", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # two lines a run
    return MlflowClient(tracking_uri=uri)


@contextmanager
def exclusive(uri: str) -> Iterator[None]:
    """One process at a time where the schema may have to be made (sqlite crashes otherwise)."""
    folder = sqlite_folder(uri)
    if uri.startswith("http"):
        _check_answers(uri)
    try:
        if folder is None:
            yield
            return
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".flops_fit.lock", timeout=120):
            yield
    except (MlflowException, OSError) as error:
        raise SweepError(
            f"the MLflow store {without_credentials(uri)} cannot be used: {error}"
        ) from error


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
        raise SweepError(
            f"the MLflow server {shown} does not answer ({reason}); start it, "
            "or pass another tracking_uri"
        ) from error


def sqlite_folder(uri: str) -> Path | None:
    """The folder of a sqlite store; None for a server."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///")).parent
