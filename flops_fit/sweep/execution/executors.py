"""flops_fit.sweep.execution.executors."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import cloudpickle

from flops_fit.records import Event, Listener
from flops_fit.sweep.data.source import Source
from flops_fit.sweep.execution.job import Job
from flops_fit.sweep.execution.local_pool import run_in_processes
from flops_fit.sweep.execution.status import all_runs
from flops_fit.sweep.execution.worker import work
from flops_fit.tracking.ledger import ENDED

_POLL_S = 2.0
_TOLD = (*ENDED, "failed")


def _start_workers(
    job: Job,
    num_missing: int,
    workers: int | str,
    executor: Any,
    source: Source | None,
    listener: Listener,
) -> None:
    count = min(count_workers(workers), num_missing)
    if executor is not None:
        payload = cloudpickle.dumps(job)
        futures = [executor.submit(work_remotely, payload, index) for index in range(count)]
        _listen_to_ledger(job, futures, listener)
        for future in futures:
            future.result()
    elif count == 1:
        work(job, listener, source)
    else:
        run_in_processes(cloudpickle.dumps((work, job)), count, listener)


def work_remotely(payload: bytes, index: int) -> None:
    """Be a worker somewhere else, with nobody listening.

    Args:
        payload: The cloudpickled job.
        index: Which worker: some executors run calls that are all alike only once.
    """
    work(cloudpickle.loads(payload), lambda event: None)


def _listen_to_ledger(job: Job, futures: Sequence[Any], listener: Listener) -> None:
    """Tell what ends, as the ledger shows it, until all workers have left."""
    size_param = _size_param(job)
    trials = {trial.trial_id: trial for trial in job.trials}
    told = {run.run_id for run in all_runs(job)}
    while True:
        left, asked = all(future.done() for future in futures), time.monotonic()
        for run in all_runs(job):
            if run.run_id in told or run.trial_id not in trials or run.state not in _TOLD:
                continue
            told.add(run.run_id)
            label = trials[run.trial_id].label(size_param)
            flops = trials[run.trial_id].flops if run.state in ENDED else 0.0
            listener(Event(run.trial_id, label, flops, run.loss, run.state))
        if left:
            return
        time.sleep(max(_POLL_S, 5 * (time.monotonic() - asked)))  # a long ledger is asked less


def count_workers(workers: int | str) -> int:
    """How many workers: as asked, or for "auto" one per GPU, else one per core."""
    if workers != "auto":
        return int(workers)
    import torch

    return torch.cuda.device_count() or len(os.sched_getaffinity(0))


def _size_param(job: Job) -> str:
    return job.params.get("size_param", "size")
