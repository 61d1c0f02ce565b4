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
    started = psutil.Process().create_time()
    owner = f"{socket.gethostname()}|{os.getpid()}|{started:.2f}|{uuid.uuid4().hex[:8]}"
    _AT_WORK.add(owner)
    try:
        yield owner
    finally:
        _AT_WORK.discard(owner)


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
        reused = abs(process.create_time() - float(started)) > 1.0
        return reused or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False
