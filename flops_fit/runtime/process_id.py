"""Who works on a trial: host, process and start time, so that a dead worker is recognised.

A dead process on this host is seen at once; another host's is judged by its heartbeat alone.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psutil

_AT_WORK: set[str] = set()


@contextmanager
def at_work() -> Iterator[str]:
    """A name for the work done within: `host|pid|start time|token`."""
    started = _started(psutil.Process())
    owner = f"{socket.gethostname()}|{os.getpid()}|{started:.2f}|{uuid.uuid4().hex[:8]}"
    _AT_WORK.add(owner)
    try:
        yield owner
    finally:
        _AT_WORK.discard(owner)


def lives_here(owner: str) -> bool:
    """True if the owner is a process of this host that is at work."""
    return owner.partition("|")[0] == socket.gethostname() and not is_dead(owner)


def is_dead(owner: str) -> bool:
    """True if the owner was on this host and is no more; False where that cannot be known."""
    host, _, rest = owner.partition("|")
    if not rest or host != socket.gethostname():
        return False
    pid_text, started, _ = rest.split("|")
    pid = int(pid_text)
    if pid == os.getpid():
        return owner not in _AT_WORK
    try:
        process = psutil.Process(pid)
        reused = abs(_started(process) - float(started)) > 1.0
        return reused or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _started(process: psutil.Process) -> float:
    """Seconds after the machine's start, which no change of its clock moves."""
    return process.create_time() - psutil.boot_time()
