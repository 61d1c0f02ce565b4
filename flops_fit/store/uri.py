"""Addresses of stores: defaults, checks, paths as URLs, and what of them may be shown.

A path and its URL are not the same text: SQLAlchemy decodes `%20` in a URL, and ends the path at
`?`. Every path becomes a URL in `sqlite_url`, and `sqlite_file` is its inverse. Paths that need
quoting get the scheme `sqlite+pysqlite`: for `sqlite`, MLflow creates the folder of the quoted name
beside the real one.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from urllib.request import url2pathname

import mlflow
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from flops_fit.errors import ArgumentError

# A query parameter whose name suggests a secret; groups: its name with "=", its value.
SECRET_PARAMETER = re.compile(r"((?:^|&)[^=&]*(?:pass|secret|token)[^=&]*=)([^&]+)", re.IGNORECASE)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/|databricks(-uc)?$")
_SQLITE_FILE = re.compile(r"sqlite(\+pysqlite)?:///(?!:memory:|file:|\?|$)")
_SQLITE = "sqlite:///"
_QUOTED_SQLITE = "sqlite+pysqlite:///"
# What SQLAlchemy would decode or cut off, and what Optuna takes for a field of a format string.
_SPECIAL = re.compile(r"[%?{}\x00-\x1f\x7f]")
_QUERY = re.compile(r"\?(?:[\w.-]+=[^/?&]*&?)+$")
_FILE_SUFFIXES = (".db", ".sqlite", ".sqlite3")
_DEFAULT_FILE = Path("mlruns/mlflow.db")


def sqlite_url(file: Path, query: str = "") -> str:
    """The URL of a SQLite file, with an absolute path.

    Args:
        file: The file.
        query: Parameters of the connection, with their `?`.

    Raises:
        ArgumentError: The path cannot be written as a URL.
    """
    path = str(file.absolute())
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ArgumentError(
            f"the path {path!a} is not UTF-8, which a database's URL must be: use another folder"
        ) from None
    if not _SPECIAL.search(path):
        return f"{_SQLITE}{path}{query}"
    return f"{_QUOTED_SQLITE}{_SPECIAL.sub(lambda found: quote(found[0]), path)}{query}"


def sqlite_file(url: str) -> Path:
    """The file of a SQLite URL."""
    return _split(url)[0]


def sqlite_folder(uri: str) -> Path | None:
    """The folder of a SQLite store; None for a server."""
    return sqlite_file(uri).parent if _is_sqlite(uri) else None


def file_of(uri: str) -> Path | None:
    """The path of a `file:` URL or of a path without a scheme; None for another address."""
    if uri.startswith("file:"):
        return Path(url2pathname(urlsplit(uri).path))
    return None if _SCHEME.match(uri) else Path(uri)


def is_missing_file(uri: str) -> bool:
    """Whether a store is a SQLite file that does not exist; False for a server."""
    return _is_sqlite(uri) and not sqlite_file(uri).exists()


def resolve_uri(tracking_uri: str | os.PathLike[str] | None = None) -> str:
    """The MLflow store to use, with an absolute path if it is a file.

    Args:
        tracking_uri: The store; None for MLflow's own setting, and `mlruns/mlflow.db` without one.

    Raises:
        ArgumentError: `tracking_uri` is not an address.
    """
    if tracking_uri is not None:
        return check_uri(tracking_uri)
    if not mlflow.is_tracking_uri_set():
        return default_uri()
    uri = mlflow.get_tracking_uri()
    return sqlite_url(*_split(uri)) if _is_sqlite(uri) else uri


def default_uri() -> str:
    """The store that is used where none is set."""
    return sqlite_url(_DEFAULT_FILE)


def check_uri(tracking_uri: object) -> str:
    """A tracking URI as text; the path of a database file becomes its URL.

    Raises:
        ArgumentError: It is not text, is empty (often an unset environment variable), is a path
            without a scheme, or a URL that can be read as two different files.
    """
    return _address(
        "tracking_uri", tracking_uri, "an address such as 'sqlite:///mlruns/mlflow.db' or "
        "'http://host:5000', or None for the default", "mlflow.db"
    )  # fmt: skip


def check_storage(storage: object) -> str:
    """An Optuna storage as a URL; the path of a database file becomes its URL.

    Raises:
        ArgumentError: It is not a database's URL: for example a storage object of Optuna's, which
            cannot be sent to workers.
    """
    url = _address(
        "storage", storage, "the URL of a database, such as 'sqlite:///mlruns/optuna.db' or "
        "'postgresql://user@host/optuna', or the path of a .db file", "optuna.db"
    )  # fmt: skip
    try:
        make_url(url).get_dialect()
    except (SQLAlchemyError, ValueError):
        raise ArgumentError(
            f"storage: {without_credentials(url)!r} is not the URL of a database; pass one such as "
            "'sqlite:///mlruns/optuna.db' or 'postgresql://user@host/optuna'"
        ) from None
    return url


def _address(argument: str, given: object, expected: str, file_name: str) -> str:
    """The address as a URL; see `check_uri`."""
    if not isinstance(given, str | os.PathLike) or not str(given).strip():
        raise ArgumentError(f"{argument}: expected {expected}; got {_described(given)}")
    text = os.fsdecode(given)
    is_path = isinstance(given, os.PathLike) or not _SCHEME.match(text)
    if not is_path and text.startswith("file:") and text.endswith(_FILE_SUFFIXES):
        is_path, text = True, str(file_of(text))
    try:
        if is_path and text.endswith(_FILE_SUFFIXES):
            return sqlite_url(Path(text))
        if _is_sqlite(text):
            return sqlite_url(*_split(text))
    except ArgumentError as error:
        raise ArgumentError(f"{argument}: {error}") from None
    if text.startswith("sqlite"):
        raise ArgumentError(
            f"{argument}: {text!r} names no file, and workers share a file; pass "
            f"'{_SQLITE}mlruns/{file_name}'"
        )
    if is_path:
        raise ArgumentError(
            f"{argument}: {text!r} is not an address; for a SQLite file in that folder, pass "
            f"{str(Path(text) / file_name)!r}"
        )
    return text


def _described(given: object) -> str:
    """An argument as a message shows it; of a storage object of Optuna's also what to pass."""
    kind = type(given)
    if not kind.__module__.startswith("optuna"):
        return repr(given)
    url = getattr(given, "url", None)
    shown = f"pass its URL, {without_credentials(url)!r}" if isinstance(url, str) else "pass a URL"
    return f"Optuna's {kind.__name__}, which cannot be sent to workers: {shown}"


def _is_sqlite(uri: str) -> bool:
    """Whether an address is the URL of a SQLite file, and not of a database in memory."""
    return _SQLITE_FILE.match(uri) is not None


def _split(url: str) -> tuple[Path, str]:
    """The path and the query of a SQLite URL.

    Where somebody has put a path into a URL as it is, `%20` or `?` in a folder's name means itself.

    Raises:
        ArgumentError: The path as written and the path decoded both exist.
    """
    text = url.partition(":///")[2]
    query = _QUERY.search(text)
    path, parameters = (text[: query.start()], query[0]) if query else (text, "")
    decoded, literal = Path(unquote(path)), Path(path)
    if url.startswith(_QUOTED_SQLITE) or decoded == literal:
        return decoded, parameters
    found = [reading for reading in (decoded, literal) if _is_there(reading, path)]
    if len(found) == 2:
        raise ArgumentError(
            f"{url!r} can be read as the file {str(decoded)!r} or as {str(literal)!r}, and both "
            f"folders exist; pass the path itself, or for the first {sqlite_url(decoded)!r}"
        )
    return (found or [decoded])[0], parameters


def _is_there(reading: Path, written: str) -> bool:
    """Whether a reading of a path exists, up to the last part that holds a `%`."""
    last = max(index for index, part in enumerate(Path(written).parts) if "%" in part)
    return Path(*reading.parts[: last + 1]).exists()


def without_credentials(uri: str) -> str:
    """A URI that can be shown: without user and password, and with secrets in its query masked.

    The user of a PostgreSQL URI is kept where the password is stored elsewhere (`PGPASSFILE`).
    """
    if uri.startswith("sqlite"):
        return uri
    parts = urlsplit(uri)
    query = SECRET_PARAMETER.sub(r"\1***", parts.query)
    user_alone = uri.startswith("postgresql") and not parts.password
    if ("@" not in parts.netloc or user_alone) and query == parts.query:
        return uri
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=query))
