"""flops_fit.store.client.faults."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote, urlsplit

from mlflow.exceptions import MlflowException
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from flops_fit.errors import StoreError
from flops_fit.store.uri import _SECRET, sqlite_folder, without_credentials

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


@contextmanager
def store_errors(uri: str, kind: str = "MLflow store") -> Iterator[None]:
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
