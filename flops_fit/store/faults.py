"""Errors of MLflow, SQLAlchemy, SQLite and the disk, reworded as one `StoreError`."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from flops_fit.errors import StoreError
from flops_fit.store.uri import SECRET_PARAMETER, sqlite_file, sqlite_folder, without_credentials

# MLflow's error codes for a store that is there and declines: a retry would not help.
_REFUSALS = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE", "INVALID_STATE")
# What to do, by a phrase of the library's message.
_ADVICE = (
    (("disk is full", "No space left"), "free some space"),
    (("readonly", "Permission denied", "unable to open"), "make sure that it can be written"),
    (("is locked",), "check which other program holds it"),
    (("DB access module", "No module named"), "install the database's driver"),
    (
        ("malformed", "not a database", "corrupt", "_alembic_tmp"),
        "restore it from a backup, or use another store",
    ),
)
_REASON_LIMIT = 500


@contextmanager
def store_errors(uri: str, kind: str = "MLflow store") -> Iterator[None]:
    """Reraise errors of the store's libraries and of the disk as `StoreError`.

    Args:
        uri: The store, or the path of a file.
        kind: What the message calls it.

    Raises:
        StoreError: Says what is wrong and what to do; holds no credentials.
    """
    try:
        yield
    except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError, ImportError) as error:
        reworded = store_error(uri, error, kind)
        if without_credentials(uri) == uri:
            raise reworded from error
        raise reworded from None  # the libraries' own messages may hold the password


def store_error(uri: str, error: Exception, kind: str = "MLflow store") -> StoreError:
    """The `StoreError` for an error of a store's libraries.

    Args:
        uri: The store, or the path of a file.
        error: What the library raised.
        kind: What the message calls the store.
    """
    shown = without_credentials(uri)
    reason = _without_secrets(_first_line(error), uri)
    refused = isinstance(error, MlflowException) and error.error_code in _REFUSALS
    advice = "start the server" if uri.startswith("http") else "fix this"
    for phrases, remedy in _ADVICE:
        if any(phrase in reason for phrase in phrases):
            advice = remedy
    file = sqlite_file(uri) if sqlite_folder(uri) is not None else None
    # SQLite calls an open database "readonly" when its file was deleted.
    if file and "readonly" in reason and not file.exists():
        advice = "its file was deleted: restore it from a backup"
    return StoreError(
        f"the {kind} {shown} cannot be used: {reason[:_REASON_LIMIT]}; {advice}, then call again: "
        "finished trials are kept",
        refused,
    )


def _first_line(error: Exception) -> str:
    """The first line of an error's message, without the layers that libraries wrap around it."""
    database_error = getattr(error.__cause__ or error, "orig", None)  # without SQLAlchemy's SQL
    line = str(database_error or error).strip().partition("\n")[0]
    if line.startswith("API request to "):  # a failed connection, with the text of every layer
        cause = line.rpartition("Caused by ")[2].rpartition(": ")[2].strip(" ()'\"")
        return f"no answer ({cause})"
    return line


def _without_secrets(text: str, uri: str) -> str:
    """Text in which the passwords and tokens of a URI are replaced by `***`."""
    parts = urlsplit(uri)
    secrets = [parts.password or ""]
    secrets += [value for _, value in SECRET_PARAMETER.findall(parts.query)]
    for secret in filter(None, secrets):
        text = text.replace(secret, "***").replace(unquote(secret), "***")
    return text
