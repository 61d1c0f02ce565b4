"""The process in which the parts of `gpu.py` run, ended with all that it has started.

A part may be killed, leave its process, break its CUDA context or hang. The next part then has a
new process. Nothing but the standard library is imported before it is needed.
"""

from __future__ import annotations

import contextlib
import importlib
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

STOP_S = 5.0  # from SIGTERM to SIGKILL


class PartError(Exception):
    """A part has failed, and its process can be used no more; the text says how."""


class NoStartError(Exception):
    """No part can run here; the text says why."""


class Parts:
    """A process in which parts run, one after the other.

    Args:
        module: Name of the module whose functions are the parts.
        tiny: Whether on a CPU, in seconds.
        began: When the script began; all times are of `time.monotonic`.
        latest: When it must be ready.

    Raises:
        NoStartError: It cannot run parts.
    """

    def __init__(self, module: str, tiny: bool, began: float, latest: float) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._pipe, other = spawn.Pipe()
        self._process = spawn.Process(target=_run_parts, args=(other, module, tiny, began))
        self._process.start()
        other.close()
        try:
            kind, self.machine = self._next(latest)
            if kind == "failed":
                raise PartError(self.machine)
        except BaseException as error:
            self.end()
            if isinstance(error, PartError):
                raise NoStartError(str(error)) from None
            raise

    def rows(self, name: str, ends_at: float, latest: float) -> Iterator[dict[str, Any]]:
        """Run a part.

        Args:
            name: Its name.
            ends_at: When it should have ended.
            latest: When it is given up.

        Raises:
            PartError: It failed.
        """
        with contextlib.suppress(OSError):  # if the process has died, `_next` says so
            self._pipe.send((name, ends_at))
        while True:
            kind, value = self._next(latest)
            if kind == "failed":
                raise PartError(value)
            if kind == "done":
                return
            yield value

    def _next(self, latest: float) -> tuple[str, Any]:
        """The next message of the process."""
        if not wait([self._pipe, self._process.sentinel], max(0.0, latest - time.monotonic())):
            raise PartError("it took too long")
        try:
            return self._pipe.recv()
        except (EOFError, OSError):
            self._process.join(STOP_S)
            code = self._process.exitcode
            raise PartError(f"its process ended with exit code {code}") from None

    def end(self) -> None:
        """End the process and all that it has started."""
        started = _tree(self._process.pid)
        self._process.terminate()  # it ends what it has started, if it can
        self._process.join(STOP_S)
        for one in started:
            with contextlib.suppress(Exception):  # psutil's, where it has ended
                one.kill()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid or 0, signal.SIGKILL)
        self._process.join()
        self._pipe.close()


def _tree(pid: int | None) -> list[Any]:
    """A process and all that it has started, also in sessions of their own."""
    try:
        import psutil
    except ImportError:  # then no part has begun
        return []
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def say(began: float, text: str) -> None:
    """Print progress."""
    print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)


def _run_parts(pipe: Connection, module: str, tiny: bool, began: float) -> None:
    """Run parts as they are asked for, until one fails; the body of the process."""
    os.setsid()  # Ctrl-C reaches the script alone, which then ends this process
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        parts: Any = importlib.import_module(module)
        if not tiny and not parts.CUDA:
            pipe.send(("failed", "no GPU is seen here; --tiny tries the script on a CPU"))
            return
        pipe.send(("ready", parts.machine()))
        while True:
            name, ends_at = pipe.recv()
            bench = parts.Bench(tiny, ends_at, lambda text: say(began, text))
            for row in getattr(parts, name)(bench):
                pipe.send(("row", row))
            pipe.send(("done", None))
    except EOFError:
        return
    except Exception as error:
        say(began, traceback.format_exc())
        pipe.send(("failed", f"{type(error).__name__}: {error}"))
