"""Worker processes on this machine: one per GPU, or one per core with its share of the threads.

A worker is a new interpreter (`python -m flops_fit.sweep.execution.local_pool`), neither a fork nor
a re-run of the caller's script. So models defined in `__main__` or a notebook work, and scripts
need no `if __name__ == "__main__"`. The function to call arrives by cloudpickle on standard input;
when that pipe closes, the worker knows that its driver is gone. Events return as JSON lines on
standard output; what the user's code prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import pickle
import queue
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


def run_in_processes(payload: bytes, count: int, listener: Listener) -> None:
    """Run `count` workers until all have left, and pass on their events.

    Args:
        payload: A cloudpickled pair (function, job); called as `function(job, listener)`.
        count: Number of workers.
        listener: Called with every event.

    Raises:
        KeyboardInterrupt: After Ctrl-C, once the workers have recorded where they are.
    """
    events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()  # None: a worker has left
    processes = [_spawn(payload, index, count) for index in range(count)]
    for process in processes:
        threading.Thread(target=_read, args=(process, events), daemon=True).start()
    try:
        num_left = 0
        while num_left < count:
            event = events.get()
            if event is None:
                num_left += 1
            else:
                listener(event)
    finally:
        _stop(processes)


def _spawn(payload: bytes, index: int, count: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "flops_fit.sweep.execution.local_pool"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=_environment(index, count),
        start_new_session=True,  # Ctrl-C reaches the driver alone, which then stops the workers
    )
    assert process.stdin is not None
    try:
        process.stdin.write(len(payload).to_bytes(_LENGTH_BYTES, "big") + payload)
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it died as it started; the driver finds its trials missing
    return process


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
    else:
        threads = max(1, len(os.sched_getaffinity(0)) // count)
        environment["OMP_NUM_THREADS"] = str(threads)
        environment.setdefault("OMP_WAIT_POLICY", "passive")  # see `runtime.cpu_threads`
    return environment


def _read(process: subprocess.Popen[bytes], events: queue.SimpleQueue[Event | None]) -> None:
    """Queue a worker's events, then None once it has left; the body of a thread."""
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            if not line.endswith(b"\n"):
                break  # the worker was killed while it wrote
            sent: dict[str, Any] = json.loads(line)
            fields: dict[str, Any] = {
                name: math.nan if value is None else value for name, value in sent.items()
            }
            events.put(Event(**fields))
    process.wait()
    events.put(None)


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Send SIGTERM to workers that still run, wait until they have recorded that, then kill."""
    for process in processes:
        if process.poll() is None:
            process.terminate()
    for process in processes:
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
        if process.stdin is not None:
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
    payload = _exactly(pipe, int.from_bytes(_exactly(pipe, _LENGTH_BYTES), "big"))
    function, job = pickle.loads(payload)  # from our own driver's pipe
    threading.Thread(target=_end_with_driver, daemon=True).start()

    def send(event: Event) -> None:
        fields = asdict(event)
        for name in ("loss", "tokens_per_second"):  # JSON has no NaN
            fields[name] = fields[name] if math.isfinite(fields[name]) else None
        with contextlib.suppress(BrokenPipeError):  # the driver is gone: `_end_with_driver` acts
            out.write(json.dumps(fields) + "\n")

    try:
        function(job, send)
    except KeyboardInterrupt:
        sys.exit(_TERMINATED)


def _exactly(pipe: io.FileIO, size: int) -> bytes:
    """Read `size` bytes; unbuffered, so that no lock is held when the interpreter ends."""
    chunks = []
    while size:
        chunk = pipe.read(size)
        if not chunk:
            raise EOFError("the driver closed the pipe before it had sent the job")
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


def _end_with_driver() -> None:
    """Once the driver is gone, stop this process as `_stop` would; the body of a thread.

    SIGTERM alone may not do: Python drops an exception that a signal raises inside `__del__`.
    """
    os.read(0, 1)  # returns when the driver's end of the pipe closes
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_STOP_S)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _main()
