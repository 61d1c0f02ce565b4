"""One worker: claim, train, record, until nothing waits.

Workers are all alike, in this process or another. Under a data-parallel launch rank 0 is the
worker, and the other ranks train with it what it announces.
"""

from __future__ import annotations

import contextlib
import logging
import math
import platform
import shutil
import time
import traceback
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flops_fit import tracking
from flops_fit.errors import DivergedError, LostRankError, StoreError, in_short
from flops_fit.records import Event, Listener, Trial
from flops_fit.runtime import distributed
from flops_fit.runtime.gc_freeze import frozen_gc
from flops_fit.runtime.process_id import at_work
from flops_fit.runtime.signals import StopRequest, stop_at_boundary
from flops_fit.store.retry import prompt_faults, with_timeout
from flops_fit.sweep.data.source import Source
from flops_fit.sweep.execution import trial_queue as dispatch
from flops_fit.sweep.execution.job import Job
from flops_fit.sweep.task.hashing import digest
from flops_fit.sweep.training.checkpoint import DamagedError, Keeper
from flops_fit.sweep.training.loop import Point, Report
from flops_fit.sweep.training.train import Outcome, train
from flops_fit.tracking import journal
from flops_fit.tracking.ledger import ENDED
from flops_fit.tracking.outbox import PROMPT_S, Attempt, Delivery
from flops_fit.tracking.system_metrics import monitor

_LOG = logging.getLogger("flops_fit")
ALIKE = 3  # the first trials of a worker that fail alike before it starts no other


def work(job: Job, listener: Listener, source: Source | None = None) -> None:
    """Be a worker: claim, train, record, until no trial waits.

    Args:
        job: What to work on.
        listener: Told how far each trial is.
        source: The data, where it is already open.

    Raises:
        KeyboardInterrupt, SystemExit: After SIGINT or SIGTERM, once the trial's state is kept.
        StoreError: A store cannot be used, or has been away for `FLOPS_FIT_TIMEOUT` seconds after
            the last trial.
    """
    source = source or job.task.open()
    study = dispatch.open_study(job.study_name, job.storage)
    wanted = {trial.trial_id for trial in job.trials}
    ends: list[str] = []  # of the trials so far: the kind of error, or empty

    def run(trial: Trial) -> float:
        try:
            loss = _run_trial(job, source, trial, owner, listener, stop, delivery)
        except Exception as error:
            ends.append("" if isinstance(error, DivergedError) else type(error).__name__)
            if isinstance(error, StoreError | LostRankError):
                stop.error = error
            raise
        ends.append("")
        return loss

    def has_ended(trial: Trial) -> bool:
        return _has_ended(job, trial, study, delivery)

    def go_on() -> bool:
        if stop:
            raise stop.exception()
        return not (_alike(ends) and _nothing_has_ended(job))

    with (
        at_work() as owner,
        prompt_faults(),
        Delivery(job.ledger, job.spool) as delivery,
        stop_at_boundary(patient=distributed.count() > 1) as stop,
    ):
        with frozen_gc():
            dispatch.work_through(study, wanted, owner, run, go_on, has_ended)
        _see_delivered(job, delivery, stop)


def _has_ended(job: Job, trial: Trial, study: Any, delivery: Delivery) -> bool:
    """Whether a trial has a loss or has diverged, as far as can be known within a second.

    The ledger knows; while it is away, the spool and the study do.
    """
    ends = {entry.trial_id for entry in journal.entries(job.spool) if entry.state in ENDED}
    if trial.trial_id in ends:
        return True
    if job.ledger.home is not None:
        return tracking.has_ended(job.ledger, trial.trial_id, job.setting)
    known = None
    if delivery.fault is None:
        known = with_timeout(
            PROMPT_S, lambda: tracking.has_ended(job.ledger, trial.trial_id, job.setting)
        )
    return dispatch.has_completed(study, trial.trial_id) if known is None else known


def _see_delivered(job: Job, delivery: Delivery, stop: StopRequest) -> None:
    """With nothing left to train there is time to wait for the ledger."""
    deadline = time.monotonic() + distributed.timeout().total_seconds()
    while not delivery.all_delivered(PROMPT_S):
        if stop:
            raise stop.exception()
        if time.monotonic() > deadline:
            raise delivery.fault or StoreError(
                f"the MLflow store is too slow; what it has not got is kept in {job.spool}: call "
                "again"
            )
        distributed.broadcast("wait")


def _alike(ends: Sequence[str]) -> bool:
    """Whether a worker's trials so far all failed, and alike."""
    return len(ends) >= ALIKE and len(set(ends)) == 1 and ends[0] != ""


def _nothing_has_ended(job: Job) -> bool:
    """Whether no trial of the sweep came to an end: then the others would fail too."""
    runs = with_timeout(10 * PROMPT_S, lambda: tracking.fetch_runs(job.ledger, job.setting))
    return runs is not None and not any(run.state in ENDED for run in runs)


def follow(job: Job, source: Source | None = None) -> None:
    """Be another rank than 0: train what rank 0 announces, until it has no more.

    Raises:
        BaseException: What rank 0 ends with.
        LostRankError: A rank is gone, or silent beyond the timeout.
    """
    source = source or job.task.open()
    with stop_at_boundary(patient=True) as stop:
        while (told := distributed.broadcast(None)) is not None:
            if isinstance(told, BaseException):
                raise told
            if isinstance(told, Trial):
                _train_along(job, source, told, stop)


def _train_along(job: Job, source: Source, trial: Trial, stop: StopRequest) -> None:
    try:
        train(job.task, source, trial, job.recipe, lambda point: None, None, stop)
    except LostRankError:
        raise
    except BaseException:  # raised by all alike: rank 0 knows, and says what comes next
        _LOG.debug(
            "trial %s ended early on rank %d", trial.trial_id, distributed.rank(), exc_info=True
        )


def _run_trial(
    job: Job,
    source: Source,
    trial: Trial,
    owner: str,
    listener: Listener,
    stop: StopRequest,
    delivery: Delivery,
) -> float:
    """Train and record one trial; whatever happens, its run is closed with its reason."""
    keeper = _keeper(job, trial)
    resumed = keeper.exists()
    params = {**job.params, "code": job.code, **_here()}
    attempt = delivery.begin(trial, job.setting, params, owner, goes_on=resumed)
    label = trial.label(job.params.get("size_param", "size"))
    event = Event(trial.trial_id, label, 0.0, math.nan)
    try:
        if resumed:
            listener(replace(event, state="resumed"))
        report = _reporter(job, event, attempt, listener)
        distributed.broadcast(trial)
        outcome = train(job.task, source, trial, job.recipe, report, keeper, stop)
        attempt.end("complete", metrics=_metrics(trial, outcome), step=trial.num_tokens)
        keeper.clear()
    except StoreError:
        raise
    except DivergedError as error:
        attempt.end("diverged", str(error))
        keeper.clear()
        listener(replace(event, flops=trial.flops, state="diverged"))
        raise
    except Exception as error:
        if isinstance(error, DamagedError):
            keeper.clear()  # the next attempt starts over
        attempt.end("failed", in_short(error), _trace(error))
        listener(replace(event, state="failed"))
        _LOG.warning("%s failed: %s: %s", label, type(error).__name__, error)
        raise
    except BaseException:
        with contextlib.suppress(StoreError):
            attempt.end("planned", "interrupted")
        raise
    listener(replace(event, flops=trial.flops, loss=outcome.loss, state="complete"))
    return outcome.loss


def _keeper(job: Job, trial: Trial) -> Keeper:
    """A trial's checkpoints; what other code has kept of it is said and removed."""
    folder = job.checkpoints / f"{trial.trial_id}-{digest(job.code)[:8]}"
    for other in job.checkpoints.glob(f"{trial.trial_id}*"):
        if other != folder:
            _LOG.warning("%s was kept by other code or another version: it starts over", other)
            shutil.rmtree(other, ignore_errors=True)
    return Keeper(folder, job.recipe.checkpoint_every)


def _reporter(job: Job, event: Event, attempt: Attempt, listener: Listener) -> Report:
    told, machine = 0.0, monitor()

    def report(point: Point) -> None:
        nonlocal told
        attempt.add(
            point.num_tokens,
            **machine(),
            train_loss=point.train_loss,
            learning_rate=point.learning_rate,
            tokens_per_second=point.tokens_per_second,
        )
        if time.monotonic() - told > job.seconds_between_events:
            told = time.monotonic()
            listener(
                replace(
                    event,
                    flops=point.flops,
                    loss=point.train_loss,
                    tokens_per_second=point.tokens_per_second,
                )
            )

    return report


def _metrics(trial: Trial, outcome: Outcome) -> dict[str, float]:
    return {
        "loss": outcome.loss,
        "flops": outcome.flops,
        "wall_time_s": outcome.wall_time_s,
        "tokens_per_second": outcome.tokens_per_second,
        "epochs": outcome.epochs,
        "num_params": float(trial.num_params),
        "log10_num_params": math.log10(trial.num_params),
        **{f"eval_{name}": value for name, value in outcome.metrics.items()},
    }


def _here() -> dict[str, str]:
    return {"hostname": platform.node()}


def _trace(error: Exception) -> str:
    return "".join(traceback.format_exception(error))
