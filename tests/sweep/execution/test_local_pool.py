"""Worker processes: they end with their driver, and the driver outlasts theirs."""

import queue
import signal
import subprocess
import sys
import threading

import cloudpickle
import pytest

from flops_fit.records import Event
from flops_fit.sweep.execution.local_pool import LocalPool, _read


def talk_on(job, send):
    """Send events for ever and ignore SIGTERM; the driver's end must be noticed at once."""
    import signal
    import sys

    from flops_fit.records import Event

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.modules["__main__"]._STOP_S = 0.5
    while True:
        send(Event("0" * 16, job, 0.0, float("nan")))


def test_a_worker_that_misses_the_signal_is_gone_soon_after_its_driver_and_says_nothing():
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        payload = cloudpickle.dumps((talk_on, "a job"))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", "flops_fit.sweep.execution.local_pool"]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as worker:
        worker.stdin.write(len(payload).to_bytes(8, "big") + payload)
        worker.stdin.flush()
        assert b"a job" in worker.stdout.readline()
        worker.stdout.close()
        worker.stdin.close()
        assert worker.wait() == -signal.SIGKILL
        assert worker.stderr.read() == b""


def test_a_line_that_a_kill_cuts_off_is_passed_over_and_the_worker_is_counted_out():
    line = '{"trial_id": "a", "label": "b", "flops": 1.0, "loss": null}'
    heard: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    busy = threading.Event()
    busy.set()
    command = [sys.executable, "-c", f"print({line!r}); print({line[:20]!r}, end='')"]
    _read(subprocess.Popen(command, stdout=subprocess.PIPE), heard, busy)
    assert heard.get_nowait().label == "b"
    assert heard.get_nowait() is None
    assert heard.empty()


def say_who(job, send):
    """Send the id of the process; end it if so asked."""
    import os

    from flops_fit.records import Event

    send(Event("0" * 16, str(os.getpid()), 0.0, 1.0))
    if job == "die":
        os._exit(1)


@pytest.mark.slow
def test_processes_stay_between_rounds_and_the_dead_are_replaced():
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        stay, die = (cloudpickle.dumps((say_who, job)) for job in ("stay", "die"))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    rounds = []
    with LocalPool() as pool:
        for payload, count in ((stay, 1), (stay, 2), (die, 1), (stay, 2)):
            heard: list[Event] = []
            pool.run(payload, count, heard.append)
            rounds.append({event.label for event in heard})
        processes = [worker.process for worker in pool._workers]
    first, second, third, fourth = rounds
    assert first < second
    assert third == first  # the process that died
    assert len(fourth) == 2
    assert not fourth & first
    assert all(process.returncode is not None for process in processes)
