"""flops_fit.store.client.locks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock
from sqlalchemy import NullPool, create_engine, text

from flops_fit.store.uri import sqlite_folder


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
