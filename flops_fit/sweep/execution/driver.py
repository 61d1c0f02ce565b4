"""From a plan to finished runs: start workers until no trial is missing.

The ledger says what is missing. `run_sweep` starts as many workers as were asked for, in this
process, in processes of its own, or through anything with `submit()`, and sees to it that what a
dead one left behind is run again.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from flops_fit.errors import FlopsFitWarning, LostRankError, SweepError
from flops_fit.records import Run, Trial
from flops_fit.runtime import distributed
from flops_fit.runtime.signals import orderly_termination
from flops_fit.store.retry import prompt_faults
from flops_fit.sweep.data.source import Source
from flops_fit.sweep.execution import trial_queue as dispatch
from flops_fit.sweep.execution.executors import _POLL_S, _start_workers
from flops_fit.sweep.execution.job import Job
from flops_fit.sweep.execution.notices import (
    _note,
    _noting,
    _progress,
    _said_how_to_go_on,
    _stated,
    _summary,
    _warn_of_failures,
)
from flops_fit.sweep.execution.status import (
    MAX_ATTEMPTS,
    all_runs,
    clear_ended,
    count_waiting,
    done_in_words,
    in_other_hands,
    missing,
    release_dead,
    unspooled,
)
from flops_fit.sweep.execution.worker import ALIKE, follow
from flops_fit.sweep.task.source_code import parts_changed
from flops_fit.tracking import recording
from flops_fit.tracking.ledger import ENDED
from flops_fit.tracking.outbox import deliver_left
from flops_fit.tracking.queries import latest_runs

_LOG = logging.getLogger("flops_fit")
_T = TypeVar("_T")
Extend = Callable[[Sequence[Trial], Mapping[str, float]], tuple[list[Trial], list[str]]]


def run_sweep(
    job: Job,
    *,
    workers: int | str = 1,
    executor: Any = None,
    source: Source | None = None,
    announcement: str = "",
    extend: Extend | None = None,
    retry_failed: bool = False,
    on_code_change: str = "warn",
) -> None:
    """Run what is missing of a job's trials.

    Args:
        job: What to run.
        workers: Worker processes; 1 is this process, "auto" one per GPU or core.
        executor: Anything with `submit()`, to run the workers elsewhere.
        source: The data, where it is already open.
        announcement: Printed before anything trains, if anything is to be trained.
        extend: Once all has been trained: from the trials and their losses by id, what to train
            besides, and what to say of it.
        retry_failed: Try again what has failed as often as trials are tried.
        on_code_change: "warn", "error" or "rerun", where the source of model, loss or data is no
            longer what finished runs were trained with.

    Raises:
        KeyboardInterrupt, SystemExit: After Ctrl-C or SIGTERM, once all is recorded; says how to go
            on.
        SweepError: If workers die again and again.
        LostRankError: A rank of a data-parallel launch is gone, or silent beyond the timeout.
    """
    with _other_ranks_following(job, source) as leads:
        if leads:
            runs = _settle_code(job, all_runs(job), on_code_change)
            with _said_how_to_go_on(job):
                lead = partial(_lead, workers=workers, executor=executor, source=source)
                runs = lead(job, runs, announcement=announcement, retry_failed=retry_failed)
                if extend is not None:
                    job, said = _extended(job, runs, extend)
                    if missing(job, runs):
                        runs = lead(job, runs, announcement=said, retry_failed=retry_failed)
                    elif said:
                        print(said, file=sys.stderr)
            _warn_of_failures(job, runs)


def join_sweep(job: Job, *, workers: int | str = 1, source: Source | None = None) -> None:
    """Run what waits of a sweep that another process drives, and leave when nothing waits.

    What fails is tried again, and the runs are analysed, by the driver alone.

    Args:
        job: What the driver runs.
        workers: Worker processes; 1 is this process, "auto" one per GPU or core.
        source: The data, where it is already open.

    Raises:
        KeyboardInterrupt, SystemExit: After Ctrl-C or SIGTERM, once all is recorded; says how to go
            on.
        LostRankError: A rank of a data-parallel launch is gone, or silent beyond the timeout.
    """
    with _other_ranks_following(job, source) as leads:
        if leads:
            with _said_how_to_go_on(job):
                _help(job, workers, source)


@contextlib.contextmanager
def _other_ranks_following(job: Job, source: Source | None) -> Iterator[bool]:
    """True on rank 0; on other ranks it trains what rank 0 announces, then False."""
    if distributed.rank():
        follow(job, source)
        yield False
        return
    try:
        with prompt_faults():
            deliver_left(job.ledger, job.spool)
            yield True
    except LostRankError:
        raise
    except BaseException as error:
        distributed.broadcast(distributed.portable(error))
        raise
    distributed.broadcast(None)


def _help(job: Job, workers: int | str, source: Source | None) -> None:
    study = dispatch.open_study(job.study_name, job.storage)
    waiting = count_waiting(job, study)
    if waiting:
        with orderly_termination(), _progress(job, all_runs(job)) as progress:
            _start_workers(job, waiting, workers, None, source, progress)
    done = done_in_words(job, all_runs(job))
    print(f"Nothing waits in the sweep {job.ledger.name!r}: {done}", file=sys.stderr)


def _lead(
    job: Job,
    runs: list[Run],
    workers: int | str,
    executor: Any,
    source: Source | None,
    announcement: str,
    retry_failed: bool,
) -> list[Run]:
    """Run what these runs leave missing; returns all runs once nothing is."""
    before = {run.run_id for run in runs if run.state == "failed"}
    forgiven = before if retry_failed else set()
    left = missing(job, runs, forgiven)
    if not left:
        print(f"all {len(job.trials)} trials have ended; none is run again", file=sys.stderr)
        clear_ended(job, runs)
        _note(job, _summary(job, runs))
        return runs
    with orderly_termination(), _stated(job.ledger), _progress(job, runs) as progress:
        progress.say(announcement)
        for _ in range(MAX_ATTEMPTS):
            study = dispatch.open_study(job.study_name, job.storage)
            release_dead(job, study)
            dispatch.enqueue(study, unspooled(job, left))
            listener = _noting(job, progress)
            _start_workers(job, len(left), workers, executor, source, listener)
            _wait_for_others(job, study)
            runs = all_runs(job)
            left = missing(job, runs, forgiven)
            clear_ended(job, runs)
            if not left:
                return runs
            _stop_if_all_fail([run for run in runs if run.run_id not in before], len(left))
        raise SweepError(
            f"{len(left)} trials did not finish: their workers died {MAX_ATTEMPTS} times (out of "
            "memory?). What has finished is kept; call again to go on"
        )


def _extended(job: Job, runs: list[Run], extend: Extend) -> tuple[Job, str]:
    """The job with what is added to rows that have their least loss at an edge, in words too."""
    losses = {run.trial_id: run.loss for run in runs if run.state == "complete"}
    added, said = extend(job.trials, losses)
    return replace(job, trials=(*job.trials, *added)), "\n".join(said)


def _settle_code(job: Job, runs: list[Run], on_code_change: str) -> list[Run]:
    """Say, refuse or run again where finished trials were trained with other code.

    Returns:
        All runs, as they stand then.
    """
    wanted = {trial.trial_id for trial in job.trials}
    done = [run for run in latest_runs(runs) if run.trial_id in wanted and run.state in ENDED]
    changed = {run: parts for run in done if (parts := parts_changed(run.code, job.code))}
    if not changed:
        return runs
    named = " and ".join(sorted(set().union(*changed.values())))
    text = (
        f"the source of {named} is not what {len(changed)} of the {len(wanted)} "
        "trials were trained with"
    )
    if on_code_change == "error":
        raise SweepError(
            f'{text}; pass another name=, or on_code_change="warn" to use their losses, or '
            'on_code_change="rerun" to train them again'
        )
    if on_code_change == "rerun":
        for run in changed:
            recording.supersede_run(job.ledger, run.run_id, f"the source of {named} changed")
        text += "; they are trained again"
    else:
        text += '; their losses are used all the same (on_code_change="rerun" trains them again)'
    warnings.warn(text, FlopsFitWarning, stacklevel=5)  # the call of find_optimal
    return all_runs(job) if on_code_change == "rerun" else runs


def _stop_if_all_fail(runs: list[Run], num_missing: int) -> None:
    failed = [run for run in runs if run.state == "failed"]
    waiting = num_missing - len(failed)
    if len(failed) < ALIKE or waiting <= 0 or any(run.state in ENDED for run in runs):
        return
    raise SweepError(
        f"the first {len(failed)} trials all failed, so the other {waiting} were not started: "
        f"{failed[0].excluded}. Each run keeps its traceback; mend the fault and call again"
    )


def _wait_for_others(job: Job, study: Any) -> None:
    """Another driver may still be at work on trials of this plan."""
    ours = {trial.trial_id for trial in job.trials}
    while ours & in_other_hands(job, study):
        release_dead(job, study)
        distributed.broadcast("wait")
        time.sleep(_POLL_S)
