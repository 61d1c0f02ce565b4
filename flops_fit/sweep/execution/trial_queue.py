"""The Optuna grid study: which trials wait, who has claimed which, and which is next.

The search space of the study is the grid, compute_budget x size_index x lr_multiplier, with the N
of each point as one more parameter, by which Optuna's dashboard can plot the loss. Each missing
point is enqueued once, with the planned `Trial` as a user attribute. `study.ask` hands a waiting
point to exactly one process; heartbeats show which workers on other hosts are dead. Optuna only
dispatches: what is done is read from the ledger, never from this study.

A worker that is alone takes trials as they were planned, the smallest budget first. Of several,
each takes the longest that waits, so that all end at about the same time.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict
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
from flops_fit.runtime.process_id import is_dead, lives_here
from flops_fit.store.faults import store_error
from flops_fit.store.locks import one_at_a_time
from flops_fit.store.quiet import quieten
from flops_fit.store.uri import is_missing_file, sqlite_folder, without_credentials
from flops_fit.sweep.execution.storage_outage import (
    BEAT_S,
    GRACE_S,
    STORAGE,
    let_heartbeats_resume,
    storage_errors,
    wait_out,
)

NAMELESS_S = 30  # a worker writes its name on a claim within milliseconds, or was killed
_TRIAL = "trial"  # user attributes of an Optuna trial
_OWNER = "owner"
_PLAN = "plan"
_POINT = ("compute_budget", "size_index", "lr_multiplier", "num_params")
_SHOWN = ("size", "role", "learning_rate", "batch_size")
_LOCK = ".flops_fit.optuna.lock"
_WIDEST = (1e-300, 1e300)
_LARGEST_INDEX = 10_000
_SQLITE_LOCK_TIMEOUT_S = 120


class _Storage(RDBStorage):
    """Optuna's storage; a trial is claimed once, and a failed heartbeat does not end the others."""

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Set a state; claims in SQLite are locked, for it locks no row and two could claim one."""
        if state is not TrialState.RUNNING or sqlite_folder(self.url) is None:
            return super().set_trial_state_values(trial_id, state, values)
        with one_at_a_time(self.url, _LOCK):
            return super().set_trial_state_values(trial_id, state, values)

    def record_heartbeat(self, trial_id: int) -> None:
        with contextlib.suppress(StorageInternalError, SQLAlchemyError):
            super().record_heartbeat(trial_id)

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        """Trials without a heartbeat, except those of processes that are seen to live here.

        After the machine slept, or its clock was moved, all heartbeats look old.
        """
        stale = super()._get_stale_trial_ids(study_id)
        return [trial_id for trial_id in stale if not lives_here(self._owner(trial_id))]

    def _owner(self, trial_id: int) -> str:
        return self.get_trial(trial_id).user_attrs.get(_OWNER, "")


class _Queue(optuna.Study):
    """A study that hands out its longest trial first, also if others have waited for longer.

    What an interrupted sweep has left waits already when its longest trial is enqueued again.
    """

    longest_first = False

    def _pop_waiting_trial_id(self) -> int | None:
        """Claim the next trial; Optuna's own method hands them out as they were enqueued."""
        if not self.longest_first:
            return super()._pop_waiting_trial_id()
        for found in sorted(_get_trials(self, TrialState.WAITING), key=_length, reverse=True):
            with contextlib.suppress(UpdateFinishedTrialError):
                if self._storage.set_trial_state_values(found._trial_id, TrialState.RUNNING):
                    return found._trial_id
        return None


def _length(found: FrozenTrial) -> tuple[float, int]:
    text = found.user_attrs.get(_TRIAL)
    return (0.0, 0) if text is None else Trial(**json.loads(text)).length


def open_study(name: str, url: str, *, longest_first: bool = False) -> optuna.Study:
    """Open or create a study, one process at a time, for Optuna may create its schema.

    Args:
        name: Name of the study.
        url: The storage.
        longest_first: Whether the longest trial is claimed first, else the first planned.

    Raises:
        StoreError: The storage cannot be used.
    """
    is_file = sqlite_folder(url) is not None
    engine_options: dict[str, Any] = {"pool_pre_ping": True}
    if is_file:
        engine_options = {"connect_args": {"timeout": _SQLITE_LOCK_TIMEOUT_S}}
    quieten()
    with _quiet(), storage_errors(url), one_at_a_time(url, _LOCK):
        try:
            storage = _Storage(
                url,
                engine_kwargs=engine_options,
                heartbeat_interval=BEAT_S,
                grace_period=GRACE_S,
                heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(),
            )
        except ImportError as error:  # of the database's driver
            raise store_error(url, error, STORAGE) from error
        except RuntimeError as error:  # Optuna's, about the version of its tables
            raise StoreError(
                f"the Optuna storage {without_credentials(url)} holds tables of another program, "
                "or of another version of Optuna: give it a database of its own, beside MLflow's",
                refused=True,
            ) from error
        created = optuna.create_study(study_name=name, storage=storage, load_if_exists=True)
        queue = _Queue(name, created._storage)
    queue.longest_first = longest_first
    return queue


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide Optuna's warnings that heartbeats are experimental."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def study_exists(name: str, url: str) -> bool:
    """Whether a storage holds a study; nothing is created.

    Raises:
        StoreError: The storage cannot be used.
    """
    if is_missing_file(url):
        return False
    with _quiet(), storage_errors(url):
        return name in optuna.get_all_study_names(url)


def _url(study: optuna.Study) -> str:
    storage: Any = study._storage
    return getattr(storage, "_backend", storage).url  # Optuna puts a cache before the database


def enqueue(study: optuna.Study, trials: Iterable[Trial], plan: str = "") -> int:
    """Enqueue the trials that neither wait nor run.

    Args:
        study: The study.
        trials: What to enqueue.
        plan: Hash of the plan that they are for.

    Returns:
        How many were enqueued.
    """
    with storage_errors(_url(study)):
        unfinished = _get_trials(study, TrialState.WAITING, TrialState.RUNNING)
        present = {_trial_id(found) for found in unfinished}
        absent = [trial for trial in trials if trial.trial_id not in present]
        for trial in absent:
            shown = {name: getattr(trial, name) for name in _SHOWN}  # in Optuna's dashboard
            study.enqueue_trial(
                {name: getattr(trial, name) for name in _POINT},
                user_attrs={_TRIAL: json.dumps(asdict(trial)), _PLAN: plan, **shown},
            )
    return len(absent)


def work_through(
    study: optuna.Study,
    wanted: set[str],
    owner: str,
    run: Callable[[Trial], float],
    go_on: Callable[[], bool],
    has_ended: Callable[[Trial], bool],
    plan: str = "",
) -> None:
    """Claim waiting trials one by one and run them, until none waits.

    Args:
        study: The study.
        wanted: Trial ids of the present plan. Other waiting trials are dropped when they are
            claimed, except those that a driver of the same plan has added since.
        owner: Who claims.
        run: Trains a trial and returns its loss; an exception fails the trial, not the sweep.
        go_on: Called before each trial; False leaves the rest waiting.
        has_ended: Whether the ledger has a trial's result: drivers that start at the same moment
            may each enqueue it.
        plan: Hash of the present plan.

    Raises:
        StoreError: The storage cannot be used, or is away for longer than the timeout.
    """

    def objective(claimed: optuna.Trial) -> float:
        text = claimed.user_attrs.get(_TRIAL)
        trial = None if text is None else Trial(**json.loads(text))
        if trial is None or not (trial.trial_id in wanted or _is_added(claimed, trial, plan)):
            raise optuna.TrialPruned("not of the present plan")
        claimed.set_user_attr(_OWNER, owner)
        if _is_claimed_before(study, trial.trial_id, claimed.number) or has_ended(trial):
            raise optuna.TrialPruned("another worker's")
        # Shows the enqueued point as the trial's parameters.
        claimed.suggest_float("compute_budget", *_WIDEST, log=True)
        claimed.suggest_int("size_index", 0, _LARGEST_INDEX)
        for name in ("lr_multiplier", "num_params"):
            claimed.suggest_float(name, *_WIDEST, log=True)
        return run(trial)

    with _quiet():
        while go_on():
            try:
                if not _get_trials(study, TrialState.WAITING):
                    return
                let_heartbeats_resume(_url(study))
                study.optimize(objective, n_trials=1, catch=(Exception,))
            except Exception as error:  # of the storage: those of a trial were caught above
                wait_out(error, _url(study))


def release_dead(study: optuna.Study) -> None:
    """Fail the claims of dead workers, so that their trials can be enqueued again.

    A worker on this host is dead if its process is gone; one on another host if its heartbeat has
    been silent for `GRACE_S`.

    Raises:
        StoreError: The storage cannot be used.
    """
    with storage_errors(_url(study)), _quiet():
        for claim in _get_trials(study, TrialState.RUNNING):
            owner = claim.user_attrs.get(_OWNER)
            if is_dead(owner) if owner else _age_s(claim) > NAMELESS_S:
                # Raised where another driver has released it first.
                with contextlib.suppress(UpdateFinishedTrialError, ValueError):
                    study.tell(claim.number, state=TrialState.FAIL)
        let_heartbeats_resume(_url(study))
        optuna.storages.fail_stale_trials(study)


def _age_s(claim: FrozenTrial) -> float:
    """Seconds since a trial was claimed."""
    claimed_at = claim.datetime_start or datetime.datetime.now()
    return (datetime.datetime.now() - claimed_at).total_seconds()


def _is_claimed_before(study: optuna.Study, trial_id: str, number: int) -> bool:
    """Whether the same trial was enqueued twice, and its other copy was claimed first."""
    claims = _get_trials(study, TrialState.RUNNING)
    return any(claim.number < number and _trial_id(claim) == trial_id for claim in claims)


def claims(study: optuna.Study) -> set[tuple[str, str]]:
    """Trial id and worker of each claim.

    For a moment a trial may be claimed by two workers; the second drops it.

    Raises:
        StoreError: The storage cannot be used.
    """
    with storage_errors(_url(study)):
        running = _get_trials(study, TrialState.RUNNING)
    return {(_trial_id(claim), claim.user_attrs.get(_OWNER, "")) for claim in running}


def count_waiting(study: optuna.Study, wanted: set[str], plan: str = "") -> int:
    """Number of trials that wait for a worker.

    Args:
        study: The study.
        wanted: Trial ids that count, beside those that a driver of the same plan has added.
        plan: Hash of the present plan.

    Raises:
        StoreError: The storage cannot be used.
    """
    with storage_errors(_url(study)):
        waiting = _get_trials(study, TrialState.WAITING)
    ours = [found for found in waiting if _TRIAL in found.user_attrs]
    trials = [Trial(**json.loads(found.user_attrs[_TRIAL])) for found in ours]
    return sum(
        trial.trial_id in wanted or _is_added(found, trial, plan)
        for found, trial in zip(ours, trials, strict=True)
    )


def _is_added(found: optuna.Trial | FrozenTrial, trial: Trial, plan: str) -> bool:
    """Whether a trial was decided on while a sweep of this plan ran."""
    return trial.added and found.user_attrs.get(_PLAN) == plan


def has_completed(study: optuna.Study, trial_id: str) -> bool:
    """Whether a worker has brought a trial to its loss, even if the ledger lacks it.

    Raises:
        StoreError: The storage cannot be used.
    """
    with storage_errors(_url(study)):
        complete = _get_trials(study, TrialState.COMPLETE)
    return any(_trial_id(found) == trial_id for found in complete)


def _get_trials(study: optuna.Study, *states: TrialState) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=states)


def _trial_id(found: FrozenTrial) -> str:
    """Id of the planned trial behind one of Optuna's; empty if somebody else enqueued it."""
    text = found.user_attrs.get(_TRIAL)
    return "" if text is None else json.loads(text)["trial_id"]
