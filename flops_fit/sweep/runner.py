"""From a plan to finished runs: start workers until no trial is missing.

The ledger says what is missing. `run_sweep` starts as many workers as were asked for, in this
process, in processes of its own, or through anything with `submit()`, and sees to it that what a
dead one left behind is run again.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import cloudpickle

from flops_fit import recording, tracking
from flops_fit.errors import FlopsFitWarning, LostRankError, SweepError
from flops_fit.records import Run, Trial
from flops_fit.store import prompt_faults, without_credentials
from flops_fit.sweep import ranks
from flops_fit.sweep import study as dispatch
from flops_fit.sweep.code import parts_changed
from flops_fit.sweep.delivery import PROMPT_S, deliver_left
from flops_fit.sweep.events import Event, Listener
from flops_fit.sweep.processes import run_in_processes
from flops_fit.sweep.progress import Progress, summary
from flops_fit.sweep.source import Source
from flops_fit.sweep.standing import (
    ATTEMPTS,
    attempts,
    clear_ended,
    count_waiting,
    done_in_words,
    in_other_hands,
    missing,
    release_dead,
    unspooled,
)
from flops_fit.sweep.stopping import orderly_termination
from flops_fit.sweep.worker import ALIKE, Job, follow, within, work
from flops_fit.tracking import ENDED, Ledger, latest_runs

_POLL_S = 2.0
_NOTE_S = 15.0  # at least so long between two words on the parent run
_LOG = logging.getLogger("flops_fit")
_T = TypeVar("_T")
_TOLD = (*ENDED, "failed")

Extend = Callable[[Sequence[Trial], Mapping[str, float]], tuple[list[Trial], list[str]]]


def run_sweep(
    job: Job,
    *,
    workers: int | str = 1,
    executor: Any = None,
    source: Source | None = None,
    said_first: str = "",
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
        said_first: Printed before anything trains, if anything is to be trained.
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
            runs = _settle_code(job, attempts(job), on_code_change)
            with _said_how_to_go_on(job):
                lead = partial(_lead, workers=workers, executor=executor, source=source)
                runs = lead(job, runs, said_first=said_first, retry_failed=retry_failed)
                if extend is not None:
                    job, said = _extended(job, runs, extend)
                    if missing(job, runs):
                        runs = lead(job, runs, said_first=said, retry_failed=retry_failed)
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
    if ranks.rank():
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
        ranks.broadcast(ranks.portable(error))
        raise
    ranks.broadcast(None)


@contextlib.contextmanager
def _said_how_to_go_on(job: Job) -> Iterator[None]:
    """Ctrl-C carries the message, as the last line of its short traceback; SIGTERM prints it."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how_to_go_on(job)) from None
    except SystemExit:
        print(_how_to_go_on(job), file=sys.stderr)
        raise


def _help(job: Job, workers: int | str, source: Source | None) -> None:
    study = dispatch.open_study(job.study_name, job.storage)
    waiting = count_waiting(job, study)
    if waiting:
        with orderly_termination(), _progress(job, attempts(job)) as progress:
            _start_workers(job, waiting, workers, None, source, progress)
    done = done_in_words(job, attempts(job))
    print(f"Nothing waits in the sweep {job.ledger.name!r}: {done}", file=sys.stderr)


def _lead(
    job: Job,
    runs: list[Run],
    workers: int | str,
    executor: Any,
    source: Source | None,
    said_first: str,
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
        progress.say(said_first)
        for _ in range(ATTEMPTS):
            study = dispatch.open_study(job.study_name, job.storage)
            release_dead(job, study)
            dispatch.enqueue(study, unspooled(job, left))
            listener = _noting(job, progress)
            _start_workers(job, len(left), workers, executor, source, listener)
            _wait_for_others(job, study)
            runs = attempts(job)
            left = missing(job, runs, forgiven)
            clear_ended(job, runs)
            if not left:
                return runs
            _stop_if_all_fail([run for run in runs if run.run_id not in before], len(left))
        raise SweepError(
            f"{len(left)} trials did not finish: their workers died {ATTEMPTS} times (out of "
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
    return attempts(job) if on_code_change == "rerun" else runs


def _stop_if_all_fail(runs: list[Run], num_missing: int) -> None:
    failed = [run for run in runs if run.state == "failed"]
    waiting = num_missing - len(failed)
    if len(failed) < ALIKE or waiting <= 0 or any(run.state in ENDED for run in runs):
        return
    raise SweepError(
        f"the first {len(failed)} trials all failed, so the other {waiting} were not started: "
        f"{failed[0].excluded}. Each run keeps its traceback; mend the fault and call again"
    )


def _how_to_go_on(job: Job) -> str:
    where = without_credentials(job.ledger.tracking_uri)
    runs = within(5 * PROMPT_S, lambda: tracking.fetch_attempts(job.ledger, job.setting))
    if runs is None:
        kept = f"{where} is away; what it missed is kept"
    else:
        kept = f"{done_in_words(job, runs)} and kept in {where}"
    return f"Stopped: {kept}. Start it again to go on from there"


def _warn_of_failures(job: Job, runs: list[Run]) -> None:
    planned = {trial.trial_id for trial in job.trials}
    bad = [run for run in latest_runs(runs) if run.trial_id in planned and run.state != "complete"]
    if bad:
        lines = [f"C={run.compute_budget:.3g} size={run.size}: {run.excluded}" for run in bad]
        warnings.warn(
            f"{len(bad)} of {len(planned)} trials have no loss and take no part in the fits; "
            f"failed ones were tried {ATTEMPTS} times (retry_failed=True tries them again), "
            "diverged ones are not tried again:\n  " + "\n  ".join(lines),
            FlopsFitWarning,
            stacklevel=5,  # the call of find_optimal
        )


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
    told = {run.run_id for run in attempts(job)}
    while True:
        left, asked = all(future.done() for future in futures), time.monotonic()
        for run in attempts(job):
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


def _wait_for_others(job: Job, study: Any) -> None:
    """Another driver may still be at work on trials of this plan."""
    ours = {trial.trial_id for trial in job.trials}
    while ours & in_other_hands(job, study):
        release_dead(job, study)
        ranks.broadcast("wait")
        time.sleep(_POLL_S)


@contextlib.contextmanager
def _stated(ledger: Ledger) -> Iterator[None]:
    """The parent run shows whether the sweep is at work, done, or stopped."""
    tracking.set_parent_state(ledger, "running")
    try:
        yield
    except BaseException:
        within(PROMPT_S, lambda: tracking.set_parent_state(ledger, "planned"))
        raise
    tracking.set_parent_state(ledger, "complete")


def _progress(job: Job, runs: list[Run]) -> Progress:
    unit = job.params.get("data_unit", "tokens")
    return Progress(job.trials, _losses(job, runs), size_param=_size_param(job), data_unit=unit)


def _summary(job: Job, runs: list[Run]) -> str:
    losses = _losses(job, runs)
    spent = sum(trial.flops for trial in job.trials if trial.trial_id in losses)
    return summary(job.trials, losses, _size_param(job), spent)


def _losses(job: Job, runs: list[Run]) -> dict[str, float]:
    """Held-out loss of the planned trials that have ended, by id; NaN where they diverged."""
    planned = {trial.trial_id for trial in job.trials}
    ended = (run for run in latest_runs(runs) if run.state in ENDED)
    return {run.trial_id: run.loss for run in ended if run.trial_id in planned}


def _size_param(job: Job) -> str:
    return job.params.get("size_param", "size")


def _noting(job: Job, progress: Progress) -> Listener:
    """Passes events on to the bar, and now and then to the parent run."""
    noted = -math.inf

    def listen(event: Event) -> None:
        nonlocal noted
        progress(event)
        left = len(job.trials) - progress.num_ended
        if event.state in ENDED and (time.monotonic() - noted > _NOTE_S or not left):
            noted = time.monotonic()
            _note(job, progress.summary())

    return listen


def _note(job: Job, said: str) -> None:
    """Show on the parent run how far the sweep is; nobody waits long for that."""
    within(PROMPT_S, lambda: tracking.write_note(job.ledger, f"{said}\n\n{job.note}"))
