"""flops_fit.store.client.uri."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import mlflow

from flops_fit.errors import ArgumentError

_SECRET = re.compile(r"((?:^|&)[^=&]*(?:pass|secret|token)[^=&]*=)([^&]+)", re.IGNORECASE)


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


def sqlite_folder(uri: str) -> Path | None:
    """The folder of a sqlite store; None for a server."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///")).parent
