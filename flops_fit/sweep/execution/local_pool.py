"""Worker processes on this machine, each with its GPU, or with its share of the CPU threads.

A worker is a new interpreter (`python -m flops_fit.sweep.execution.local_pool`), neither a fork nor
a re-run of the caller's script. So models defined in `__main__` or a notebook work, and scripts
need no `if __name__ == "__main__"`. The function to call arrives by cloudpickle on standard input,
and after it the next one, for a sweep that grows has several rounds; when that pipe closes, the
worker knows that its driver is gone. Events return as JSON lines on standard output, and an empty
object at the end of each call; what the user's code prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import os
import pickle
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from typing import Any

from flops_fit.records import Event, Listener

_STOP_S = 20.0  # from SIGTERM to SIGKILL
_LENGTH_BYTES = 8  # before the payload
_TERMINATED = 128 + signal.SIGTERM  # exit code, as a shell shows it


class LocalPool:
    """Worker processes that stay between the rounds of a sweep; leave it to end them."""

    def __init__(self) -> None:
        self._workers: list[_Worker] = []
        self._events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()  # None: one has ended

    def __enter__(self) -> LocalPool:
        return self

    def __exit__(self, *exc_info: object) -> None:
        _stop([worker.process for worker in self._workers], patient=exc_info[0] is None)

    def __len__(self) -> int:
        return len(self._workers)

    def run(self, payload: bytes, count: int, listener: Listener, share: int | None = None) -> None:
        """Run a function in `count` processes until all have ended, and pass on their events.

        Args:
            payload: A cloudpickled pair (function, job); called as `function(job, listener)`.
            count: Number of processes; those that are idle are taken first.
            listener: Called with every event.
            share: Among how many processes the cores are shared; by default `count`.

        Raises:
            KeyboardInterrupt: After Ctrl-C.
        """
        dead = [worker for worker in self._workers if worker.process.poll() is not None]
        _stop([worker.process for worker in dead], patient=True)
        self._workers = [worker for worker in self._workers if worker not in dead]
        used = {worker.index for worker in self._workers}
        free = (index for index in itertools.count() if index not in used)
        while len(self._workers) < count:
            self._workers.append(_Worker(next(free), share or count, self._events))
        for worker in self._workers[:count]:
            worker.send(payload)
        num_ended = 0
        while num_ended < count:
            event = self._events.get()
            if event is None:
                num_ended += 1
            else:
                listener(event)


def run_in_processes(payload: bytes, count: int, listener: Listener) -> None:
    """Run a function in processes of their own; arguments are as for `LocalPool.run`."""
    with LocalPool() as pool:
        pool.run(payload, count, listener)


class _Worker:
    """A worker process, and a thread that queues its events.

    Args:
        index: Number of the worker.
        count: Number of all workers, which share the cores.
        events: Where its events go; None each time it has ended what it was sent.
    """

    def __init__(self, index: int, count: int, events: queue.SimpleQueue[Event | None]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flops_fit.sweep.execution.local_pool"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=_environment(index, count),
            start_new_session=True,  # Ctrl-C reaches the driver alone, which then stops the workers
        )
        self.index, self._events = index, events
        self._busy = threading.Event()
        arguments = (self.process, events, self._busy)
        self._reader = threading.Thread(target=_read, args=arguments, daemon=True)
        self._reader.start()

    def send(self, payload: bytes) -> None:
        """Send what to call."""
        self._busy.set()
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(len(payload).to_bytes(_LENGTH_BYTES, "big") + payload)
            self.process.stdin.flush()
        except BrokenPipeError:
            # It has died: it is counted out here, if its reader had ended before it was busy. The
            # driver finds its trials missing.
            self._reader.join()
            if self._busy.is_set():
                self._busy.clear()
                self._events.put(None)


def _environment(index: int, count: int) -> dict[str, str]:
    """Environment of one worker: our import path, and its GPU or its share of the cores."""
    import torch

    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    gpus = torch.cuda.device_count()
    if gpus:
        all_gpus = ",".join(map(str, range(gpus)))
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", all_gpus).split(",")
        environment["CUDA_VISIBLE_DEVICES"] = visible[index % gpus]
    if count > gpus:  # they share cores too
        threads = max(1, len(os.sched_getaffinity(0)) // count)
        environment["OMP_NUM_THREADS"] = str(threads)
        environment.setdefault("OMP_WAIT_POLICY", "passive")  # see `runtime.cpu_threads`
    return environment


def _read(
    process: subprocess.Popen[bytes],
    events: queue.SimpleQueue[Event | None],
    busy: threading.Event,
) -> None:
    """Queue a worker's events, and None each time it has ended its work; the body of a thread."""
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            if not line.endswith(b"\n"):
                break  # the worker was killed while it wrote
            sent: dict[str, Any] = json.loads(line)
            if not sent:
                busy.clear()
                events.put(None)
                continue
            fields: dict[str, Any] = {
                name: math.nan if value is None else value for name, value in sent.items()
            }
            events.put(Event(**fields))
    process.wait()
    if busy.is_set():
        busy.clear()
        events.put(None)


def _stop(processes: list[subprocess.Popen[bytes]], *, patient: bool) -> None:
    """End the workers: idle ones by closing their pipes, others by SIGTERM, and at last SIGKILL.

    Args:
        processes: The workers.
        patient: Whether all are idle.
    """
    for process in processes:
        if process.poll() is None and not patient:
            process.terminate()
        if process.stdin is not None and patient:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
    for process in processes:
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def _main() -> None:
    """Be a worker process."""
    signal.signal(signal.SIGTERM, _interrupt)
    # Standard output carries the events; the user's prints go to standard error instead.
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    pipe = io.FileIO(0, closefd=False)
    at_work = threading.Event()
    threading.Thread(target=_end_with_driver, args=(at_work,), daemon=True).start()

    def send(event: Event) -> None:
        fields = asdict(event)
        for name in ("loss", "tokens_per_second"):  # JSON has no NaN
            fields[name] = fields[name] if math.isfinite(fields[name]) else None
        with contextlib.suppress(BrokenPipeError):  # the driver is gone: `_end_with_driver` acts
            out.write(json.dumps(fields) + "\n")

    try:
        while header := _exactly(pipe, _LENGTH_BYTES):
            payload = _exactly(pipe, int.from_bytes(header, "big"))
            function, job = pickle.loads(payload)  # from our own driver's pipe
            at_work.set()
            function(job, send)
            at_work.clear()
            out.write("{}\n")  # ended; the next may come
        # The pipe is closed: `_end_with_driver` sees that too, and has nothing to stop any more.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except KeyboardInterrupt:
        sys.exit(_TERMINATED)


def _exactly(pipe: io.FileIO, size: int) -> bytes:
    """Read `size` bytes, or fewer at the pipe's end.

    Unbuffered, so that no lock is held when the interpreter ends.
    """
    chunks = []
    while size:
        chunk = pipe.read(size)
        if not chunk:
            break
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


def _end_with_driver(at_work: threading.Event) -> None:
    """Once the driver is gone, stop this process as `_stop` would; the body of a thread.

    An idle process ends by itself. SIGTERM alone may not do: Python drops an exception that a
    signal raises inside `__del__`.
    """
    pipe = select.poll()
    pipe.register(0, 0)  # no data is waited for, only the close of the driver's end
    pipe.poll()
    if at_work.is_set():
        os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_STOP_S)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _main()
