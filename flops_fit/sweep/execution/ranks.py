"""A data-parallel launch: rank 0 announces trials, and the other ranks train them with it.

Rank 0 alone claims trials and writes to the stores. Each message it broadcasts is a `Trial` to
train, an exception to end with, None once no trial is left, or `_WAIT`, which shows that it lives.
In a single process a broadcast does nothing.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from flops_fit.errors import LostRankError
from flops_fit.records import Trial
from flops_fit.runtime import distributed
from flops_fit.runtime.signals import StopRequest, stop_at_boundary
from flops_fit.store.retry import without_mlflow_retries
from flops_fit.sweep.data.source import Source
from flops_fit.sweep.execution.job import Job
from flops_fit.sweep.training.train import train
from flops_fit.tracking.outbox import deliver_left

_LOG = logging.getLogger("flops_fit")
_WAIT = "wait"


def announce(trial: Trial) -> None:
    """On rank 0: have the other ranks train a trial together with this one."""
    distributed.broadcast(trial)


def keep_waiting() -> None:
    """On rank 0: show the other ranks that it lives and waits, before their timeout passes."""
    distributed.broadcast(_WAIT)


@contextlib.contextmanager
def other_ranks_following(job: Job, source: Source | None) -> Iterator[bool]:
    """Lead the other ranks through the block, or follow.

    Yields:
        True on rank 0, whose block claims and announces trials. False on other ranks, after they
        have trained all that was announced.

    Raises:
        LostRankError: A rank is gone, or silent beyond the timeout.
    """
    if distributed.rank():
        follow(job, source)
        yield False
        return
    try:
        with without_mlflow_retries():
            deliver_left(job.ledger, job.journal_folder)
            yield True
    except LostRankError:
        raise  # there is nobody left to tell
    except BaseException as error:
        distributed.broadcast(distributed.portable(error))
        raise
    distributed.broadcast(None)


def follow(job: Job, source: Source | None = None) -> None:
    """On another rank than 0: train what rank 0 announces, until it has no more.

    Args:
        job: The same job as on rank 0.
        source: The data, if it is open already.

    Raises:
        BaseException: The error that rank 0 ends with.
        LostRankError: A rank is gone, or silent beyond the timeout.
    """
    source = source or job.task.open()
    with stop_at_boundary(patient=True) as stop:
        while (message := distributed.broadcast(None)) is not None:
            if isinstance(message, BaseException):
                raise message
            if isinstance(message, Trial):
                _train_along(job, source, message, stop)


def _train_along(job: Job, source: Source, trial: Trial, stop: StopRequest) -> None:
    try:
        train(job.task, source, trial, job.recipe, lambda point: None, None, stop)
    except LostRankError:
        raise
    except BaseException:  # all ranks raise alike; rank 0 records it and announces what is next
        _LOG.debug(
            "trial %s ended early on rank %d", trial.trial_id, distributed.rank(), exc_info=True
        )
