"""Where the MLflow store is: its address, its client, its coming up without a crash, its faults."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit, urlunsplit

import mlflow
import mlflow.environment_variables as settings
from filelock import FileLock
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy import NullPool, create_engine, make_url, text
from sqlalchemy.exc import SQLAlchemyError

from flops_fit.errors import ArgumentError, StoreError

_T = TypeVar("_T")
_LOG = logging.getLogger("flops_fit")
_ANSWER_S = 10.0
_PAUSE_S = 1.0
_SECRET = re.compile(r"((?:^|&)[^=&]*(?:pass|secret|token)[^=&]*=)([^&]+)", re.IGNORECASE)
_REFUSALS = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "INVALID_STATE")
_ADVICE = (
    (("disk is full", "No space left"), "free some space"),
    (("readonly", "Permission denied", "unable to open"), "see to it that it can be written"),
    (("is locked",), "see which other program holds it"),
    (("DB access module", "No module named"), "install the database's driver"),
    (
        ("malformed", "not a database", "corrupt", "_alembic_tmp"),
        "bring it back from a copy, or use another",
    ),
)


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
    """A URI that can be shown: user and password left out, and what is secret in its query.

    PostgreSQL's user is kept where the password lies elsewhere (`PGPASSFILE`).
    """
    parts = urlsplit(uri)
    query = _SECRET.sub(r"\1***", parts.query)
    user_alone = uri.startswith("postgresql") and not parts.password
    if ("@" not in parts.netloc or user_alone) and query == parts.query:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query))


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
    with told_faults(uri), one_at_a_time(uri, ".flops_fit.lock"):
        if uri.startswith("sqlite"):
            _check_opens(make_url(uri).database or "")
            _make_whole(uri)
        yield


@contextmanager
def one_at_a_time(uri: str, lock: str) -> Iterator[None]:
    """Within, no other process makes a schema there: by a file's lock, or by the database's own.

    Opened by several at once, a fresh database would crash in the midst of its migration.
    """
    folder = sqlite_folder(uri)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):  # another's store: it can be read, and no schema made
            yield
            return
        with FileLock(folder / lock, timeout=120, mode=0o600):
            yield
    elif uri.startswith("postgresql"):
        engine = create_engine(uri, poolclass=NullPool)
        with engine.connect() as connection:  # whose end lets the lock go
            connection.execute(text("SELECT pg_advisory_lock(hashtext(:lock))"), {"lock": lock})
            yield
    else:
        yield


@contextmanager
def told_faults(uri: str, kind: str = "MLflow store") -> Iterator[None]:
    """Within, what a store's libraries and the disk raise comes out as a StoreError.

    Raises:
        StoreError: Says what is wrong and what to do; holds no credentials.
    """
    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError) as error:
        told = store_error(uri, error, kind)
        if without_credentials(uri) == uri:
            raise told from error
        raise told from None  # what the libraries say may hold the password


def store_error(uri: str, error: Exception, kind: str = "MLflow store") -> StoreError:
    """An error of a store's libraries in our words."""
    shown = without_credentials(uri)
    reason = _without_secrets(_first_words(error), uri)
    refused = isinstance(error, MlflowException) and error.error_code in _REFUSALS
    advice = "start the server" if uri.startswith("http") else "see to it"
    for words, what in _ADVICE:
        if any(word in reason for word in words):
            advice = what
    file = make_url(uri).database if sqlite_folder(uri) is not None else None
    if file and "readonly" in reason and not os.path.exists(file):  # as SQLite calls that
        advice = "its file was deleted: bring it back from a copy"
    return StoreError(
        f"the {kind} {shown} cannot be used: {reason[:500]}; {advice}, then call again: what has "
        "finished is kept",
        refused,
    )


def _first_words(error: Exception) -> str:
    database = getattr(error.__cause__ or error, "orig", None)  # SQLAlchemy adds its statement
    words = str(database or error).strip().partition("\n")[0]
    if words.startswith("API request to "):  # a connection's fault, told with all its layers
        cause = words.rpartition("Caused by ")[2].rpartition(": ")[2].strip(" ()'\"")
        return f"no answer ({cause})"
    return words


def _without_secrets(words: str, uri: str) -> str:
    parts = urlsplit(uri)
    secrets = [parts.password or "", *(found[1] for found in _SECRET.findall(parts.query))]
    for secret in filter(None, secrets):
        words = words.replace(secret, "***").replace(unquote(secret), "***")
    return words


@contextmanager
def prompt_faults() -> Iterator[None]:
    """Within, a server that is away is a fault at once: whoever calls has its own patience.

    Left alone MLflow tries for four minutes. What the user has set in the environment holds.
    """
    wanted = {
        settings.MLFLOW_HTTP_REQUEST_MAX_RETRIES.name: "0",
        settings.MLFLOW_HTTP_REQUEST_TIMEOUT.name: "30",
    }
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def patiently(
    ask: Callable[[], _T], seconds: float, meanwhile: Callable[[], object] = lambda: None
) -> _T:
    """What a server answers; while it is away it is asked again, for so long, and that is said.

    Args:
        ask: Asks it.
        seconds: How long it may be away.
        meanwhile: Called before it is asked again.

    Raises:
        StoreError: It is away for longer, or refuses.
    """
    deadline, said = time.monotonic() + seconds, False
    with prompt_faults():
        while True:
            try:
                return ask()
            except StoreError as error:
                if error.refused or time.monotonic() >= deadline:
                    raise
                if not said:
                    _LOG.warning("%s. Waiting for it, %.0f s at most", error, seconds)
                said = True
                meanwhile()
                time.sleep(_PAUSE_S)


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


def sqlite_folder(uri: str) -> Path | None:
    """The folder of a sqlite store; None for a server."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///")).parent
