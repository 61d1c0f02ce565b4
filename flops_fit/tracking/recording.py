"""Writing the run of one trial: opened, told of, closed.

Whatever is written twice is there once, so that what may not have arrived can be sent again. A run
counts as done by the tag `flops_fit.state=complete`, which is written last (see `tracking`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from flops_fit.records import Trial
from flops_fit.store.client import client_of
from flops_fit.tracking.ledger import (
    ATTEMPT,
    PARENT,
    REASON,
    SETTING,
    STATE,
    SWEEP,
    TRIAL_ID,
    WORKER,
    Ledger,
    now,
    raises_store_errors,
)
from flops_fit.tracking.queries import runs_of

_MOST_METRICS = 1000  # in one call


@raises_store_errors
def start_run(
    ledger: Ledger,
    trial: Trial,
    setting: str,
    params: Mapping[str, object],
    worker: str,
    attempt: str = "",
    start_time: int | None = None,
) -> str:
    """Open the run of a trial; returns its id.

    Args:
        ledger: Where.
        trial: Whose run it is.
        setting: Hash of what all trials share.
        params: What is written beside the trial's own fields.
        worker: Who trains it.
        attempt: Hex name of this attempt at the trial, to find the run by.
        start_time: When it began, in milliseconds since 1970; now if None.
    """
    client = client_of(ledger.tracking_uri)
    tags = {
        PARENT: ledger.parent_run_id,
        TRIAL_ID: trial.trial_id,
        SETTING: setting,
        SWEEP: ledger.name,
        WORKER: worker,
        ATTEMPT: attempt,
        STATE: "running",
    }
    title = trial.label(str(params.get("size_param", "size")))
    run = client.create_run(ledger.experiment_id, start_time=start_time, run_name=title, tags=tags)
    _write_params(client, run.info.run_id, trial, params)
    return run.info.run_id


def _write_params(
    client: MlflowClient, run_id: str, trial: Trial, params: Mapping[str, object]
) -> None:
    values = {**params, **_trial_params(trial)}
    texts = [Param(key, _clean(value, 500)) for key, value in values.items() if key != "size_param"]
    client.log_batch(run_id, params=texts)


@raises_store_errors
def find_attempt(
    ledger: Ledger, trial: Trial, params: Mapping[str, object], attempt: str
) -> str | None:
    """The run of an attempt, if one was opened; what a broken connection left out is written."""
    for run in runs_of(ledger, trial.trial_id):
        if run.data.tags.get(ATTEMPT) == attempt:
            if "compute_budget" not in run.data.params:
                client = client_of(ledger.tracking_uri)
                _write_params(client, run.info.run_id, trial, params)
            return run.info.run_id
    return None


@raises_store_errors
def reopen_run(
    ledger: Ledger, trial_id: str, setting: str, worker: str, attempt: str = ""
) -> str | None:
    """Open the interrupted run of a trial again, so that its curve goes on; None if none."""
    runs = (r for r in runs_of(ledger, trial_id) if r.data.tags.get(SETTING) == setting)
    latest = next(runs, None)
    if latest is None or latest.data.tags.get(STATE) != "planned":
        return None
    client = client_of(ledger.tracking_uri)
    for tag, value in ((WORKER, worker), (ATTEMPT, attempt), (STATE, "running")):
        client.set_tag(latest.info.run_id, tag, value)
    client.update_run(latest.info.run_id, status="RUNNING")
    return latest.info.run_id


@raises_store_errors
def log_points(
    ledger: Ledger, run_id: str, points: Iterable[tuple[int, int, Mapping[str, float]]]
) -> None:
    """Write points of a training curve: milliseconds since 1970, tokens seen, values by name.

    Points that are there already stay single.
    """
    values = [Metric(key, value, at, step) for at, step, point in points
              for key, value in point.items()]  # fmt: skip
    for start in range(0, len(values), _MOST_METRICS):
        part = values[start : start + _MOST_METRICS]
        client_of(ledger.tracking_uri).log_batch(run_id, metrics=part)


@raises_store_errors
def complete_run(
    ledger: Ledger,
    run_id: str,
    metrics: Mapping[str, float],
    step: int,
    end_time: int | None = None,
) -> None:
    """Close a run as done: metrics first, then FINISHED, the state last of all."""
    client = client_of(ledger.tracking_uri)
    at = end_time or now()
    values = [Metric(key, value, at, step) for key, value in metrics.items() if value == value]
    client.log_batch(run_id, metrics=values)
    client.set_terminated(run_id, status="FINISHED", end_time=at)
    client.set_tag(run_id, STATE, "complete")


@raises_store_errors
def close_run(
    ledger: Ledger,
    run_id: str,
    state: str,
    reason: str,
    trace: str = "",
    end_time: int | None = None,
) -> None:
    """Close a run that did not finish: `failed`, `diverged`, or back to `planned`."""
    client = client_of(ledger.tracking_uri)
    status = {"failed": "FAILED", "diverged": "FAILED", "planned": "KILLED"}[state]
    client.set_tag(run_id, REASON, _clean(reason, 1000))
    if trace:
        client.set_tag(run_id, "flops_fit.traceback", _clean(trace[-5000:], 5000))
    client.set_tag(run_id, STATE, state)
    client.set_terminated(run_id, status=status, end_time=end_time or now())


@raises_store_errors
def supersede_run(ledger: Ledger, run_id: str, reason: str) -> None:
    """A finished run counts no more: its trial is to be trained again."""
    client = client_of(ledger.tracking_uri)
    client.set_tag(run_id, REASON, reason)
    client.set_tag(run_id, STATE, "planned")


def _trial_params(trial: Trial) -> dict[str, object]:
    names = ("compute_budget", "size", "num_params", "num_tokens", "steps", "batch_size")
    rates = ("learning_rate", "lr_multiplier", "seed")
    values = {name: getattr(trial, name) for name in (*names, *rates)}
    return {**values, "size": json.dumps(trial.size)}


def _clean(value: object, limit: int) -> str:
    """Text that every database takes: PostgreSQL refuses NUL, all refuse half a character."""
    text = str(value)[:limit].replace("\0", "\ufffd")
    return text.encode("utf-8", "replace").decode()
