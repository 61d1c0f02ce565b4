"""From a plan to finished runs: start workers until no trial is missing.

The ledger shows what is missing. `run_sweep` starts workers, waits for them, and runs again what a
dead worker has left; `join_sweep` only helps another driver.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from flops_fit.display.bars import BarOfPhases
from flops_fit.display.notebook import tell
from flops_fit.errors import SweepError
from flops_fit.records import Run, Trial
from flops_fit.runtime.signals import orderly_termination
from flops_fit.sweep.data.source import Source
from flops_fit.sweep.devices.mps import devices_shared
from flops_fit.sweep.execution import trial_queue
from flops_fit.sweep.execution.executors import start_workers
from flops_fit.sweep.execution.job import Job
from flops_fit.sweep.execution.local_pool import LocalPool
from flops_fit.sweep.execution.notices import how_to_resume, warn_of_failures
from flops_fit.sweep.execution.parent_note import state_shown, with_notes, write_summary
from flops_fit.sweep.execution.progress import Progress
from flops_fit.sweep.execution.ranks import keep_waiting, other_ranks_following
from flops_fit.sweep.execution.status import (
    MAX_ATTEMPTS,
    all_runs,
    clear_ended,
    count_waiting,
    done_in_words,
    ended_losses,
    missing,
    record_round,
    release_dead,
    settled_losses,
    wait_for_more,
    wait_for_others,
    without_record_in_journal,
)
from flops_fit.sweep.execution.worker import ALIKE
from flops_fit.sweep.growth.stages import Stage, Stages
from flops_fit.sweep.task.source_code import parts_changed
from flops_fit.tracking import recording
from flops_fit.tracking.ledger import ENDED
from flops_fit.tracking.queries import latest_runs
from flops_fit.warn import warn_user


@dataclass(frozen=True)
class _Launch:
    """How workers are started, see `run_sweep`.

    Attributes:
        forgiven: Ids of failed runs that do not count.
        pool: The worker processes of this machine.
        bar: The bar of the sweep, if somebody watches.
    """

    workers: int | str = 1
    executor: Any = None
    source: Source | None = None
    forgiven: frozenset[str] = frozenset()
    pool: LocalPool = field(default_factory=LocalPool)
    bar: BarOfPhases = field(default_factory=BarOfPhases)


Pack = Callable[[Job], tuple[Job, int]]  # says what trials take of a device, and counts workers


def run_sweep(
    job: Job,
    *,
    workers: int | str = 1,
    executor: Any = None,
    source: Source | None = None,
    announcement: str = "",
    stages: Stages | None = None,
    retry_failed: bool = False,
    on_code_change: str = "warn",
    pack: Pack | None = None,
) -> None:
    """Run the trials of a job that are missing.

    Args:
        job: What to run.
        workers: Worker processes; 1 is this process, "auto" one per GPU or core.
        executor: Anything with `submit()`, to run the workers elsewhere.
        source: The data, if it is open already.
        announcement: Printed before anything trains, if anything is to be trained.
        stages: How the sweep grows; None if the job holds all its trials.
        retry_failed: Run trials again that have failed `MAX_ATTEMPTS` times.
        on_code_change: "warn", "error" or "rerun", if the source of model, loss or data is not
            what finished trials were trained with.
        pack: Called if anything is to be trained; decides how many workers share a device.

    Raises:
        KeyboardInterrupt, SystemExit: After Ctrl-C or SIGTERM, once all is recorded; says how to go
            on.
        SweepError: If workers die again and again.
        LostRankError: A rank of a data-parallel launch is gone, or silent beyond the timeout.
    """
    with other_ranks_following(job, source) as leads:
        if not leads:
            return
        runs = all_runs(job)
        failed = frozenset(run.run_id for run in runs if run.state == "failed")
        launch = _Launch(workers, executor, source, failed if retry_failed else frozenset())
        job, stage = _grown(job, runs, stages, launch.forgiven, drives=True)
        runs = _check_code(job, runs, on_code_change)
        if pack is not None and missing(job, runs, launch.forgiven):
            job, count = pack(job)
            launch = replace(launch, workers=count)
        with (
            how_to_resume(lambda: job),
            devices_shared(job.packing) as words,
            launch.pool,
            launch.bar,
        ):
            lines = [announcement, *words, *stage.messages]
            if not missing(job, runs, launch.forgiven):
                _tell_all_ended(job, runs)
                lines = [] if stage.round is None else [stage.round.message]
            while missing(job, runs, launch.forgiven):
                runs = _run_missing(job, runs, launch, lines, failed)
                said = stage.messages
                job, stage = _grown(job, runs, stages, launch.forgiven, drives=True)
                lines = [message for message in stage.messages if message not in said]
            launch.bar.finish(sum(trial.flops for trial in job.trials))
            for line in lines:
                tell(line)
            _keep_models(job, runs)
        warn_of_failures(job, runs)


def _keep_models(job: Job, runs: Sequence[Run]) -> None:
    """Log the models that the recipe keeps, as far as their weights are on this machine."""
    job.shelf.log(latest_runs(runs), job.trial_ids, keep_waiting)


def _grown(
    job: Job,
    runs: list[Run],
    stages: Stages | None,
    forgiven: Collection[str] = (),
    *,
    drives: bool = False,
) -> tuple[Job, Stage]:
    """The job with all trials that are wanted by now, and the stage that wants them.

    Where this process drives the sweep, the round that it has reached is recorded.
    """
    if stages is None:
        return job, Stage(job.trials, job.trials)
    stage = stages.next(latest_runs(runs), settled_losses(runs, forgiven))
    if stage.round is not None and drives:
        record_round(job, stage.round)
    return replace(job, trials=stage.trials, to_come=stage.to_come), stage


def join_sweep(
    job: Job,
    *,
    workers: int | str = 1,
    source: Source | None = None,
    stages: Stages | None = None,
    pack: Pack | None = None,
) -> None:
    """Run trials that wait in the queue of another process's sweep; return when none waits.

    While trials of a sweep that grows are trained elsewhere, more may come: they are waited for.

    The driver alone runs failed trials again, and analyses the runs.

    Args:
        job: What the driver runs.
        workers: Worker processes; 1 is this process, "auto" one per GPU or core.
        source: The data, if it is open already.
        stages: How the sweep grows; None if the job holds all its trials.
        pack: Called once something waits, as of `run_sweep`.

    Raises:
        KeyboardInterrupt, SystemExit: After Ctrl-C or SIGTERM, once all is recorded; says how to go
            on.
        LostRankError: A rank of a data-parallel launch is gone, or silent beyond the timeout.
    """
    with other_ranks_following(job, source) as leads:
        if not leads:
            return
        job = replace(job, longest_first=True)  # its driver trains beside it
        with (
            how_to_resume(lambda: job),
            orderly_termination(),
            ExitStack() as sharing,
            LocalPool() as pool,
            BarOfPhases() as bar,
        ):
            study = trial_queue.open_study(job.study_name, job.storage)
            grows = stages is not None and stages.grows
            while True:
                runs = all_runs(job)
                job, _ = _grown(job, runs, stages)
                may_grow = grows and (job.to_come or missing(job, runs))
                num_waiting = wait_for_more(job, study) if may_grow else count_waiting(job, study)
                if not num_waiting:
                    break
                if pack is not None:
                    job, workers = pack(job)
                    pack = None
                    for line in sharing.enter_context(devices_shared(job.packing)):
                        tell(line)
                with _progress(job, all_runs(job), bar) as progress:
                    start_workers(job, num_waiting, workers, None, source, progress, pool)
                if not grows:
                    break
            runs = all_runs(job)
            if job.ledger.home is None:  # else the driver finds the weights beside the store
                _keep_models(job, runs)
            done = done_in_words(job, runs)
            tell(f"Nothing waits in the sweep {job.ledger.name!r}: {done}")


def _run_missing(
    job: Job,
    runs: list[Run],
    launch: _Launch,
    announcements: Sequence[str],
    failed_before: Collection[str],
) -> list[Run]:
    """Run the trials, one or more, that these runs leave missing.

    Returns:
        All runs, once none is missing.
    """
    forgiven = launch.forgiven
    left = missing(job, runs, forgiven)
    with (
        orderly_termination(),
        state_shown(job.ledger),
        _progress(job, runs, launch.bar) as progress,
    ):
        for line in announcements:
            progress.say(line)
        for _ in range(MAX_ATTEMPTS):
            _run_once(job, left, launch, progress)
            runs = all_runs(job)
            left = missing(job, runs, forgiven)
            clear_ended(job, runs)
            if not left:
                return runs
            _stop_if_all_fail([run for run in runs if run.run_id not in failed_before], len(left))
        raise SweepError(
            f"{len(left)} trials did not finish: their workers died {MAX_ATTEMPTS} times (out of "
            "memory?). Finished trials are kept; call again to go on"
        )


def _tell_all_ended(job: Job, runs: list[Run]) -> None:
    """Tell that nothing is missing, and put the queue and the parent run in order."""
    tell(f"all {len(job.trials)} trials have ended; nothing is left to train")
    clear_ended(job, runs)
    write_summary(job, runs)


def _run_once(job: Job, left: list[Trial], launch: _Launch, progress: Progress) -> None:
    """Queue trials and run workers until none waits; other drivers may work on the same queue."""
    study = trial_queue.open_study(job.study_name, job.storage)
    release_dead(job, study)
    trial_queue.enqueue(study, without_record_in_journal(job, left), job.plan)
    listener = with_notes(job, progress)
    start_workers(
        job, len(left), launch.workers, launch.executor, launch.source, listener, launch.pool
    )
    wait_for_others(job, study)


def _progress(job: Job, runs: list[Run], bar: BarOfPhases) -> Progress:
    losses = ended_losses(job, runs)
    return Progress(
        job.trials,
        losses,
        to_come=job.to_come,
        size_param=job.size_param,
        data_unit=job.data_unit,
        num_examples=job.num_examples,
        bar=bar,
    )


def _check_code(job: Job, runs: list[Run], on_code_change: str) -> list[Run]:
    """Warn, refuse or run again where finished trials were trained with other code.

    Returns:
        All runs, read again if some were taken out of the count.
    """
    planned = job.trial_ids
    ended = [run for run in latest_runs(runs) if run.trial_id in planned and run.state in ENDED]
    changed = {run: parts for run in ended if (parts := parts_changed(run.code, job.code))}
    if not changed:
        return runs
    changed_parts = " and ".join(sorted(set().union(*changed.values())))
    fact = (
        f"the source of {changed_parts} is not what {len(changed)} of the {len(planned)} "
        "trials were trained with"
    )
    if on_code_change == "error":
        raise SweepError(
            f'{fact}; pass another name=, or on_code_change="warn" to use their losses, or '
            'on_code_change="rerun" to train them again'
        )
    if on_code_change == "rerun":
        for run in changed:
            recording.supersede_run(
                job.ledger, run.run_id, f"the source of {changed_parts} changed"
            )
        warn_user(f"{fact}; they are trained again")
        return all_runs(job)
    warn_user(
        f'{fact}; their losses are used all the same (on_code_change="rerun" trains them again)'
    )
    return runs


def _stop_if_all_fail(runs: list[Run], num_missing: int) -> None:
    """Stop a sweep whose first trials all failed, rather than fail at all of them.

    Raises:
        SweepError: No trial has ended, and at least `ALIKE` failed.
    """
    failed = [run for run in runs if run.state == "failed"]
    num_waiting = num_missing - len(failed)
    if len(failed) < ALIKE or num_waiting <= 0 or any(run.state in ENDED for run in runs):
        return
    raise SweepError(
        f"the first {len(failed)} trials all failed, so the other {num_waiting} were not started: "
        f"{failed[0].excluded}. Each run keeps its traceback; fix the fault and call again"
    )
