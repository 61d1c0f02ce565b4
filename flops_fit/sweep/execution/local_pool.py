"""Worker processes on this machine: one per GPU, or one per core with its share of the threads.

A worker is a fresh interpreter (`python -m flops_fit.sweep.execution.local_pool`), not a fork and
not a re-run of the caller's script, so models defined in `__main__` or a notebook work and scripts
need no guard. What to call comes by cloudpickle on its standard input; that pipe closing tells it
that its driver is gone. Events go back as JSON lines; the user's own prints go to standard error.
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

_STOP_S = 20.0


def run_in_processes(payload: bytes, count: int, listener: Listener) -> None:
    """Run `count` workers until all have left, passing their events on.

    Args:
        payload: A cloudpickled pair (function, job); called as `function(job, listener)`.
        count: How many.
        listener: Told every event.

    Raises:
        KeyboardInterrupt: After Ctrl-C, once the workers have recorded where they are.
    """
    events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    processes = [_spawn(payload, index, count) for index in range(count)]
    for process in processes:
        threading.Thread(target=_read, args=(process, events), daemon=True).start()
    try:
        left = 0
        while left < count:
            event = events.get()
            if event is None:
                left += 1
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
        start_new_session=True,  # Ctrl-C reaches the driver, which tells the workers once
    )
    assert process.stdin is not None
    try:
        process.stdin.write(len(payload).to_bytes(8, "big") + payload)
        process.stdin.flush()
    except BrokenPipeError:
        pass  # it died at birth; the driver sees that nothing came of it
    return process


def _environment(index: int, count: int) -> dict[str, str]:
    import torch

    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
    gpus = torch.cuda.device_count()
    if gpus:
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(gpus)))).split(",")
        environment["CUDA_VISIBLE_DEVICES"] = seen[index % gpus]
    else:
        threads = max(1, len(os.sched_getaffinity(0)) // count)
        environment["OMP_NUM_THREADS"] = str(threads)
        environment.setdefault("OMP_WAIT_POLICY", "passive")  # see `threads`
    return environment


def _read(process: subprocess.Popen[bytes], events: queue.SimpleQueue[Event | None]) -> None:
    assert process.stdout is not None
    with process.stdout:
        for line in process.stdout:
            if not line.endswith(b"\n"):
                break  # cut off by a kill
            fields: dict[str, Any] = json.loads(line)
            told: dict[str, Any] = {k: math.nan if v is None else v for k, v in fields.items()}
            events.put(Event(**told))
    process.wait()
    events.put(None)


def _stop(processes: list[subprocess.Popen[bytes]]) -> None:
    """Ask those still there to stop, wait for them to record it, then insist."""
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
    """The worker's side."""
    signal.signal(signal.SIGTERM, _interrupt)
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    pipe = io.FileIO(0, closefd=False)
    payload = _exactly(pipe, int.from_bytes(_exactly(pipe, 8), "big"))
    function, job = pickle.loads(payload)  # from our own driver's pipe
    threading.Thread(target=_end_with_driver, daemon=True).start()

    def tell(event: Event) -> None:
        fields = asdict(event)
        for key in ("loss", "tokens_per_second"):  # JSON has no NaN
            fields[key] = fields[key] if math.isfinite(fields[key]) else None
        with contextlib.suppress(BrokenPipeError):  # nobody listens: we are about to be stopped
            out.write(json.dumps(fields) + "\n")

    try:
        function(job, tell)
    except KeyboardInterrupt:
        sys.exit(143)


def _exactly(pipe: io.FileIO, size: int) -> bytes:
    """That many bytes; unbuffered, so that no lock is held when the interpreter ends."""
    chunks = []
    while size:
        chunk = pipe.read(size)
        if not chunk:
            raise EOFError("the driver closed the pipe before it had sent the job")
        chunks.append(chunk)
        size -= len(chunk)
    return b"".join(chunks)


def _end_with_driver() -> None:
    """As `_stop` would: Python loses a signal whose exception falls into an object's end."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_STOP_S)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    _main()
