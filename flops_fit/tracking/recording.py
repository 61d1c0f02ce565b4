"""Writing the MLflow run of one trial: start, training curve, end.

Every function here can be called again with the same arguments without doubling anything, so a
call whose answer was lost can be repeated. A run counts as done by the tag
`flops_fit.state=complete`, which is written last (see `queries`).
"""

from __future__ import annotations

import colorsys
import json
import math
from collections.abc import Iterable, Mapping

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from flops_fit.records import Trial
from flops_fit.store.client import client_of
from flops_fit.tracking.ledger import (
    ATTEMPT,
    COLOUR,
    COUNTED_TOKENS,
    PARENT,
    REASON,
    ROLE,
    SETTING,
    STATE,
    SWEEP,
    TRIAL_ID,
    WALL_TIME,
    WORKER,
    Ledger,
    now_ms,
    raises_store_errors,
)
from flops_fit.tracking.queries import runs_of

_MOST_METRICS = 1000  # MLflow's limit for one call
_PARAM_LIMIT = 500  # characters
_REASON_LIMIT = 1000
_TRACE_LIMIT = 5000
_STATUS_OF_STATE = {"failed": "FAILED", "diverged": "FAILED", "planned": "KILLED"}
# Final values that are params, by the names they have there: MLflow draws a chart of every metric.
_CONSTANTS = {
    "flops": "flops",
    "epochs": "epochs",
    "num_tokens": COUNTED_TOKENS,
    "padded_tokens": "padded_tokens",
}
_DECADES_PER_TURN = 3  # of the hue by which runs of one budget are coloured
_TRIAL_PARAMS = (
    "compute_budget",
    "size",
    "num_params",
    "num_tokens",
    "steps",
    "batch_size",
    "learning_rate",
    "lr_multiplier",
    "seed",
)


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
    """Create the run of a trial.

    Args:
        ledger: The sweep.
        trial: The trial.
        setting: Hash of what all trials share.
        params: Written beside the trial's own fields; `size_param` names its size in the title.
        worker: Who trains it.
        attempt: Hex id of this attempt at the trial, by which the run can be found again.
        start_time: Milliseconds since 1970; now if None.

    Returns:
        The run's id.
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
        ROLE: trial.role,
        COLOUR: _colour_of(trial.compute_budget),
    }
    title = trial.label(str(params.get("size_param", "size")))
    run = client.create_run(ledger.experiment_id, start_time=start_time, run_name=title, tags=tags)
    _write_params(client, run.info.run_id, trial, params)
    return run.info.run_id


def _write_params(
    client: MlflowClient, run_id: str, trial: Trial, params: Mapping[str, object]
) -> None:
    of_trial = {name: getattr(trial, name) for name in _TRIAL_PARAMS}
    values = {**params, **of_trial, "size": json.dumps(trial.size)}
    # MLflow's scatter plots have no logarithmic axis.
    values["log10_num_params"] = round(math.log10(trial.num_params), 4)
    values.pop("size_param", None)  # stands in the run's title
    written = [Param(name, _storable(value, _PARAM_LIMIT)) for name, value in values.items()]
    client.log_batch(run_id, params=written)


def _colour_of(compute_budget: float) -> str:
    """The colour of a budget's runs in MLflow's charts: a hue, as #rrggbb."""
    hue = math.log10(compute_budget) / _DECADES_PER_TURN % 1
    red, green, blue = colorsys.hls_to_rgb(hue, 0.42, 0.7)
    return "#" + "".join(f"{round(255 * part):02x}" for part in (red, green, blue))


@raises_store_errors
def find_attempt(
    ledger: Ledger, trial: Trial, params: Mapping[str, object], attempt: str
) -> str | None:
    """The run of an attempt, if one was created; missing params are written.

    Args:
        ledger: The sweep.
        trial: The trial.
        params: As of `start_run`, which may have failed between the run and its params.
        attempt: Hex id of the attempt.
    """
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
    """Reopen the interrupted run of a trial, so that its training curve continues.

    Returns:
        Its id; None if the trial's latest run of this setting was not interrupted.
    """
    runs = (run for run in runs_of(ledger, trial_id) if run.data.tags.get(SETTING) == setting)
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
    """Write points of a training curve; those that are there already are not doubled.

    Args:
        ledger: The sweep.
        run_id: The run.
        points: Milliseconds since 1970, tokens seen, and values by name.
    """
    metrics = [
        Metric(name, value, logged_at, step)
        for logged_at, step, values in points
        for name, value in values.items()
    ]
    for start in range(0, len(metrics), _MOST_METRICS):
        batch = metrics[start : start + _MOST_METRICS]
        client_of(ledger.tracking_uri).log_batch(run_id, metrics=batch)


@raises_store_errors
def complete_run(
    ledger: Ledger,
    run_id: str,
    metrics: Mapping[str, float],
    step: int,
    end_time: int | None = None,
) -> None:
    """Close a run as done: first the metrics, then FINISHED, and the state tag last.

    Args:
        ledger: The sweep.
        run_id: The run.
        metrics: Final values by name; NaN is left out.
        step: Tokens seen.
        end_time: Milliseconds since 1970; now if None.
    """
    client = client_of(ledger.tracking_uri)
    ended_at = end_time or now_ms()
    known = {name: value for name, value in metrics.items() if value == value}  # NaN is not
    # A tag, as a param can never change: a trial that is trained again takes another time.
    times = [RunTag(name, str(known.pop(name))) for name in (WALL_TIME,) if name in known]
    values = [
        Metric(name, value, ended_at, step)
        for name, value in known.items()
        if name not in _CONSTANTS
    ]
    constants = [
        Param(name, str(known[given])) for given, name in _CONSTANTS.items() if given in known
    ]
    client.log_batch(run_id, metrics=values, params=constants, tags=times)
    client.set_terminated(run_id, status="FINISHED", end_time=ended_at)
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
    """Close a run that did not finish.

    Args:
        ledger: The sweep.
        run_id: The run.
        state: `failed`, `diverged`, or `planned` where the trial is to be run again.
        reason: Why, in one line.
        trace: The traceback; its last 5,000 characters are kept.
        end_time: Milliseconds since 1970; now if None.
    """
    client = client_of(ledger.tracking_uri)
    client.set_tag(run_id, REASON, _storable(reason, _REASON_LIMIT))
    if trace:
        shown = _storable(trace[-_TRACE_LIMIT:], _TRACE_LIMIT)
        client.set_tag(run_id, "flops_fit.traceback", shown)
    client.set_tag(run_id, STATE, state)
    client.set_terminated(run_id, status=_STATUS_OF_STATE[state], end_time=end_time or now_ms())


@raises_store_errors
def supersede_run(ledger: Ledger, run_id: str, reason: str) -> None:
    """Take a finished run out of the count: its trial is to be trained again."""
    client = client_of(ledger.tracking_uri)
    client.set_tag(run_id, REASON, reason)
    client.set_tag(run_id, STATE, "planned")


def _storable(value: object, limit: int) -> str:
    """Text that every database takes: without NUL (PostgreSQL) and lone surrogates (all)."""
    text = str(value)[:limit].replace("\0", "\ufffd")
    return text.encode("utf-8", "replace").decode()
