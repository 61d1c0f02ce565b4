"""How a sweep stands: what the ledger, the study and the spool say of a job's trials."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

from flops_fit import store, tracking
from flops_fit.records import Run, Trial
from flops_fit.runtime import distributed
from flops_fit.runtime.process_id import is_dead
from flops_fit.sweep.execution import trial_queue as dispatch
from flops_fit.sweep.execution.job import Job
from flops_fit.tracking import journal, recording
from flops_fit.tracking.ledger import ENDED
from flops_fit.tracking.outbox import deliver_left

MAX_ATTEMPTS = 3  # times that a trial is tried that fails, or whose worker dies under it
PAUSE_S = 0.5
BEGIN_S = 10.0  # a worker waits so long for a driver that was started in the same moment
_T = TypeVar("_T")


def all_runs(job: Job) -> list[Run]:
    """All runs."""
    return patiently(job, lambda: tracking.fetch_all_runs(job.ledger, job.setting))


def patiently(job: Job, ask: Callable[[], _T]) -> _T:
    """What a store answers; a server that is away is waited for, and the other ranks are told."""
    patience = distributed.timeout().total_seconds() if job.ledger.home is None else 0.0
    return store.patiently(ask, patience, meanwhile=lambda: distributed.broadcast("wait"))


def unspooled(job: Job, trials: Sequence[Trial]) -> list[Trial]:
    """Trials of which the ledger has not yet to hear."""
    on_the_way = {entry.trial_id for entry in journal.entries(job.spool)}
    return [trial for trial in trials if trial.trial_id not in on_the_way]


def missing(job: Job, runs: Collection[Run], forgiven: Collection[str] = ()) -> list[Trial]:
    """Of these runs: planned trials that have neither ended nor failed as often as they are tried.

    Args:
        job: Whose trials.
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


def release_dead(job: Job, study: Any) -> None:
    """Close the runs of dead workers: of those gone from this host, or whose claim has lapsed.

    A worker claims before it opens a run and closes the run before its claim, so that a run read
    first, without a claim read after it, and still open then, is nobody's.
    """
    patiently(job, lambda: _release(job, study))


def _release(job: Job, study: Any) -> None:
    deliver_left(job.ledger, job.spool)
    dispatch.release_dead(study)
    runs = tracking.open_runs(job.ledger, job.setting)
    claims = dispatch.claims(study)
    on_the_way = {entry.attempt for entry in journal.entries(job.spool)}
    for run_id, (trial_id, owner, attempt) in runs.items():
        if attempt in on_the_way:
            continue
        orphaned = is_dead(owner) or (trial_id, owner) not in claims
        if orphaned and tracking.is_open(job.ledger, run_id):
            recording.close_run(job.ledger, run_id, "planned", "its worker died")


def in_other_hands(job: Job, study: Any) -> set[str]:
    """Trials that are claimed, or whose end is on its way to the ledger."""
    claims = patiently(job, lambda: dispatch.claims(study))
    return {trial_id for trial_id, _ in claims} | {e.trial_id for e in journal.entries(job.spool)}


def count_waiting(job: Job, study: Any) -> int:
    """Trials that wait for a worker; a driver may be about to enqueue what is nobody's yet."""
    wanted = {trial.trial_id for trial in job.trials}
    deadline = time.monotonic() + BEGIN_S
    while True:
        waiting = dispatch.count_waiting(study, wanted)
        left = {trial.trial_id for trial in missing(job, all_runs(job))}
        nobodys = left - in_other_hands(job, study)
        if waiting or not nobodys or time.monotonic() > deadline:
            return waiting
        distributed.broadcast("wait")
        time.sleep(PAUSE_S)


def clear_ended(job: Job, runs: Collection[Run]) -> None:
    """Remove checkpoints that a worker left which was killed as its trial had ended."""
    planned = {trial.trial_id for trial in job.trials}
    ended = {run.trial_id for run in runs if run.state in ENDED} & planned
    for folder in job.checkpoints.glob("*-*"):
        if folder.name.partition("-")[0] in ended:
            shutil.rmtree(folder, ignore_errors=True)


def done_in_words(job: Job, runs: Collection[Run]) -> str:
    """How many of the trials are done, by these runs."""
    done = len(job.trials) - len(missing(job, runs))
    return f"{done} of {len(job.trials)} trials are done"
