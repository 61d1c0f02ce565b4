"""What a person at the keyboard hears: a line for what takes long, nothing for what is repeated."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import warnings
from collections.abc import Callable, Iterator

from flops_fit.display.notebook import for_the_reader
from flops_fit.runtime import distributed

SLOW_S = 2.0
EVERY_S = 15.0


@contextlib.contextmanager
def announce_if_slow(
    message: str | Callable[[], str], *, after_s: float = SLOW_S, every_s: float = EVERY_S
) -> Iterator[None]:
    """Print what is being done if it takes more than two seconds, and again from time to time.

    Ranks other than 0 print nothing.

    Args:
        message: What is being done; a function is called each time.
        after_s: Seconds until the message is printed.
        every_s: Seconds until it is printed again.
    """
    if distributed.launched()[0] != 0:
        yield
        return
    # Resolved now: `quietly` may have replaced it when the time has come.
    out, finished = for_the_reader(), threading.Event()

    def speak() -> None:
        pause = after_s
        while not finished.wait(pause):
            print(message() if callable(message) else message, file=out, flush=True)
            pause = every_s

    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    try:
        yield
    finally:
        finished.set()
        speaker.join()


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Drop what Python code prints, logs and warns of in this context."""
    disabled = logging.root.manager.disable
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(disabled)
