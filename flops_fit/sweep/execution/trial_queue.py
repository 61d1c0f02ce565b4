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
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import (
    ExperimentalWarning,
    StorageInternalError,
    UpdateFinishedTrialError,
)
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from flops_fit.errors import StoreError
from flops_fit.records import Trial
from flops_fit.runtime import distributed
from flops_fit.runtime.process_id import is_dead, lives_here
from flops_fit.store.faults import store_error
from flops_fit.store.locks import one_at_a_time
from flops_fit.store.uri import sqlite_folder, without_credentials

BEAT_S = 10
GRACE_S = 120  # a worker elsewhere that has been silent for so long is dead
NAMELESS_S = 30  # a claim has its owner's name after milliseconds, or never
_TRIAL, _OWNER = "trial", "owner"
_RATE = "lr_multiplier"
_LOCK = ".flops_fit.optuna.lock"
_WIDEST = (1e-300, 1e300)
_PAUSE_S = 1.0
_AWAY: dict[str, tuple[float, float]] = {}  # storages with faults: the first in a row, the last
_LOG = logging.getLogger("flops_fit")
# Once, not at each call: a Ctrl-C within `setLevel` leaves logging's lock taken for good.
logging.getLogger("optuna").setLevel(logging.ERROR)


class _Storage(RDBStorage):
    """Optuna's storage: a trial is claimed once, and a fault does not end the heartbeat."""

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """One claim at a time: sqlite locks no row, and two would see one trial wait."""
        if state is not TrialState.RUNNING or sqlite_folder(self.url) is None:
            return super().set_trial_state_values(trial_id, state, values)
        with one_at_a_time(self.url, _LOCK):
            return super().set_trial_state_values(trial_id, state, values)

    def record_heartbeat(self, trial_id: int) -> None:
        with contextlib.suppress(StorageInternalError, SQLAlchemyError):
            super().record_heartbeat(trial_id)

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        """Silent trials, but for those of processes that are seen to live.

        A machine that slept, or whose clock was moved, lets all hearts seem to have stopped.
        """
        stale = super()._get_stale_trial_ids(study_id)
        return [one for one in stale if not lives_here(self._owner(one))]

    def _owner(self, trial_id: int) -> str:
        return self.get_trial(trial_id).user_attrs.get(_OWNER, "")


def storage_url(folder: Path | None, storage: str | None) -> str:
    """Where the study is kept: as asked, else `optuna.db` beside the MLflow store."""
    if storage is not None:
        return storage
    folder = folder or Path("mlruns").absolute()
    return f"sqlite:///{folder / 'optuna.db'}"


def open_study(name: str, url: str) -> optuna.Study:
    """Open or create a study; one process at a time where the schema may have to be made.

    Raises:
        StoreError: The storage cannot be used.
    """
    local = sqlite_folder(url) is not None
    patience = {"connect_args": {"timeout": 120}} if local else {"pool_pre_ping": True}
    with _quiet(), _storage_errors(url), one_at_a_time(url, _LOCK):
        try:
            storage = _Storage(
                url,
                engine_kwargs=patience,
                heartbeat_interval=BEAT_S,
                grace_period=GRACE_S,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
            )
        except ImportError as error:  # of the database's driver
            raise store_error(url, error, "Optuna storage") from error
        except RuntimeError as error:
            raise StoreError(
                f"the Optuna storage {without_credentials(url)} holds tables of another program, "
                "or of another version of Optuna: give it a database of its own, beside MLflow's",
                refused=True,
            ) from error
        return optuna.create_study(study_name=name, storage=storage, load_if_exists=True)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def study_exists(name: str, url: str) -> bool:
    """Whether a storage holds a study.

    Raises:
        StoreError: The storage cannot be used.
    """
    folder = sqlite_folder(url)
    if folder is not None and not Path(url.removeprefix("sqlite:///")).exists():
        return False
    with _quiet(), _storage_errors(url):
        return name in optuna.get_all_study_names(url)


@contextlib.contextmanager
def _storage_errors(url: str) -> Iterator[None]:
    """Faults of a storage come out as a StoreError."""
    try:
        yield
    except Exception as error:
        fault = _fault(url, error)
        if fault is None:
            raise
        raise fault from None  # what the libraries say may hold the password


def _fault(url: str, error: BaseException) -> StoreError | None:
    """A storage's fault in our words, if one is among the causes: the first tells most."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    told = [c for c in causes if isinstance(c, SQLAlchemyError | StorageInternalError | OSError)]
    if not told:
        return None
    now = time.monotonic()
    _AWAY[url] = (_AWAY.get(url, (now, now))[0], now)
    database = [cause for cause in told if isinstance(cause, SQLAlchemyError)] or told
    return store_error(url, database[-1], "Optuna storage")


def _url(study: optuna.Study) -> str:
    storage: Any = study._storage
    return getattr(storage, "_backend", storage).url  # Optuna keeps a cache before the database


def enqueue(study: optuna.Study, trials: Iterable[Trial]) -> int:
    """Enqueue the trials that neither wait nor run; returns how many."""
    with _storage_errors(_url(study)):
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
        wanted: Trial ids of the present plan; others that still wait are dropped as they come,
            but for those that a driver has added to a row.
        owner: Who claims.
        run: Trains a trial and returns its loss; what it raises fails the trial, not the sweep.
        go_on: Asked before each trial; False leaves the others waiting.
        has_ended: Whether the ledger has a trial's result: drivers that start at one moment may
            enqueue it once each.
    """

    def objective(claimed: optuna.Trial) -> float:
        text = claimed.user_attrs.get(_TRIAL)
        trial = None if text is None else Trial(**json.loads(text))
        if trial is None or not (trial.trial_id in wanted or trial.added):
            raise optuna.TrialPruned("not of the present plan")
        claimed.set_user_attr(_OWNER, owner)
        if _is_claimed_before(study, trial.trial_id, claimed.number) or has_ended(trial):
            raise optuna.TrialPruned("another worker's")
        claimed.suggest_float("compute_budget", *_WIDEST, log=True)
        claimed.suggest_int("size_index", 0, 10_000)
        claimed.suggest_float(_RATE, *_WIDEST, log=True)
        return run(trial)

    with _quiet():
        while go_on():
            try:
                if not study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
                    return
                _let_others_beat(_url(study))
                study.optimize(objective, n_trials=1, catch=(Exception,))
            except Exception as error:  # none of a trial's
                _get_over(error, _url(study))


def _get_over(error: Exception, url: str) -> None:
    """After a fault of the storage, or where a claim was lost, the worker goes on.

    What Optuna raises where it cannot write a trial's end may be anything: its causes tell.
    """
    fault = _fault(url, error)
    if fault is None:
        _LOG.warning("a claim was taken for a dead worker's: %r", error)
        return
    if sqlite_folder(url) is not None or _away_s(url) > distributed.timeout().total_seconds():
        raise fault from None
    if not _away_s(url):
        _LOG.warning("%s. Waiting for it", fault)
    distributed.broadcast("wait")
    time.sleep(_PAUSE_S)


def _let_others_beat(url: str) -> None:
    """A storage that was away heard nobody's heart: nobody is dead for that."""
    if _away_s(url) > GRACE_S / 2:
        time.sleep(2 * BEAT_S)
    if _AWAY.pop(url, None):
        _LOG.warning("the Optuna storage is back")


def _away_s(url: str) -> float:
    """Seconds from the first fault of a storage in a row to the last."""
    first, last = _AWAY.get(url, (0.0, 0.0))
    return last - first


def release_dead(study: optuna.Study) -> None:
    """Fail the trials of dead workers, so that they can be enqueued again.

    On this host a dead process is seen at once; elsewhere a silent heartbeat tells.
    """
    with _storage_errors(_url(study)), _quiet():
        for found in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            owner = found.user_attrs.get(_OWNER)
            if is_dead(owner) if owner else _age_s(found) > NAMELESS_S:
                with contextlib.suppress(UpdateFinishedTrialError, ValueError):  # another was first
                    study.tell(found.number, state=TrialState.FAIL)
        _let_others_beat(_url(study))
        optuna.storages.fail_stale_trials(study)


def _age_s(found: FrozenTrial) -> float:
    started = found.datetime_start or datetime.datetime.now()
    return (datetime.datetime.now() - started).total_seconds()


def _is_claimed_before(study: optuna.Study, trial_id: str, number: int) -> bool:
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return any(found.number < number and _trial_id(found) == trial_id for found in running)


def claims(study: optuna.Study) -> set[tuple[str, str]]:
    """Trial and worker of each claim; a trial may be claimed twice until the second is dropped."""
    with _storage_errors(_url(study)):
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return {(_trial_id(found), found.user_attrs.get(_OWNER, "")) for found in running}


def count_waiting(study: optuna.Study, wanted: set[str]) -> int:
    """Trials that wait for a worker, of those wanted and of those that a driver has added."""
    with _storage_errors(_url(study)):
        found = study.get_trials(deepcopy=False, states=(TrialState.WAITING,))
    texts = [one.user_attrs[_TRIAL] for one in found if _TRIAL in one.user_attrs]
    trials = [Trial(**json.loads(text)) for text in texts]
    return sum(trial.trial_id in wanted or trial.added for trial in trials)


def has_completed(study: optuna.Study, trial_id: str) -> bool:
    """Whether some worker came to a trial's loss, whatever the ledger knows of it."""
    with _storage_errors(_url(study)):
        done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return any(_trial_id(found) == trial_id for found in done)


def _unfinished(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.WAITING, TrialState.RUNNING))


def _trial_id(found: FrozenTrial) -> str:
    text = found.user_attrs.get(_TRIAL)
    return "" if text is None else json.loads(text)["trial_id"]
