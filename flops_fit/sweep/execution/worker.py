"""One worker: claim a trial, train it, record it, until no trial waits.

All workers are alike, in this process or another. Under a data-parallel launch rank 0 is the
worker, and the other ranks train with it what it announces (`ranks`).
"""

from __future__ import annotations

import contextlib
import logging
import math
import platform
import shutil
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from flops_fit import tracking
from flops_fit.errors import (
    DivergedError,
    FlopsFitWarning,
    LostRankError,
    StoreError,
    in_short,
)
from flops_fit.records import Event, Listener, Trial
from flops_fit.runtime import distributed
from flops_fit.runtime.gc_freeze import frozen_gc
from flops_fit.runtime.polling import NotYetError, poll
from flops_fit.runtime.process_id import at_work
from flops_fit.runtime.signals import StopRequest, stop_at_boundary
from flops_fit.store.retry import with_timeout, without_mlflow_retries
from flops_fit.sweep.data.source import Source
from flops_fit.sweep.devices.claims import claims_file
from flops_fit.sweep.devices.device import device_here
from flops_fit.sweep.devices.sharing import SharedDevice
from flops_fit.sweep.execution import trial_queue
from flops_fit.sweep.execution.job import Job
from flops_fit.sweep.execution.ranks import announce, keep_waiting
from flops_fit.sweep.task.hashing import digest
from flops_fit.sweep.training.checkpoint import DamagedError, Keeper
from flops_fit.sweep.training.loop import Point, Report
from flops_fit.sweep.training.prepared_model import device_lost, out_of_memory
from flops_fit.sweep.training.train import Outcome, train
from flops_fit.tracking import journal
from flops_fit.tracking.ledger import ENDED
from flops_fit.tracking.outbox import PROMPT_S, Attempt, Outbox
from flops_fit.tracking.system_metrics import monitor

_LOG = logging.getLogger("flops_fit")
ALIKE = 3  # a worker stops if its first trials, this many, all fail with one kind of error


@dataclass(frozen=True)
class _Bench:
    """What a worker holds while it works.

    Attributes:
        job: What it works on.
        source: The data.
        owner: Name of this worker (`process_id`).
        listener: Called with every event.
        stop: Whether it was asked to stop.
        outbox: Sends its records to the ledger.
        device: The device that it claims for each trial; None if it claims none.
    """

    job: Job
    source: Source
    owner: str
    listener: Listener
    stop: StopRequest
    outbox: Outbox
    device: SharedDevice | None


def work(
    job: Job, listener: Listener, source: Source | None = None, *, claims_device: bool = True
) -> None:
    """Be a worker: claim, train and record trials until none waits.

    Args:
        job: What to work on.
        listener: Called with the progress of each trial.
        source: The data, if it is open already.
        claims_device: Whether it may have its GPU only in turn with the other workers of the store.

    Raises:
        KeyboardInterrupt, SystemExit: After SIGINT or SIGTERM, once the trial's state is kept.
        StoreError: A store cannot be used, or has been away for `FLOPS_FIT_TIMEOUT` seconds after
            the last trial.
    """
    source = source or job.task.open()
    if job.packing:
        source = replace(source, sharers=job.packing.per_device)
    study = trial_queue.open_study(job.study_name, job.storage, longest_first=job.longest_first)
    error_names: list[str] = []  # of the trials so far; empty where a trial did not fail

    def run(trial: Trial) -> float:
        try:
            if bench.device is None:
                loss = _run_trial(bench, trial)
            else:
                loss = bench.device.run(trial, lambda alone: _run_trial(bench, trial, alone))
        except Exception as error:
            error_names.append("" if isinstance(error, DivergedError) else type(error).__name__)
            # These end the worker, not only the trial. Under CUDA MPS another's fault may do it.
            lost = job.packing is not None and device_lost(error)
            if lost or isinstance(error, StoreError | LostRankError):
                bench.stop.error = error
            raise
        error_names.append("")
        return loss

    def has_ended(trial: Trial) -> bool:
        return _has_ended(bench, trial, study)

    def go_on() -> bool:
        if bench.stop:
            raise bench.stop.exception()
        return not (_all_failed_alike(error_names) and _no_trial_has_ended(job))

    with (
        at_work() as owner,
        without_mlflow_retries(),
        Outbox(job.ledger, job.journal_folder) as outbox,
        stop_at_boundary(patient=distributed.count() > 1) as stop,
    ):
        device = _claimed_device(job, owner, stop) if claims_device else None
        bench = _Bench(job, source, owner, listener, stop, outbox, device)
        with frozen_gc():
            trial_queue.work_through(study, job.trial_ids, owner, run, go_on, has_ended, job.plan)
        _wait_for_delivery(bench)


def _claimed_device(job: Job, owner: str, stop: StopRequest) -> SharedDevice | None:
    """The device of this process; None on a CPU, and for the ranks of a launch, with one each."""
    device = device_here() if distributed.count() == 1 else None
    if device is None:
        return None
    claims = claims_file(job.claims_folder, device.name)
    return SharedDevice(device, job.packing, claims, owner, stop)


def _has_ended(bench: _Bench, trial: Trial, study: Any) -> bool:
    """Whether a trial has a loss or has diverged, as far as can be known within a second.

    The ledger knows; while it is away, the journal and the study do.
    """
    job = bench.job
    entries = journal.entries(job.journal_folder)
    if any(entry.trial_id == trial.trial_id and entry.state in ENDED for entry in entries):
        return True

    def ask_ledger() -> bool:
        return tracking.has_ended(job.ledger, trial.trial_id, job.setting)

    if job.ledger.home is not None:
        return ask_ledger()
    answer = None if bench.outbox.fault else with_timeout(PROMPT_S, ask_ledger)
    return trial_queue.has_completed(study, trial.trial_id) if answer is None else answer


def _wait_for_delivery(bench: _Bench) -> None:
    """Wait until the ledger has all records: nothing is left to train meanwhile.

    Raises:
        StoreError: It does not take them within the timeout.
    """
    timeout_s = distributed.timeout().total_seconds()

    def check() -> None:
        if bench.outbox.all_delivered(PROMPT_S):
            return
        if bench.stop:
            raise bench.stop.exception()
        raise NotYetError("some records have not reached the MLflow store")

    try:
        poll(
            check,
            is_temporary=lambda error: isinstance(error, NotYetError),
            timeout_s=timeout_s,
            pause_s=0.0,  # `all_delivered` waits
            report=lambda error: _LOG.info("%s: waiting for it, %g s at most", error, timeout_s),
            before_pause=keep_waiting,
        )
    except NotYetError:
        raise bench.outbox.fault or StoreError(
            "the MLflow store did not take all records in time; the others are kept in "
            f"{bench.job.journal_folder} and are sent by the next call"
        ) from None


def _all_failed_alike(error_names: Sequence[str]) -> bool:
    """Whether all of a worker's trials so far failed, and with one kind of error."""
    return len(error_names) >= ALIKE and len(set(error_names)) == 1 and error_names[0] != ""


def _no_trial_has_ended(job: Job) -> bool:
    """Whether no worker has finished a trial: then the other trials would probably fail too."""
    runs = with_timeout(10 * PROMPT_S, lambda: tracking.fetch_runs(job.ledger, job.setting))
    return runs is not None and not any(run.state in ENDED for run in runs)


def _run_trial(bench: _Bench, trial: Trial, alone: bool = True) -> float:
    """Train and record one trial; however it ends, its run is closed with the reason.

    Args:
        bench: What the worker holds.
        trial: What to train.
        alone: Whether it has its device to itself. Else a lack of memory is not its failure.

    Returns:
        The held-out loss.
    """
    job = bench.job
    keeper = _keeper(job, trial)
    resumes = keeper.exists()
    params = {**job.params, "code": job.code, "hostname": platform.node()}
    attempt = bench.outbox.begin(trial, job.setting, params, bench.owner, resumes=resumes)
    event = Event(trial.trial_id, trial.label(job.size_param), 0.0, math.nan)
    try:
        if resumes:
            bench.listener(replace(event, state="resumed"))
        report = _reporter(job, event, attempt, bench.listener)
        announce(trial)
        with warnings.catch_warnings():
            # Our advice must not fail a trial where the caller makes errors of warnings.
            warnings.filterwarnings("default", category=FlopsFitWarning)
            outcome = train(job.task, bench.source, trial, job.recipe, report, keeper, bench.stop)
        attempt.end("complete", metrics=_metrics(trial, outcome), step=trial.num_tokens)
        keeper.clear()
        if keeper.weights is not None:
            _drop_losers(job)
    except Exception as error:
        if not alone and out_of_memory(error):
            attempt.end("planned", "out of memory beside other trials: run again alone")
            raise
        _record_failure(bench, trial, event, attempt, keeper, error)
        raise
    except BaseException:  # Ctrl-C or SIGTERM: the trial is resumed by the next call
        with contextlib.suppress(StoreError):
            attempt.end("planned", "interrupted")
        raise
    bench.listener(replace(event, flops=trial.flops, loss=outcome.loss, state="complete"))
    return outcome.loss


def _drop_losers(job: Job) -> None:
    """Delete weights that are not kept, unless the ledger takes long to say which."""

    def drop() -> None:
        job.shelf.drop_losers(tracking.fetch_runs(job.ledger, job.setting))

    with contextlib.suppress(OSError):
        with_timeout(PROMPT_S, drop)


def _record_failure(
    bench: _Bench, trial: Trial, event: Event, attempt: Attempt, keeper: Keeper, error: Exception
) -> None:
    """Close the run of a trial that diverged or failed; a store's error is not the trial's."""
    if isinstance(error, StoreError):
        return
    if isinstance(error, DivergedError):
        attempt.end("diverged", str(error))
        keeper.clear()
        bench.listener(replace(event, flops=trial.flops, state="diverged"))
        return
    if isinstance(error, DamagedError):
        keeper.clear()  # the next attempt starts over
    attempt.end("failed", in_short(error), "".join(traceback.format_exception(error)))
    bench.listener(replace(event, state="failed"))
    _LOG.warning("%s failed: %s: %s", event.label, type(error).__name__, error)


def _keeper(job: Job, trial: Trial) -> Keeper:
    """A trial's checkpoints; those that other code has written are logged and removed."""
    folder = job.checkpoints / f"{trial.trial_id}-{digest(job.code)[:8]}"
    for found in job.checkpoints.glob(f"{trial.trial_id}*"):
        if found != folder:
            _LOG.warning(
                "%s was written by other code or another version: the trial starts over", found
            )
            shutil.rmtree(found, ignore_errors=True)
    return Keeper(folder, job.recipe.checkpoint_every, job.shelf.file_for(trial, job.code))


def _reporter(job: Job, event: Event, attempt: Attempt, listener: Listener) -> Report:
    """A function that records each point of the training curve, and passes on some as events."""
    last_event = 0.0
    read_machine = monitor()

    def report(point: Point) -> None:
        nonlocal last_event
        attempt.add(
            point.num_tokens,
            **read_machine(),
            train_loss=point.train_loss,
            learning_rate=point.learning_rate,
            tokens_per_second=point.tokens_per_second,
        )
        if time.monotonic() - last_event > job.seconds_between_events:
            last_event = time.monotonic()
            progress = replace(
                event,
                flops=point.flops,
                loss=point.train_loss,
                tokens_per_second=point.tokens_per_second,
            )
            listener(progress)

    return report


def _metrics(trial: Trial, outcome: Outcome) -> dict[str, float]:
    """The final metrics of a run, by name."""
    return {
        "loss": outcome.loss,
        "flops": outcome.flops,
        "wall_time_s": outcome.wall_time_s,
        "tokens_per_second": outcome.tokens_per_second,
        "epochs": outcome.epochs,
        **_counted(outcome),
        **{f"eval_{name}": value for name, value in outcome.metrics.items()},
    }


def _counted(outcome: Outcome) -> dict[str, float]:
    """D as it was trained, where it may differ from the plan: examples differ in length."""
    if outcome.num_tokens is None or outcome.padded_tokens is None:
        return {}
    return {
        "num_tokens": float(outcome.num_tokens),
        "padded_tokens": float(outcome.padded_tokens),
    }
