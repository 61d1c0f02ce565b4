"""Faults of the Optuna storage: reworded, waited out, and their effect on heartbeats."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator

from optuna.exceptions import StorageInternalError
from sqlalchemy.exc import SQLAlchemyError

from flops_fit.errors import StoreError
from flops_fit.runtime import distributed
from flops_fit.store.faults import store_error
from flops_fit.store.uri import sqlite_folder
from flops_fit.sweep.execution.ranks import keep_waiting

STORAGE = "Optuna storage"  # what messages call it
BEAT_S = 10
GRACE_S = 120  # a worker on another host that is silent for longer is dead
_PAUSE_S = 1.0
# By storage: times of the first and the last of an unbroken series of faults.
_FAULT_TIMES: dict[str, tuple[float, float]] = {}
_LOG = logging.getLogger("flops_fit")


@contextlib.contextmanager
def storage_errors(url: str) -> Iterator[None]:
    """Reraise a storage's errors as `StoreError`; other errors pass.

    Raises:
        StoreError: The storage cannot be used.
    """
    try:
        yield
    except Exception as error:
        fault = _note_fault(url, error)
        if fault is None:
            raise
        raise fault from None  # the libraries' own messages may hold the password


def wait_out(error: Exception, url: str) -> None:
    """Pause after a fault of the storage, so that the worker can try again.

    Args:
        error: What Optuna raised.
        url: The storage.

    Raises:
        StoreError: The storage is a file, or has been away for longer than the timeout.
    """
    fault = _note_fault(url, error)
    if fault is None:
        _LOG.warning("this worker's claim was released as a dead worker's: %r", error)
        return
    if sqlite_folder(url) is not None or _away_s(url) > distributed.timeout().total_seconds():
        raise fault from None
    if not _away_s(url):  # the first of a series
        _LOG.warning("%s. Waiting for it", fault)
    keep_waiting()
    time.sleep(_PAUSE_S)


def let_heartbeats_resume(url: str) -> None:
    """After a storage outage, wait two heartbeats before declaring workers dead."""
    if _away_s(url) > GRACE_S / 2:
        time.sleep(2 * BEAT_S)
    if _FAULT_TIMES.pop(url, None):
        _LOG.warning("the Optuna storage is back")


def _note_fault(url: str, error: BaseException) -> StoreError | None:
    """The `StoreError` for a storage's error, whose time is noted; None for any other error.

    Optuna may raise anything when it cannot write a trial's end, so the error's causes are
    searched. The first database error among them says most.
    """
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    of_storage = [
        cause
        for cause in causes
        if isinstance(cause, SQLAlchemyError | StorageInternalError | OSError)
    ]
    if not of_storage:
        return None
    now = time.monotonic()
    first, _ = _FAULT_TIMES.get(url, (now, now))
    _FAULT_TIMES[url] = (first, now)
    of_database = [cause for cause in of_storage if isinstance(cause, SQLAlchemyError)]
    return store_error(url, (of_database or of_storage)[-1], STORAGE)


def _away_s(url: str) -> float:
    """Seconds between the first and the last of an unbroken series of faults."""
    first, last = _FAULT_TIMES.get(url, (0.0, 0.0))
    return last - first
