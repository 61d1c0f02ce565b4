"""The journal: what a worker records of its trials, on disk before it is sent to the ledger.

    <folder>/<trial_id>.<attempt>.running     one attempt at a trial: JSON lines, one record each
    <folder>/<trial_id>.<attempt>.complete    the same after its end (or failed, diverged, planned)
    <folder>/<trial_id>.<attempt>.refused     what the ledger declined, kept for inspection

A file is removed once the ledger has all of it. Its writer holds a lock on it, which the operating
system releases when the process ends: a file that can be locked was left by a process that is gone.
Only the writer appends. A last line that a crash cut off is ignored.
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
_RUNNING = "running"
_REFUSED = "refused"
_CLOSED = -1  # in place of a file descriptor


@dataclass(frozen=True)
class Entry:
    """A file of the journal folder, by its name.

    Attributes:
        trial_id: The trial.
        attempt: Hex id of the attempt.
        state: "running", or how the attempt ended.
    """

    trial_id: str
    attempt: str
    state: str


class Journal:
    """The file of one attempt; one thread may append while another reads."""

    def __init__(self, path: Path, handle: int) -> None:
        self._path = path
        self._handle = handle
        self._delivered_bytes = 0
        self._read_bytes = 0
        self._lock = threading.Lock()

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record; it survives the end of this process, though not a power cut.

        Raises:
            StoreError: It cannot be written.
        """
        with self._lock, store_errors(str(self._path), "journal file"):
            self._write(record)

    def end(self, record: Mapping[str, Any], state: str) -> None:
        """Add the last record and sync the file to disk; it survives a power cut.

        Args:
            record: The record.
            state: How the attempt ended.

        Raises:
            StoreError: It cannot be written.
        """
        with self._lock, store_errors(str(self._path), "journal file"):
            self._write(record)
            os.fsync(self._handle)
            self._rename(state)

    def unread(self) -> list[dict[str, Any]]:
        """The records that were not delivered yet; none once the journal is closed."""
        with self._lock:
            if self._handle == _CLOSED:
                return []
            size = os.fstat(self._handle).st_size
            data = os.pread(self._handle, size - self._delivered_bytes, self._delivered_bytes)
        whole_lines = data[: data.rfind(b"\n") + 1]
        self._read_bytes = self._delivered_bytes + len(whole_lines)
        return list(_parsed(whole_lines, self._path))

    def mark_delivered(self) -> None:
        """Skip the records of the last `unread` from now on."""
        self._delivered_bytes = self._read_bytes

    def remove(self) -> None:
        """Delete the file: the ledger has all of it."""
        with self._lock:
            if self._handle != _CLOSED:
                self._path.unlink(missing_ok=True)
        self.close()

    def set_aside(self) -> None:
        """Rename the file to `.refused`: the ledger declined it."""
        with self._lock:
            if self._handle != _CLOSED:
                self._rename(_REFUSED)
        self.close()

    def close(self) -> None:
        """Release the lock; whoever looks for left journals may deliver the file."""
        with self._lock:
            if self._handle != _CLOSED:
                os.close(self._handle)
                self._handle = _CLOSED

    def _write(self, record: Mapping[str, Any]) -> None:
        if self._handle == _CLOSED:
            return
        data = json.dumps(record).encode() + b"\n"
        size = os.fstat(self._handle).st_size
        try:
            while data:
                data = data[os.write(self._handle, data) :]
        except OSError:
            os.ftruncate(self._handle, size)  # else the next record would follow half a line
            raise

    def _rename(self, state: str) -> None:
        renamed = self._path.with_suffix(f".{state}")
        self._path.rename(renamed)
        self._path = renamed

    @property
    def path(self) -> Path:
        """The file."""
        return self._path


def create(folder: Path, trial_id: str, attempt: str) -> Journal:
    """Create a locked journal; in a new temporary folder where `folder` cannot hold one.

    Raises:
        StoreError: The disk is full.
    """
    name = f"{trial_id}.{attempt}"
    with store_errors(str(folder), "journal folder"):
        try:
            return _create(folder, name)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            elsewhere = Path(tempfile.mkdtemp(prefix="flops_fit_spool_"))
            _LOG.warning("%s; records that the ledger lacks are kept in %s", error, elsewhere)
            return _create(elsewhere, name)


def _create(folder: Path, name: str) -> Journal:
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    # Created under a hidden name, so that nobody finds the file before it is locked.
    hidden = folder / f".{name}"
    path = folder / f"{name}.{_RUNNING}"
    handle = os.open(hidden, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        hidden.rename(path)
    except OSError:  # a file system without locks
        os.close(handle)
        hidden.unlink()
        raise
    return Journal(path, handle)


def entries(folder: Path) -> list[Entry]:
    """The attempts that are being trained or whose records the ledger lacks."""
    names = [path.name.split(".") for path in folder.glob("[!.]*")] if folder.is_dir() else []
    return [Entry(*parts) for parts in names if len(parts) == 3 and parts[2] != _REFUSED]


def left_over(folder: Path) -> Iterator[Journal]:
    """The journals of processes that are gone, each locked; the caller closes them."""
    for entry in entries(folder):
        path = folder / f"{entry.trial_id}.{entry.attempt}.{entry.state}"
        try:
            handle = os.open(path, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError:  # delivered or renamed since the folder was listed
            continue
        if _lock(handle) and _is_at(path, handle):
            yield Journal(path, handle)
        else:
            os.close(handle)


def _is_at(path: Path, handle: int) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # another process holds it, or the file system has no locks
        return False
    return True


def _parsed(data: bytes, path: Path) -> Iterator[dict[str, Any]]:
    for line in data.splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            _LOG.warning("a line of %s is damaged and is skipped: %.60r", path, line)
