"""Addresses of stores: defaults, checks, and what of them may be shown."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import mlflow

from flops_fit.errors import ArgumentError

# A query parameter whose name suggests a secret; groups: its name with "=", its value.
SECRET_PARAMETER = re.compile(r"((?:^|&)[^=&]*(?:pass|secret|token)[^=&]*=)([^&]+)", re.IGNORECASE)
_SQLITE = "sqlite:///"
_DEFAULT_FILE = Path("mlruns/mlflow.db")


def resolve_uri(tracking_uri: str | os.PathLike[str] | None = None) -> str:
    """The MLflow store to use, with an absolute path if it is a file.

    Args:
        tracking_uri: The store; None for MLflow's own setting, and `mlruns/mlflow.db` without one.

    Raises:
        ArgumentError: `tracking_uri` is not an address.
    """
    if tracking_uri is not None:
        uri = check_uri(tracking_uri)
    elif mlflow.is_tracking_uri_set():
        uri = mlflow.get_tracking_uri()
    else:
        uri = f"{_SQLITE}{_DEFAULT_FILE}"
    if uri.startswith(_SQLITE):
        return f"{_SQLITE}{sqlite_file(uri).absolute()}"
    return uri


def check_uri(tracking_uri: object) -> str:
    """A tracking URI as text; the path of a `.db` file becomes a SQLite URI.

    Raises:
        ArgumentError: It is not text, is empty (often an unset environment variable), or is a path
            without a scheme.
    """
    if not isinstance(tracking_uri, str | os.PathLike) or not str(tracking_uri).strip():
        raise ArgumentError(
            f"tracking_uri: expected an address such as 'sqlite:///mlruns/mlflow.db' or "
            f"'http://host:5000', or None for the default; got {tracking_uri!r}"
        )
    uri = str(tracking_uri)
    if ":" in uri or uri.startswith("databricks"):
        return uri
    if uri.endswith(".db"):
        return f"{_SQLITE}{uri}"
    raise ArgumentError(
        f"tracking_uri: {uri!r} is not an address; for a SQLite file in that folder, pass "
        f"'{_SQLITE}{Path(uri) / 'mlflow.db'}'"
    )


def without_credentials(uri: str) -> str:
    """A URI that can be shown: without user and password, and with secrets in its query masked.

    The user of a PostgreSQL URI is kept where the password is stored elsewhere (`PGPASSFILE`).
    """
    parts = urlsplit(uri)
    query = SECRET_PARAMETER.sub(r"\1***", parts.query)
    user_alone = uri.startswith("postgresql") and not parts.password
    if ("@" not in parts.netloc or user_alone) and query == parts.query:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query))


def sqlite_file(uri: str) -> Path:
    """The file of a SQLite URI."""
    return Path(uri.removeprefix(_SQLITE))


def sqlite_folder(uri: str) -> Path | None:
    """The folder of a SQLite store; None for a server."""
    return sqlite_file(uri).parent if uri.startswith(_SQLITE) else None


def is_missing_file(uri: str) -> bool:
    """Whether a store is a SQLite file that does not exist; False for a server."""
    return uri.startswith(_SQLITE) and not sqlite_file(uri).exists()
