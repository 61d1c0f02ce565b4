"""flops_fit.store.client.retry."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import mlflow.environment_variables as settings

from flops_fit.errors import StoreError

_T = TypeVar("_T")
_LOG = logging.getLogger("flops_fit")
_PAUSE_S = 1.0


@contextmanager
def prompt_faults() -> Iterator[None]:
    """Within, a server that is away is a fault at once: whoever calls has its own patience.

    Left alone MLflow tries for four minutes. What the user has set in the environment holds.
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


def patiently(
    ask: Callable[[], _T], seconds: float, meanwhile: Callable[[], object] = lambda: None
) -> _T:
    """What a server answers; while it is away it is asked again, for so long, and that is said.

    Args:
        ask: Asks it.
        seconds: How long it may be away.
        meanwhile: Called before it is asked again.

    Raises:
        StoreError: It is away for longer, or refuses.
    """
    deadline, said = time.monotonic() + seconds, False
    with prompt_faults():
        while True:
            try:
                return ask()
            except StoreError as error:
                if error.refused or time.monotonic() >= deadline:
                    raise
                if not said:
                    _LOG.warning("%s. Waiting for it, %.0f s at most", error, seconds)
                said = True
                meanwhile()
                time.sleep(_PAUSE_S)


T = TypeVar("T")


def with_timeout(seconds: float, ask: Callable[[], T]) -> T | None:
    """What a store answers in so many seconds; None if nothing."""
    answers: list[T] = []

    def wait() -> None:
        with contextlib.suppress(StoreError):
            answers.append(ask())

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    thread.join(seconds)
    return answers[0] if answers else None
