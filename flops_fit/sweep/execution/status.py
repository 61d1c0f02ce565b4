"""The state of a sweep's trials, read from the ledger, the study and the journal.

This is the only place that decides whether a trial is missing, claimed, or left by a dead worker.
"""

from __future__ import annotations

import logging
import math
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from flops_fit import store, tracking
from flops_fit.laws.check import counted
from flops_fit.records import Run, Trial
from flops_fit.runtime import distributed
from flops_fit.runtime.polling import NotYetError, poll
from flops_fit.runtime.process_id import is_dead
from flops_fit.sweep.execution import trial_queue
from flops_fit.sweep.execution.job import Job
from flops_fit.sweep.execution.ranks import keep_waiting
from flops_fit.sweep.growth.rounds import Round
from flops_fit.sweep.growth.rounds_file import add_round
from flops_fit.tracking import journal, recording
from flops_fit.tracking.ledger import ENDED
from flops_fit.tracking.outbox import deliver_left
from flops_fit.tracking.queries import latest_runs

MAX_ATTEMPTS = 3  # of a trial that fails, or whose worker dies
PAUSE_S = 0.5
OTHERS_PAUSE_S = 2.0
BETWEEN_S = 30.0  # how long a worker waits for the next round of a sweep that grows
BEGIN_S = 10.0  # how long a worker waits for a driver that was started at the same moment
_LOG = logging.getLogger("flops_fit")
_T = TypeVar("_T")


def all_runs(job: Job) -> list[Run]:
    """All runs of the job's setting, latest first; a server that is away is waited for."""
    return _ask_store(job, lambda: tracking.fetch_all_runs(job.ledger, job.setting))


def _ask_store(job: Job, ask: Callable[[], _T]) -> _T:
    """Ask a store; a server that is away is waited for, a file is not."""
    timeout_s = distributed.timeout().total_seconds() if job.ledger.home is None else 0.0
    return store.wait_for_store(ask, timeout_s, before_pause=keep_waiting)


def record_round(job: Job, found: Round) -> None:
    """Write down a round of a sweep with a goal."""
    _ask_store(job, lambda: add_round(job.ledger, found, job.size_param))


def missing(job: Job, runs: Collection[Run], forgiven: Collection[str] = ()) -> list[Trial]:
    """Planned trials that have not ended and have failed fewer than `MAX_ATTEMPTS` times.

    Args:
        job: The job.
        runs: All runs.
        forgiven: Ids of failed runs that do not count.
    """
    ended = {run.trial_id for run in runs if run.state in ENDED}
    failures = Counter(
        run.trial_id for run in runs if run.state == "failed" and run.run_id not in forgiven
    )
    return [
        trial
        for trial in job.trials
        if trial.trial_id not in ended and failures[trial.trial_id] < MAX_ATTEMPTS
    ]


def without_record_in_journal(job: Job, trials: Sequence[Trial]) -> list[Trial]:
    """Of these trials those with no record waiting in the journal."""
    waiting = {entry.trial_id for entry in journal.entries(job.journal_folder)}
    return [trial for trial in trials if trial.trial_id not in waiting]


def ended_losses(job: Job, runs: Collection[Run]) -> dict[str, float]:
    """Held-out loss of the planned trials that have ended, by id; NaN where they diverged."""
    planned = job.trial_ids
    ended = (run for run in latest_runs(runs) if run.state in ENDED)
    return {run.trial_id: run.loss for run in ended if run.trial_id in planned}


def settled_losses(runs: Collection[Run], forgiven: Collection[str] = ()) -> dict[str, float]:
    """Held-out loss of every trial that is not to be run again, by id; NaN where it has none.

    Args:
        runs: All runs, latest first.
        forgiven: Ids of failed runs that do not count.
    """
    failures = Counter(
        run.trial_id for run in runs if run.state == "failed" and run.run_id not in forgiven
    )
    settled = {trial_id: math.nan for trial_id, n in failures.items() if n >= MAX_ATTEMPTS}
    return settled | {run.trial_id: run.loss for run in latest_runs(runs) if run.state in ENDED}


def release_dead(job: Job, study: Any) -> None:
    """Close the runs and claims of dead workers, so that their trials can be run again.

    A worker on this host is dead if its process is gone; one on another host if its claim has
    lapsed. A worker claims a trial before it opens the run, and closes the run before it gives up
    the claim. So a run that was read as open, then has no claim, and is still open after that, has
    no worker.
    """
    _ask_store(job, lambda: _release_dead(job, study))


def _release_dead(job: Job, study: Any) -> None:
    deliver_left(job.ledger, job.journal_folder)
    trial_queue.release_dead(study)
    runs = tracking.open_runs(job.ledger, job.setting)  # read before the claims: see release_dead
    claims = trial_queue.claims(study)
    undelivered = {entry.attempt for entry in journal.entries(job.journal_folder)}
    for run in runs:
        if run.attempt in undelivered:
            continue
        orphaned = is_dead(run.worker) or (run.trial_id, run.worker) not in claims
        if orphaned and tracking.is_open(job.ledger, run.run_id):
            recording.close_run(job.ledger, run.run_id, "planned", "its worker died")


def claimed(job: Job, study: Any) -> set[str]:
    """Ids of trials that a worker has claimed, or whose end the ledger does not have yet."""
    claims = _ask_store(job, lambda: trial_queue.claims(study))
    in_journal = {entry.trial_id for entry in journal.entries(job.journal_folder)}
    return {trial_id for trial_id, _ in claims} | in_journal


def wait_for_others(job: Job, study: Any) -> None:
    """Wait until no other driver's worker has a trial of this plan."""

    def check() -> None:
        if not job.trial_ids & claimed(job, study):
            return
        release_dead(job, study)
        if trials := job.trial_ids & claimed(job, study):
            left = counted(len(trials), "trial")
            raise NotYetError(f"other processes still train {left} of this plan")

    poll(
        check,
        is_temporary=lambda error: isinstance(error, NotYetError),
        timeout_s=math.inf,  # a trial may take days; a dead worker is released above
        pause_s=OTHERS_PAUSE_S,
        report=lambda error: _LOG.warning("%s: waiting for them", error),
        before_pause=keep_waiting,
    )


def count_waiting(job: Job, study: Any) -> int:
    """Number of trials in the queue; waits `BEGIN_S` for a driver that may be about to fill it."""

    def check() -> int:
        num_waiting = trial_queue.count_waiting(study, job.trial_ids, job.plan)
        left = {trial.trial_id for trial in missing(job, all_runs(job))}
        unclaimed = left - claimed(job, study)
        if unclaimed and not num_waiting:
            raise NotYetError(
                f"{len(unclaimed)} trials are not queued yet, and no worker trains them"
            )
        return num_waiting

    try:
        return poll(
            check,
            is_temporary=lambda error: isinstance(error, NotYetError),
            timeout_s=BEGIN_S,
            pause_s=PAUSE_S,
            report=lambda error: _LOG.info("%s: waiting %g s for a driver", error, BEGIN_S),
            before_pause=keep_waiting,
        )
    except NotYetError:
        return 0


def wait_for_more(job: Job, study: Any) -> int:
    """Number of trials in the queue of a sweep that grows, once there are some.

    While any trial is being trained, and for `BETWEEN_S` after that, its driver may queue more.

    Returns:
        0 if none came.
    """

    def check() -> int:
        if num_waiting := trial_queue.count_waiting(study, job.trial_ids, job.plan):
            return num_waiting
        if claimed(job, study):
            release_dead(job, study)
        if claimed(job, study):
            raise NotYetError("other processes train the trials of this sweep; more may follow")
        return 0

    def check_for_driver() -> int:
        if num_waiting := trial_queue.count_waiting(study, job.trial_ids, job.plan):
            return num_waiting
        if claimed(job, study):
            return -1
        raise NotYetError("nothing waits; its driver may queue more")

    while True:
        if num_waiting := _poll(check, math.inf, OTHERS_PAUSE_S):
            return num_waiting
        try:
            num_waiting = _poll(check_for_driver, BETWEEN_S, PAUSE_S)
        except NotYetError:
            return 0
        if num_waiting > 0:
            return num_waiting


def _poll(check: Callable[[], int], timeout_s: float, pause_s: float) -> int:
    """What a check returns, once it does not say that it is too early."""
    return poll(
        check,
        is_temporary=lambda error: isinstance(error, NotYetError),
        timeout_s=timeout_s,
        pause_s=pause_s,
        report=lambda error: _LOG.info("%s: waiting", error),
        before_pause=keep_waiting,
    )


def clear_ended(job: Job, runs: Collection[Run]) -> None:
    """Remove checkpoints of ended trials, which a worker killed just after the end has left."""
    ended = {run.trial_id for run in runs if run.state in ENDED} & job.trial_ids
    for folder in job.checkpoints.glob("*-*"):
        if folder.name.partition("-")[0] in ended:
            shutil.rmtree(folder, ignore_errors=True)


def done_in_words(job: Job, runs: Collection[Run]) -> str:
    """How many of the trials are done, by these runs."""
    num_done = len(job.trials) - len(missing(job, runs))
    if job.to_come:
        return f"{num_done} of the {len(job.trials)} trials known so far are done"
    return f"{num_done} of {len(job.trials)} trials are done"
