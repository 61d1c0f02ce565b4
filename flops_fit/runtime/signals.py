"""Stopping at a step boundary: SIGINT and SIGTERM ask, the training loop answers when it can.

An exception that a signal raises in the midst of a library's bookkeeping (a commit, a trial's end)
comes out as another, or leaves half of it done.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """Whether a signal, or an error that ends more than its trial, asked to stop, and which."""

    signal: int = 0
    error: Exception | None = None

    def __bool__(self) -> bool:
        return bool(self.signal or self.error)

    def exception(self) -> BaseException:
        """The error, or what ends the process as the signal would have: Ctrl-C, exit code 143."""
        if self.error is not None:
            return self.error
        return (
            KeyboardInterrupt() if self.signal == signal.SIGINT else SystemExit(128 + self.signal)
        )


@contextmanager
def stop_at_boundary(*, patient: bool = False) -> Iterator[StopRequest]:
    """Within, a first SIGINT or SIGTERM sets the flag; a second acts as it did before.

    A patient one is never hurried by a second: other processes wait for this one at the boundary.

    Only a process's main thread gets signals; in any other this does nothing. What the process was
    started to ignore (Ctrl-C, by a shell that put it in the background) stays ignored.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    found = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {number: how for number, how in found.items() if how is not signal.SIG_IGN}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, frame: FrameType | None) -> None:
        request.signal = number
        if patient:
            return
        restore()
        if number == signal.SIGINT:
            os.write(2, b"\nStopping at the next step. Ctrl-C again stops at once.\n")

    for number in before:
        signal.signal(number, ask)
    try:
        yield request
    finally:
        restore()


@contextmanager
def orderly_termination() -> Iterator[None]:
    """Within, SIGTERM unwinds the stack and ends in exit code 143, where it would just kill."""
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
