"""One worker: claim, train, record, until nothing waits.

Workers are all alike, in this process or another. Under a data-parallel launch rank 0 is the
worker, and the other ranks train with it what it announces.
"""

from __future__ import annotations

import logging
import math
import platform
import shutil
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flops_fit import tracking
from flops_fit.errors import DivergedError, LostRankError, in_short
from flops_fit.records import Trial
from flops_fit.sweep import ranks
from flops_fit.sweep import study as dispatch
from flops_fit.sweep.checkpoint import DamagedError, Keeper
from flops_fit.sweep.garbage import old_objects_set_aside
from flops_fit.sweep.owners import at_work
from flops_fit.sweep.progress import Event
from flops_fit.sweep.recipe import Recipe
from flops_fit.sweep.source import Source
from flops_fit.sweep.stopping import StopRequest, stop_at_boundary
from flops_fit.sweep.task import Task, digest
from flops_fit.sweep.train import Outcome, Point, Report, train
from flops_fit.tracking import CurveWriter, Ledger

_LOG = logging.getLogger("flops_fit")
ALIKE = 3  # the first trials of a worker that fail alike before it starts no other

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

    def has_ended(trial: Trial) -> bool:
        return tracking.has_ended(job.ledger, trial.trial_id, job.setting)

    def go_on() -> bool:
        if stop:
            raise stop.exception()
        return not (_alike(ends) and _nothing_has_ended(job))

    with at_work() as owner, stop_at_boundary(patient=ranks.count() > 1) as stop:
        with old_objects_set_aside():
            dispatch.work_through(study, wanted, owner, run, go_on, has_ended)


def _alike(ends: Sequence[str]) -> bool:
    """Whether a worker's trials so far all failed, and alike."""
    return len(ends) >= ALIKE and len(set(ends)) == 1 and ends[0] != ""


def _nothing_has_ended(job: Job) -> bool:
    """Whether no trial of the sweep came to an end: then the others would fail too."""
    runs = tracking.fetch_runs(job.ledger, job.setting)
    return not any(run.state in tracking.ENDED for run in runs)


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


def _run_trial(
    job: Job,
    source: Source,
    trial: Trial,
    owner: str,
    listener: Listener,
    stop: StopRequest,
) -> float:
    """Train and record one trial; whatever happens, its run is closed with its reason."""
    keeper = _keeper(job, trial)
    resumed = keeper.exists()
    run_id = _open_run(job, trial, keeper, owner)
    label = trial.label(job.params.get("size_param", "size"))
    event = Event(trial.trial_id, label, 0.0, math.nan)
    if resumed:
        listener(replace(event, state="resumed"))
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
        if isinstance(error, DamagedError):
            keeper.clear()  # the next attempt starts over
        tracking.close_run(job.ledger, run_id, "failed", in_short(error), _trace(error))
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


def _keeper(job: Job, trial: Trial) -> Keeper:
    """A trial's checkpoints; what other code has kept of it is said and removed."""
    folder = job.checkpoints / f"{trial.trial_id}-{digest(job.code)[:8]}"
    for other in job.checkpoints.glob(f"{trial.trial_id}*"):
        if other != folder:
            _LOG.warning("%s was kept by other code or another version: it starts over", other)
            shutil.rmtree(other, ignore_errors=True)
    return Keeper(folder, job.recipe.checkpoint_every)


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


def _trace(error: Exception) -> str:
    return "".join(traceback.format_exception(error))
