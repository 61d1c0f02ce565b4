"""Starting workers: in this process, in processes of its own, or through an executor's `submit`."""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flops_fit.records import Event, Listener
from flops_fit.runtime import sending
from flops_fit.sweep.data.source import Source
from flops_fit.sweep.devices.claims import check_claims
from flops_fit.sweep.devices.device import count_devices
from flops_fit.sweep.execution.job import Job
from flops_fit.sweep.execution.local_pool import LocalPool
from flops_fit.sweep.execution.status import all_runs
from flops_fit.sweep.execution.worker import work
from flops_fit.tracking.ledger import ENDED
from flops_fit.tracking.queries import latest_runs

_POLL_S = 2.0
_LOAD = 5  # the ledger is idle at least this many times as long as a query of it takes
_REPORTED_STATES = (*ENDED, "failed")


def start_workers(
    job: Job,
    num_missing: int,
    workers: int | str,
    executor: Any,
    source: Source | None,
    listener: Listener,
    pool: LocalPool,
) -> None:
    """Run workers until all have left.

    Args:
        job: What they work on.
        num_missing: Trials to be run; no more workers than that are started.
        workers: As many workers, or "auto".
        executor: Anything with `submit()`, to run them elsewhere; None for this machine.
        source: The data, if it is open already, for a worker in this process.
        listener: Called with every event.
        pool: The processes of this machine that are left from an earlier round.
    """
    share = count_workers(workers)
    count = min(share, num_missing)
    job = replace(job, longest_first=job.longest_first or share > 1)
    if executor is not None:
        payload = sending.dumps(job)
        futures = [executor.submit(work_remotely, payload, index) for index in range(count)]
        _listen_to_ledger(job, futures, listener)
        for future in futures:
            future.result()
    elif share == 1:
        work(job, listener, source)
    else:
        devices = count_devices()
        if devices or job.packing is not None:
            check_claims(job.claims_folder)  # here, where its error is the sweep's
        if job.packing is not None:
            job = replace(job, packing=job.packing.among(max(count, len(pool)), devices or 1))
        pool.run(sending.dumps((_work_here, job)), count, listener, share)


_OPENED: dict[str, Source] = {}  # in a process of the pool: the data of its sweep, opened once


def _work_here(job: Job, listener: Listener) -> None:
    """Be a worker in a process that may have worked in an earlier round."""
    if job.setting not in _OPENED:
        _OPENED[job.setting] = job.task.open()
    work(job, listener, _OPENED[job.setting])


def work_remotely(payload: bytes, index: int) -> None:
    """Be a worker in another process, without a listener.

    Args:
        payload: The cloudpickled job.
        index: Number of the worker: some executors run identical calls only once.
    """
    job = pickle.loads(payload)  # from our own driver
    work(job, lambda event: None, claims_device=False)  # its executor has given it its place
    if job.ledger.home is None:  # the driver may be on a machine without this one's disk
        job.shelf.log(latest_runs(all_runs(job)), ())


def _listen_to_ledger(job: Job, futures: Sequence[Any], listener: Listener) -> None:
    """Report trials that end, as the ledger shows them, until all workers have left."""
    trials = {trial.trial_id: trial for trial in job.trials}
    reported = {run.run_id for run in all_runs(job)}
    while True:
        # Checked before the query, so that the last query sees the last trial.
        all_left = all(future.done() for future in futures)
        started = time.monotonic()
        for run in all_runs(job):
            is_new = run.run_id not in reported and run.trial_id in trials
            if not is_new or run.state not in _REPORTED_STATES:
                continue
            reported.add(run.run_id)
            trial = trials[run.trial_id]
            flops = trial.flops if run.state in ENDED else 0.0
            label = trial.label(job.size_param)
            listener(Event(run.trial_id, label, flops, run.loss, run.state))
        if all_left:
            return
        time.sleep(max(_POLL_S, _LOAD * (time.monotonic() - started)))


def count_side_by_side(workers: int | str) -> int:
    """Number of devices that so many workers have: GPUs, or parts of the CPU, one for each."""
    count = count_workers(workers)
    return min(count, count_devices() or count)


def count_workers(workers: int | str, per_device: int | None = None) -> int:
    """Number of workers: as given, or for "auto" so many per GPU, else one per core."""
    if workers != "auto":
        return int(workers)
    return count_devices() * (per_device or 1) or len(os.sched_getaffinity(0))
