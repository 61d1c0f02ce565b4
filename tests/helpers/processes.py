"""Processes that tests start: waited for as long as they move, and always ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator

import psutil

STUCK_S = 120.0  # a process that has used no processor time for so long is stuck
PAUSE_S = 0.1


class Process(subprocess.Popen):
    """A process in a session of its own, whose output goes to a file.

    A pipe would stay open for as long as any process that it has started lives.
    """

    def __init__(self, *command: object, **options: object) -> None:
        self._written = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        super().__init__(
            list(map(str, command)),
            stderr=self._written,
            text=True,
            start_new_session=True,
            # The tests may run in the background, where SIGINT is ignored and children inherit it.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
            **{"stdout": self._written, **options},
        )

    @property
    def output(self) -> str:
        """What it has written so far."""
        with open(f"/proc/self/fd/{self._written.fileno()}", encoding="utf-8") as file:
            return file.read()

    def finish(self) -> str:
        """Wait until it ends; returns what it wrote."""
        wait_until(lambda: self.poll() is not None, self)
        return self.output

    def end(self) -> None:
        """Kill it with all the processes it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()
        self._written.close()


@contextlib.contextmanager
def ended_processes() -> Iterator[Callable[..., Process]]:
    """A function that starts processes; those it has started are ended at the end."""
    started: list[Process] = []

    def start(*command: object, **options: object) -> Process:
        started.append(Process(*command, **options))
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            process.end()


def wait_until(condition: Callable[[], bool], *processes: subprocess.Popen) -> None:
    """Wait for a condition that processes bring about.

    Fails if none of them has used processor time for `STUCK_S`: a slow machine fails no test, a
    process that hangs does.
    """
    used, moved_at = -1.0, time.monotonic()
    while not condition():
        now = sum(map(_processor_seconds, processes))
        if now != used:
            used, moved_at = now, time.monotonic()
        assert time.monotonic() - moved_at < STUCK_S, "the processes are stuck"
        time.sleep(PAUSE_S)


def _processor_seconds(process: subprocess.Popen) -> float:
    """Processor time of a process and its descendants; 0 once it has ended."""
    total = 0.0
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        for one in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += sum(one.cpu_times()[:2])
    return total
