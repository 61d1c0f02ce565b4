"""Names for worker processes (host, process id, start time), so that dead workers are recognised.

A dead process on this host is recognised at once; one on another host by its heartbeat only.
"""

from __future__ import annotations

import os
import re
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

_NAME = re.compile(r"[^|]+\|\d+\|\d+(\.\d+)?\|.*")
_AT_WORK: set[str] = set()  # names in use in this process


@contextmanager
def at_work() -> Iterator[str]:
    """A name for the work done in this context: `host|pid|start time|token`."""
    started = _started(psutil.Process())
    owner = f"{socket.gethostname()}|{os.getpid()}|{started:.2f}|{uuid.uuid4().hex[:8]}"
    _AT_WORK.add(owner)
    try:
        yield owner
    finally:
        _AT_WORK.discard(owner)


def is_name(text: str) -> bool:
    """Whether a text is a name as `at_work` gives it."""
    return _NAME.fullmatch(text) is not None


def lives_here(owner: str) -> bool:
    """Whether the owner is a live process on this host."""
    return owner.partition("|")[0] == socket.gethostname() and not is_dead(owner)


def is_dead(owner: str) -> bool:
    """Whether the owner was on this host and has ended; False if that cannot be known."""
    host, _, rest = owner.partition("|")
    if not rest or host != socket.gethostname():
        return False
    pid_text, started, _ = rest.split("|")
    pid = int(pid_text)
    if pid == os.getpid():  # this process: its work may have ended before it does
        return owner not in _AT_WORK
    try:
        process = psutil.Process(pid)
        # Process ids are reused: another start time means another process.
        reused = abs(_started(process) - float(started)) > 1.0
        return reused or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _started(process: psutil.Process) -> float:
    """Seconds after the machine's start, which do not change when its clock is set."""
    return process.create_time() - psutil.boot_time()
