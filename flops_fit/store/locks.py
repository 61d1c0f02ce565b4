"""Locks between processes, so that one at a time creates a schema or claims a trial."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from filelock import FileLock
from sqlalchemy import NullPool, create_engine, text

from flops_fit.store.uri import sqlite_folder

_LOCK_TIMEOUT_S = 120


@contextmanager
def one_at_a_time(uri: str, lock: str) -> Iterator[None]:
    """Hold a store's lock: a file beside SQLite, an advisory lock in PostgreSQL.

    Several processes that open a fresh database at once would crash in its migration. Other
    databases, and MLflow servers, are not locked.

    Args:
        uri: The store.
        lock: Name of the lock; for SQLite its file's name.
    """
    folder = sqlite_folder(uri)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):  # somebody else's store: read only, nothing to create
            yield
            return
        with file_locked(folder / lock):
            yield
    elif uri.startswith("postgresql"):
        engine = create_engine(uri, poolclass=NullPool)
        with engine.connect() as connection:  # closing it releases the lock
            connection.execute(text("SELECT pg_advisory_lock(hashtext(:lock))"), {"lock": lock})
            yield
    else:
        yield


def file_locked(file: Path) -> AbstractContextManager[object]:
    """Hold the lock that a file stands for; the system lets go of it for a process that is killed.

    Raises:
        TimeoutError: Somebody has held it for two minutes.
    """
    return FileLock(file, timeout=_LOCK_TIMEOUT_S, mode=0o600)
