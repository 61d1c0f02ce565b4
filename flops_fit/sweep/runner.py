"""From a plan to finished runs: claim, train, record, until nothing waits.

Workers are all alike. `work` is the whole of one; `run_sweep` starts as many as were asked for, in
this process, in processes of its own, or through anything with `submit()`, and sees to it that what
a dead one left behind is run again. Under a data-parallel launch rank 0 is the worker, and the
other ranks train with it what it announces.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import platform
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cloudpickle

from flops_fit import tracking
from flops_fit.errors import DivergedError, FlopsFitWarning, LostRankError, SweepError
from flops_fit.records import Run, Trial
from flops_fit.store import without_credentials
from flops_fit.sweep import ranks
from flops_fit.sweep import study as dispatch
from flops_fit.sweep.checkpoint import Keeper
from flops_fit.sweep.code import parts_changed
from flops_fit.sweep.garbage import old_objects_set_aside
from flops_fit.sweep.owners import at_work, is_dead
from flops_fit.sweep.progress import Event, Progress
from flops_fit.sweep.recipe import Recipe
from flops_fit.sweep.source import Source
from flops_fit.sweep.stopping import StopRequest, orderly_termination, stop_at_boundary
from flops_fit.sweep.task import Task
from flops_fit.sweep.train import Outcome, Point, Report, train
from flops_fit.sweep.workers import run_in_processes
from flops_fit.tracking import CurveWriter, Ledger

_LOG = logging.getLogger("flops_fit")
_POLL_S = 2.0
_ALIKE = 3  # the first trials of a worker that fail alike before it starts no other
_ATTEMPTS = 3  # times that a trial is tried that fails, or whose worker dies under it
_ENDED = ("complete", "diverged")

Listener = Callable[[Event], None]


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know; travels by cloudpickle on the caller's own channel.

    Attributes:
        task: The user's model, data and loss.
        trials: The planned trials.
        recipe: How they train.
        ledger: Where runs are recorded.
        storage: Optuna storage URL of the study.
        setting: Hash of what all trials share.
        params: What is written on every run beside the trial's own fields.
        checkpoints: Folder of the trials in flight.
        code: Hashes of the source of model, loss and data.
        seconds_between_events: Least time between two events of a trial.
    """

    task: Task
    trials: tuple[Trial, ...]
    recipe: Recipe
    ledger: Ledger
    storage: str
    setting: str
    params: dict[str, str]
    checkpoints: Path
    code: str = ""
    seconds_between_events: float = 0.2

    @property
    def study_name(self) -> str:
        """One study per sweep and setting."""
        return f"{self.ledger.name} {self.setting}"


def work(job: Job, listener: Listener, source: Source | None = None) -> None:
    """Be a worker: claim, train, record, until no trial waits.

    Args:
        job: What to work on.
        listener: Told how far each trial is.
        source: The data, where it is already open.

    Raises:
        KeyboardInterrupt, SystemExit: After SIGINT or SIGTERM, once the trial's state is kept.
    """
    source = source or job.task.open()
    study = dispatch.open_study(job.study_name, job.storage)
    wanted = {trial.trial_id for trial in job.trials}
    ends: list[str] = []  # of the trials so far: the kind of error, or empty

    def run(trial: Trial) -> float:
        try:
            loss = _run_trial(job, source, trial, owner, listener, stop)
        except Exception as error:
            ends.append("" if isinstance(error, DivergedError) else type(error).__name__)
            raise
        ends.append("")
        return loss

    def go_on() -> bool:
        if stop:
            raise stop.exception()
        return not _hopeless(ends)

    with at_work() as owner, stop_at_boundary(patient=ranks.count() > 1) as stop:
        with old_objects_set_aside():
            dispatch.work_through(study, wanted, owner, run, go_on)


def _hopeless(ends: Sequence[str]) -> bool:
    """Whether the first trials all failed alike, so that the others would too."""
    return len(ends) >= _ALIKE and len(set(ends)) == 1 and ends[0] != ""


def follow(job: Job, source: Source | None = None) -> None:
    """Be another rank than 0: train what rank 0 announces, until it has no more.

    Raises:
        BaseException: What rank 0 ends with.
        LostRankError: A rank is gone, or silent beyond the timeout.
    """
    source = source or job.task.open()
    with stop_at_boundary(patient=True) as stop:
        while (told := ranks.broadcast(None)) is not None:
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
        _LOG.debug("trial %s ended early on rank %d", trial.trial_id, ranks.rank(), exc_info=True)


def run_sweep(
    job: Job,
    *,
    workers: int | str = 1,
    executor: Any = None,
    source: Source | None = None,
    said_first: str = "",
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
        retry_failed: Try again what has failed as often as trials are tried.
        on_code_change: "warn", "error" or "rerun", where the source of model, loss or data is no
            longer what finished runs were trained with.

    Raises:
        KeyboardInterrupt, SystemExit: After Ctrl-C or SIGTERM, once all is recorded; says how to go
            on.
        SweepError: If workers die again and again.
        LostRankError: A rank of a data-parallel launch is gone, or silent beyond the timeout.
    """
    if ranks.rank():
        follow(job, source)
        return
    try:
        _settle_code(job, on_code_change)
        _lead(job, workers, executor, source, said_first, retry_failed)
    except LostRankError:
        raise
    except BaseException as error:
        ranks.broadcast(ranks.portable(error))
        raise
    ranks.broadcast(None)


def _lead(
    job: Job,
    workers: int | str,
    executor: Any,
    source: Source | None,
    said_first: str,
    retry_failed: bool,
) -> None:
    before = {run.run_id for run in _attempts(job) if run.state == "failed"}
    forgiven = before if retry_failed else set()
    missing = _missing(job, forgiven)
    if not missing:
        print(f"all {len(job.trials)} trials are done; none is run again", file=sys.stderr)
        _warn_of_failures(job)
        return
    with orderly_termination(), _stated(job.ledger), _progress(job) as progress:
        progress.say(said_first)
        for _ in range(_ATTEMPTS):
            study = dispatch.open_study(job.study_name, job.storage)
            _release_dead(job, study)
            dispatch.enqueue(study, missing)
            try:
                _start_workers(job, len(missing), workers, executor, source, progress)
            except (KeyboardInterrupt, SystemExit):
                progress.say(_how_to_go_on(job))
                raise
            _wait_for_others(job, study)
            missing = _missing(job, forgiven)
            if not missing:
                _warn_of_failures(job)
                return
            _stop_if_all_fail(job, before, len(missing))
        raise SweepError(
            f"{len(missing)} trials did not finish: their workers died {_ATTEMPTS} times (out of "
            "memory?). What has finished is kept; call again to go on"
        )


def _settle_code(job: Job, on_code_change: str) -> None:
    """Say, refuse or run again where finished trials were trained with other code."""
    wanted = {trial.trial_id for trial in job.trials}
    done = [run for run in _fetch(job) if run.trial_id in wanted and run.state in _ENDED]
    changed = {run: parts for run in done if (parts := parts_changed(run.code, job.code))}
    if not changed:
        return
    named = " and ".join(sorted(set().union(*changed.values())))
    text = (
        f"the source of {named} is not what {len(changed)} of the {len(wanted)} "
        "trials were trained with"
    )
    if on_code_change == "error":
        raise SweepError(f'{text}; pass another name=, or on_code_change="warn" or "rerun"')
    if on_code_change == "rerun":
        for run in changed:
            tracking.supersede_run(job.ledger, run.run_id, f"the source of {named} changed")
            Keeper(job.checkpoints / run.trial_id, job.recipe.checkpoint_every).clear()
        text += "; they are trained again"
    else:
        text += '; their losses are used all the same (on_code_change="rerun" trains them again)'
    warnings.warn(text, FlopsFitWarning, stacklevel=4)  # the call of find_optimal


def _stop_if_all_fail(job: Job, failed_before: set[str], num_missing: int) -> None:
    runs = [run for run in _attempts(job) if run.run_id not in failed_before]
    failed = [run for run in runs if run.state == "failed"]
    if len(failed) < _ALIKE or any(run.state in _ENDED for run in runs):
        return
    raise SweepError(
        f"the first {len(failed)} trials all failed, so the other {num_missing - len(failed)} were "
        "not started: "
        f"{failed[0].excluded}. Each run keeps its traceback; mend the fault and call again"
    )


def _how_to_go_on(job: Job) -> str:
    left = len(_missing(job))
    return (
        f"Stopped: {len(job.trials) - left} of {len(job.trials)} trials are done and kept in "
        f"{without_credentials(job.ledger.tracking_uri)}. The same call goes on from there"
    )


def _warn_of_failures(job: Job) -> None:
    planned = {trial.trial_id for trial in job.trials}
    bad = [run for run in _fetch(job) if run.trial_id in planned and run.state != "complete"]
    if bad:
        lines = [f"C={run.compute_budget:.3g} size={run.size}: {run.excluded}" for run in bad]
        warnings.warn(
            f"{len(bad)} of {len(planned)} trials have no loss and take no part in the fits; "
            f"failed ones were tried {_ATTEMPTS} times (retry_failed=True tries them again), "
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
        for future in [executor.submit(work_remotely, payload) for _ in range(count)]:
            future.result()
    elif count == 1:
        work(job, listener, source)
    else:
        run_in_processes(cloudpickle.dumps((work, job)), count, listener)


def work_remotely(payload: bytes) -> None:
    """Be a worker somewhere else, with nobody listening."""
    work(cloudpickle.loads(payload), lambda event: None)


def count_workers(workers: int | str) -> int:
    """How many workers: as asked, or for "auto" one per GPU, else one per core."""
    if workers != "auto":
        return int(workers)
    import torch

    return torch.cuda.device_count() or len(os.sched_getaffinity(0))


def _run_trial(
    job: Job,
    source: Source,
    trial: Trial,
    owner: str,
    listener: Listener,
    stop: StopRequest,
) -> float:
    """Train and record one trial; whatever happens, its run is closed with its reason."""
    keeper = Keeper(job.checkpoints / trial.trial_id, job.recipe.checkpoint_every)
    run_id = _open_run(job, trial, keeper, owner)
    label = trial.label(job.params.get("size_param", "size"))
    event = Event(trial.trial_id, label, 0.0, math.nan)
    try:
        with CurveWriter(job.ledger, run_id) as curve:
            report = _reporter(job, event, curve, listener)
            ranks.broadcast(trial)
            outcome = train(job.task, source, trial, job.recipe, report, keeper, stop)
        _record(job.ledger, run_id, trial, outcome)
        keeper.clear()
    except DivergedError as error:
        tracking.close_run(job.ledger, run_id, "diverged", str(error))
        keeper.clear()
        listener(replace(event, flops=trial.flops, state="diverged"))
        raise
    except Exception as error:
        tracking.close_run(job.ledger, run_id, "failed", _cause(error), _trace(error))
        listener(replace(event, state="failed"))
        _LOG.warning("%s failed: %s: %s", label, type(error).__name__, error)
        if isinstance(error, LostRankError):
            stop.error = error
        raise
    except BaseException:
        tracking.close_run(job.ledger, run_id, "planned", "interrupted")
        raise
    listener(replace(event, flops=trial.flops, loss=outcome.loss, state="complete"))
    return outcome.loss


def _open_run(job: Job, trial: Trial, keeper: Keeper, owner: str) -> str:
    """The run that was interrupted, where its state was kept; else a new one."""
    if keeper.exists():
        run_id = tracking.reopen_run(job.ledger, trial.trial_id, job.setting, owner)
        if run_id is not None:
            return run_id
    params = {**job.params, "code": job.code, **_here()}
    return tracking.start_run(job.ledger, trial, job.setting, params, owner)


def _reporter(job: Job, event: Event, curve: CurveWriter, listener: Listener) -> Report:
    told = 0.0

    def report(point: Point) -> None:
        nonlocal told
        curve.add(
            point.num_tokens,
            train_loss=point.train_loss,
            learning_rate=point.learning_rate,
            tokens_per_second=point.tokens_per_second,
        )
        if time.monotonic() - told > job.seconds_between_events:
            told = time.monotonic()
            listener(replace(event, flops=point.flops, loss=point.train_loss))

    return report


def _record(ledger: Ledger, run_id: str, trial: Trial, outcome: Outcome) -> None:
    metrics = {
        "loss": outcome.loss,
        "flops": outcome.flops,
        "wall_time_s": outcome.wall_time_s,
        "tokens_per_second": outcome.tokens_per_second,
        "epochs": outcome.epochs,
        "num_params": float(trial.num_params),
        "log10_num_params": math.log10(trial.num_params),
    }
    tracking.complete_run(ledger, run_id, metrics, trial.num_tokens)


def _here() -> dict[str, str]:
    return {"hostname": platform.node()}


def _cause(error: Exception) -> str:
    first_line = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {first_line}"


def _trace(error: Exception) -> str:
    return "".join(traceback.format_exception(error))


def _fetch(job: Job) -> list[Run]:
    return tracking.fetch_runs(job.ledger, job.setting)


def _attempts(job: Job) -> list[Run]:
    return tracking.fetch_attempts(job.ledger, job.setting)


def _missing(job: Job, forgiven: Collection[str] = ()) -> list[Trial]:
    """Planned trials that have neither ended nor failed as often as they are tried."""
    runs = _attempts(job)
    ended = {run.trial_id for run in runs if run.state in _ENDED}
    failures = Counter(
        run.trial_id for run in runs if run.state == "failed" and run.run_id not in forgiven
    )
    return [
        trial
        for trial in job.trials
        if trial.trial_id not in ended and failures[trial.trial_id] < _ATTEMPTS
    ]


def _release_dead(job: Job, study: Any) -> None:
    for run_id, owner in tracking.open_runs(job.ledger):
        if is_dead(owner):
            tracking.close_run(job.ledger, run_id, "planned", "its worker died")
    dispatch.release_dead(study)


def _wait_for_others(job: Job, study: Any) -> None:
    """Another driver may still be at work on trials of this plan."""
    ours = {trial.trial_id for trial in job.trials}
    while ours & dispatch.trials_running(study):
        _release_dead(job, study)
        ranks.broadcast("wait")
        time.sleep(_POLL_S)


@contextlib.contextmanager
def _stated(ledger: Ledger) -> Iterator[None]:
    """The parent run shows whether the sweep is at work, done, or stopped."""
    tracking.set_parent_state(ledger, "running")
    try:
        yield
    except BaseException:
        tracking.set_parent_state(ledger, "planned")
        raise
    tracking.set_parent_state(ledger, "complete")


@contextlib.contextmanager
def _progress(job: Job) -> Iterator[Progress]:
    planned = {trial.trial_id: trial.flops for trial in job.trials}
    done = {r.trial_id: planned[r.trial_id] for r in _fetch(job) if _counts(r, planned)}
    with Progress(sum(planned.values()), len(planned), done) as progress:
        yield progress


def _counts(run: Run, planned: dict[str, float]) -> bool:
    return run.state in _ENDED and run.trial_id in planned
