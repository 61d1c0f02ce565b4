"""The Optuna grid study: which trial is planned, whose it is, which is next.

The study's search space is the grid, compute_budget x size_index x lr_multiplier; each missing
point is enqueued once with the planned `Trial` beside it. `study.ask` hands a waiting point to
exactly one process; heartbeats bring back those of workers that died elsewhere. Optuna dispatches,
MLflow remembers: what is done is asked of the ledger, never of this study.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import logging
import warnings
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

import optuna
from filelock import FileLock
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState

from flops_fit.records import Trial
from flops_fit.sweep.owners import is_dead

HEARTBEAT_S = 30
_TRIAL, _OWNER = "trial", "owner"
_RATE = "lr_multiplier"
_WIDEST = (1e-300, 1e300)


def storage_url(folder: Path | None, storage: str | None) -> str:
    """Where the study is kept: as asked, else `optuna.db` beside the MLflow store."""
    if storage is not None:
        return storage
    folder = folder or Path("mlruns").absolute()
    return f"sqlite:///{folder / 'optuna.db'}"


def open_study(name: str, url: str) -> optuna.Study:
    """Open or create a study; one process at a time where the schema may have to be made."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        file = _sqlite_file(url)
        if file is None:
            return _open(name, url)
        file.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(file.parent / ".flops_fit.optuna.lock", timeout=120):
            return _open(name, url)


def study_exists(name: str, url: str) -> bool:
    """Whether a storage holds a study."""
    file = _sqlite_file(url)
    if file is not None and not file.exists():
        return False
    logging.getLogger("optuna").setLevel(logging.ERROR)
    return name in optuna.get_all_study_names(url)


def _sqlite_file(url: str) -> Path | None:
    return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None


def _open(name: str, url: str) -> optuna.Study:
    logging.getLogger("optuna").setLevel(logging.ERROR)
    patience = {"connect_args": {"timeout": 120}} if url.startswith("sqlite") else {}
    storage = RDBStorage(
        url,
        engine_kwargs=patience,
        heartbeat_interval=HEARTBEAT_S,
        grace_period=4 * HEARTBEAT_S,
        heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
    )
    return optuna.create_study(study_name=name, storage=storage, load_if_exists=True)


def enqueue(study: optuna.Study, trials: Iterable[Trial]) -> int:
    """Enqueue the trials that neither wait nor run; returns how many."""
    taken = {_trial_id(found) for found in _unfinished(study)}
    missing = [trial for trial in trials if trial.trial_id not in taken]
    for trial in missing:
        study.enqueue_trial(
            {name: getattr(trial, name) for name in ("compute_budget", "size_index", _RATE)},
            user_attrs={_TRIAL: json.dumps(asdict(trial))},
        )
    return len(missing)


def work_through(
    study: optuna.Study,
    wanted: set[str],
    owner: str,
    run: Callable[[Trial], float],
    go_on: Callable[[], bool],
    has_ended: Callable[[Trial], bool],
) -> None:
    """Claim waiting trials one by one and run them, until none waits.

    Args:
        study: The study.
        wanted: Trial ids of the present plan; others that still wait are dropped as they come.
        owner: Who claims.
        run: Trains a trial and returns its loss; what it raises fails the trial, not the sweep.
        go_on: Asked before each trial; False leaves the others waiting.
        has_ended: Whether the ledger has a trial's result: drivers that start at one moment may
            enqueue it once each.
    """

    def objective(claimed: optuna.Trial) -> float:
        text = claimed.user_attrs.get(_TRIAL)
        trial = None if text is None else Trial(**json.loads(text))
        if trial is None or trial.trial_id not in wanted:
            raise optuna.TrialPruned("not of the present plan")
        claimed.set_user_attr(_OWNER, owner)
        if _is_claimed_before(study, trial.trial_id, claimed.number) or has_ended(trial):
            raise optuna.TrialPruned("another worker's")
        claimed.suggest_float("compute_budget", *_WIDEST, log=True)
        claimed.suggest_int("size_index", 0, 10_000)
        claimed.suggest_float(_RATE, *_WIDEST, log=True)
        return run(trial)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        while go_on() and study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            study.optimize(objective, n_trials=1, catch=(Exception,))


def release_dead(study: optuna.Study) -> None:
    """Fail the trials of dead workers, so that they can be enqueued again.

    On this host a dead process is seen at once; elsewhere a silent heartbeat tells.
    """
    for found in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        owner = found.user_attrs.get(_OWNER)
        if is_dead(owner) if owner else _age_s(found) > 4 * HEARTBEAT_S:
            with contextlib.suppress(UpdateFinishedTrialError, ValueError):  # another was first
                study.tell(found.number, state=TrialState.FAIL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        optuna.storages.fail_stale_trials(study)


def _age_s(found: FrozenTrial) -> float:
    started = found.datetime_start or datetime.datetime.now()
    return (datetime.datetime.now() - started).total_seconds()


def _is_claimed_before(study: optuna.Study, trial_id: str, number: int) -> bool:
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return any(found.number < number and _trial_id(found) == trial_id for found in running)


def claims(study: optuna.Study) -> set[tuple[str, str]]:
    """Trial and worker of each claim; a trial may be claimed twice until the second is dropped."""
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return {(_trial_id(found), found.user_attrs.get(_OWNER, "")) for found in running}


def waiting(study: optuna.Study) -> set[str]:
    """Trial ids that wait for a worker."""
    return {_trial_id(f) for f in study.get_trials(deepcopy=False, states=(TrialState.WAITING,))}


def _unfinished(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.WAITING, TrialState.RUNNING))


def _trial_id(found: FrozenTrial) -> str:
    text = found.user_attrs.get(_TRIAL)
    return "" if text is None else json.loads(text)["trial_id"]
