"""Waiting for a store that is away, and calls to it that must not take long."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import mlflow.environment_variables as settings

from flops_fit.errors import StoreError
from flops_fit.runtime.polling import poll

_LOG = logging.getLogger("flops_fit")
_PAUSE_S = 1.0
_T = TypeVar("_T")


@contextmanager
def without_mlflow_retries() -> Iterator[None]:
    """Let MLflow's HTTP client fail at once: the callers in this package retry by themselves.

    By default MLflow retries for four minutes. Values that the user set in the environment hold.
    """
    wanted = {
        settings.MLFLOW_HTTP_REQUEST_MAX_RETRIES.name: "0",
        settings.MLFLOW_HTTP_REQUEST_TIMEOUT.name: "30",
    }
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def wait_for_store(
    ask: Callable[[], _T], timeout_s: float, before_pause: Callable[[], object] = lambda: None
) -> _T:
    """Ask a store; while it is away ask again, and log that once.

    Args:
        ask: The query.
        timeout_s: Seconds that the store may be away; 0 asks once.
        before_pause: Called before each pause between two attempts.

    Raises:
        StoreError: It was away for longer, or refuses.
    """
    with without_mlflow_retries():
        return poll(
            ask,
            is_temporary=lambda error: isinstance(error, StoreError) and not error.refused,
            timeout_s=timeout_s,
            pause_s=_PAUSE_S,
            report=lambda error: _LOG.warning(
                "%s. Waiting for it, %.0f s at most", error, timeout_s
            ),
            before_pause=before_pause,
        )


def with_timeout(timeout_s: float, ask: Callable[[], _T]) -> _T | None:
    """What a store answers within `timeout_s` seconds; None if it does not, or is away.

    The query goes on in a thread of its own: libraries offer no way to cancel it.
    """
    answers: list[_T] = []

    def run() -> None:
        with contextlib.suppress(StoreError):
            answers.append(ask())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_s)
    return answers[0] if answers else None
