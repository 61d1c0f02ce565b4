"""What a worker tells of its trials, on disk before it is sent: a store that is away loses nothing.

    <folder>/<trial_id>.<attempt>.running     one attempt at a trial: JSON lines, one record each
    <folder>/<trial_id>.<attempt>.complete    the same once it has ended so (failed, ...)
    <folder>/<trial_id>.<attempt>.refused     what the ledger declined, kept for a look

A file is removed once the ledger has it all. Its writer holds a lock on it, which goes with the
process, so a file that can be locked has been left by one that is gone. Only its writer appends; a
last line that a crash tore is passed over.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import tempfile
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flops_fit.store.faults import store_errors

_LOG = logging.getLogger("flops_fit")
_RUNNING, _REFUSED = "running", "refused"


@dataclass(frozen=True)
class Entry:
    """A file of the spool, by its name.

    Attributes:
        trial_id: Whose attempt.
        attempt: Hex name of the attempt.
        state: "running", or how it ended.
    """

    trial_id: str
    attempt: str
    state: str


class Journal:
    """One attempt's file; one thread may append while another reads."""

    def __init__(self, path: Path, handle: int) -> None:
        self._path, self._handle = path, handle
        self._read = 0  # bytes whose records were delivered
        self._next = 0  # bytes that were read
        self._lock = threading.Lock()

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record; it outlives this process, though not the machine.

        Raises:
            StoreError: It cannot be kept.
        """
        with self._lock, store_errors(str(self._path), "spool file"):
            self._write(record)

    def end(self, record: Mapping[str, Any], state: str) -> None:
        """Add the last record; it outlives the machine.

        Raises:
            StoreError: It cannot be kept.
        """
        with self._lock, store_errors(str(self._path), "spool file"):
            self._write(record)
            os.fsync(self._handle)
            self._rename(state)

    def unread(self) -> list[dict[str, Any]]:
        """The records that were not delivered so far; none once it is closed."""
        with self._lock:
            if self._handle < 0:
                return []
            data = os.pread(self._handle, os.fstat(self._handle).st_size - self._read, self._read)
        whole = data[: data.rfind(b"\n") + 1]
        self._next = self._read + len(whole)
        return list(_parsed(whole, self._path))

    def delivered(self) -> None:
        """What was read last need not be read again."""
        self._read = self._next

    def remove(self) -> None:
        """The ledger has it all."""
        with self._lock:
            if self._handle >= 0:
                self._path.unlink(missing_ok=True)
        self.close()

    def set_aside(self) -> None:
        """The ledger will not have it."""
        with self._lock:
            if self._handle >= 0:
                self._rename(_REFUSED)
        self.close()

    def close(self) -> None:
        """Leave it to whoever looks for files that were left."""
        with self._lock:
            if self._handle >= 0:
                os.close(self._handle)
                self._handle = -1

    def _write(self, record: Mapping[str, Any]) -> None:
        if self._handle < 0:
            return
        data, size = json.dumps(record).encode() + b"\n", os.fstat(self._handle).st_size
        try:
            while data:
                data = data[os.write(self._handle, data) :]
        except OSError:
            os.ftruncate(self._handle, size)  # no torn line before the next
            raise

    def _rename(self, state: str) -> None:
        renamed = self._path.with_suffix(f".{state}")
        self._path.rename(renamed)
        self._path = renamed

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self._path


def create(folder: Path, trial_id: str, attempt: str) -> Journal:
    """A new journal, locked; in a folder for temporary files where `folder` cannot hold one.

    Raises:
        StoreError: There is no room for it.
    """
    name = f"{trial_id}.{attempt}"
    with store_errors(str(folder), "spool folder"):
        try:
            return _create(folder, name)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            elsewhere = Path(tempfile.mkdtemp(prefix="flops_fit_spool_"))
            _LOG.warning("%s; what the ledger has not got yet is kept in %s", error, elsewhere)
            return _create(elsewhere, name)


def _create(folder: Path, name: str) -> Journal:
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    beside, path = folder / f".{name}", folder / f"{name}.{_RUNNING}"
    handle = os.open(beside, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        beside.rename(path)  # nobody finds it before it is locked
    except OSError:  # a file system without locks
        os.close(handle)
        beside.unlink()
        raise
    return Journal(path, handle)


def entries(folder: Path) -> list[Entry]:
    """All that is not in the ledger yet, and what is being trained."""
    found = [path.name.split(".") for path in folder.glob("[!.]*")] if folder.is_dir() else []
    return [Entry(*parts) for parts in found if len(parts) == 3 and parts[2] != _REFUSED]


def left_over(folder: Path) -> Iterator[Journal]:
    """The journals of processes that are gone, each locked; the caller closes them."""
    for entry in entries(folder):
        path = folder / f"{entry.trial_id}.{entry.attempt}.{entry.state}"
        try:
            handle = os.open(path, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:  # delivered, or ended, meanwhile
            continue
        if _lock(handle) and _is_at(path, handle):
            yield Journal(path, handle)
        else:
            os.close(handle)


def _is_at(path: Path, handle: int) -> bool:
    """Whether a file is still what lies at a path."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held, or no locks on this file system
        return False
    return True


def _parsed(data: bytes, path: Path) -> Iterator[dict[str, Any]]:
    for line in data.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            _LOG.warning("a line of %s is damaged and passed over: %.60r", path, line)
