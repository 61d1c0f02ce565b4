"""Stopping between two steps: SIGINT and SIGTERM set a flag, which the training loop checks.

An exception raised by a signal handler during a library's bookkeeping (a commit, the end of a
trial) may surface as another exception, or leave the bookkeeping half done.
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
    """Set by a signal, or by an error that ends more than its trial, to request a stop.

    Attributes:
        signal: Number of the signal; 0 for none.
        error: The error; None for none.
    """

    signal: int = 0
    error: Exception | None = None

    def __bool__(self) -> bool:
        return bool(self.signal or self.error)

    def exception(self) -> BaseException:
        """The error, or for a signal the exception with its usual effect: Ctrl-C, exit code 143."""
        if self.error is not None:
            return self.error
        return (
            KeyboardInterrupt() if self.signal == signal.SIGINT else SystemExit(128 + self.signal)
        )


@contextmanager
def stop_at_boundary(*, patient: bool = False) -> Iterator[StopRequest]:
    """In this context a first SIGINT or SIGTERM sets the flag; a second has its usual effect.

    Only the main thread of a process receives signals; in other threads this does nothing. Signals
    that the process ignores from its start (Ctrl-C, in a shell's background job) stay ignored.

    Args:
        patient: A second signal has no effect either, because other processes wait for this one at
            the end of the step.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {n: handler for n, handler in handlers.items() if handler is not signal.SIG_IGN}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def request_stop(number: int, frame: FrameType | None) -> None:
        request.signal = number
        if patient:
            return
        restore()  # a second signal then has its usual effect
        if number == signal.SIGINT:
            # print() is not safe in a signal handler.
            os.write(2, b"\nStopping at the next step. Ctrl-C again stops at once.\n")

    for number in before:
        signal.signal(number, request_stop)
    try:
        yield request
    finally:
        restore()


@contextmanager
def orderly_termination() -> Iterator[None]:
    """In this context SIGTERM raises SystemExit(143) instead of killing the process at once."""
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
