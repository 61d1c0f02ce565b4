"""How many workers are started, and what is heard of those that run elsewhere."""

import os
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
import torch
from sweeps import SMALL_BUDGETS, SmallSweep

from flops_fit.records import Event
from flops_fit.sweep.execution import executors
from flops_fit.sweep.execution.status import all_runs


class Inline:
    """An executor that runs what is submitted at once, in this process."""

    def __init__(self) -> None:
        self.num_submitted = 0

    def submit(self, function, *arguments):
        self.num_submitted += 1
        future: Future = Future()
        future.set_result(function(*arguments))
        return future


@pytest.mark.slow
def test_what_ends_elsewhere_is_heard_from_the_ledger(
    small: SmallSweep, planted, train_with, monkeypatch
):
    first_look = threading.Event()  # runs that are there by then count as reported

    def look(job):
        runs = all_runs(job)
        first_look.set()
        return runs

    monkeypatch.setattr(executors, "all_runs", look)
    train_with(lambda trial, keeper: first_look.wait())
    job = small.open()
    heard: list[Event] = []
    with ThreadPoolExecutor(1) as pool:
        elsewhere = pool.submit(small.run)
        executors._listen_to_ledger(job, [elsewhere], heard.append)
    assert sorted(event.trial_id for event in heard) == sorted(planted.trained)
    assert {event.state for event in heard} == {"complete"}
    assert sum(event.flops for event in heard) == small.planned.plan.total_flops


def test_no_more_workers_are_submitted_than_trials_are_missing(store, planted):
    executor = Inline()
    SmallSweep(store, budgets=SMALL_BUDGETS[:1]).run(executor=executor, workers=20)
    assert executor.num_submitted == len(planted.trained) == 4


@pytest.mark.parametrize(("gpus", "expected"), [(3, 3), (0, len(os.sched_getaffinity(0)))])
def test_auto_is_a_worker_for_each_gpu_or_core(monkeypatch, gpus, expected):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    assert executors.count_workers("auto") == expected
    assert executors.count_workers(5) == 5
