"""Waiting for what another process or server has to do first.

Every such wait of the package follows one rule: it says once what it waits for and how long, it
keeps the other ranks of a launch informed between attempts, and it ends with the error of the last
attempt.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

_T = TypeVar("_T")


class NotYetError(Exception):
    """What an attempt raises where there is no better error: it waits, and for this."""


def poll(
    attempt: Callable[[], _T],
    *,
    is_temporary: Callable[[Exception], bool],
    timeout_s: float,
    pause_s: float,
    report: Callable[[Exception], object],
    before_pause: Callable[[], object] = lambda: None,
) -> _T:
    """Call `attempt` until it returns.

    Args:
        attempt: Returns the result, or raises why there is none.
        is_temporary: Whether an error of `attempt` may go away by waiting.
        timeout_s: Seconds after which the next temporary error ends the wait; may be infinite.
        pause_s: Seconds between two attempts.
        report: Called with the first temporary error only, to tell the user that this waits.
        before_pause: Called after each temporary error, to tell other ranks that this one lives.

    Returns:
        What `attempt` returns.

    Raises:
        Exception: The error of the last attempt, where it is not temporary or time has run out.
    """
    deadline = time.monotonic() + timeout_s
    reported = False
    while True:
        try:
            return attempt()
        except Exception as error:
            if not is_temporary(error) or time.monotonic() >= deadline:
                raise
            if not reported:
                report(error)
                reported = True
        before_pause()
        time.sleep(pause_s)
