"""Memory: MLflow is the ledger of what has been trained.

A sweep is an MLflow experiment with one parent run; each trial is a child of it. A trial is done
when a child carries its `flops_fit.trial_id`, is FINISHED, has a finite loss, and the tag
`flops_fit.state=complete`, which is written last: FINISHED alone proves nothing.
"""

from __future__ import annotations

import gc
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from os import PathLike
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pandas as pd
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from flops_fit.errors import ArgumentError, SweepError
from flops_fit.records import RUN_COLUMNS, Run, Size, to_frame
from flops_fit.store import (
    client_of,
    exclusive,
    resolve_uri,
    sqlite_folder,
    told_faults,
    without_credentials,
)

TRIAL_ID = "flops_fit.trial_id"
STATE = "flops_fit.state"
SWEEP = "flops_fit.sweep"
SETTING = "flops_fit.setting"
WORKER = "flops_fit.worker"
ATTEMPT = "flops_fit.attempt"
META = "flops_fit.meta"
REASON = "flops_fit.reason"
ENDED = ("complete", "diverged")
PARENT, NOTE = "mlflow.parentRunId", "mlflow.note.content"
_NAME_LIMIT = 200
_DIGEST_LIMIT = 36
_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Ledger:
    """Where a sweep's runs are kept; plain strings, so that it travels to workers.

    Attributes:
        name: The sweep's name, which is the experiment's.
        tracking_uri: The MLflow store.
        experiment_id: The sweep's experiment.
        parent_run_id: The run that the trials are children of.
    """

    name: str
    tracking_uri: str
    experiment_id: str
    parent_run_id: str

    @property
    def home(self) -> Path | None:
        """The folder of a sqlite store; None for a server."""
        return sqlite_folder(self.tracking_uri)

    @property
    def page(self) -> str:
        """The part of an address, after the server's, that shows this sweep's runs."""
        return f"#/experiments/{self.experiment_id}/runs?workflowType=machine_learning"

    def where_to_look(self) -> str:
        """The address that shows this sweep's runs, and the command that serves it if need be."""
        uri = without_credentials(self.tracking_uri)
        if uri.startswith("http"):
            return f"{uri.rstrip('/')}/{self.page}"
        return f"mlflow ui --backend-store-uri {uri}\n  then http://127.0.0.1:5000/{self.page}"


def open_ledger(name: str, tracking_uri: str | PathLike[str] | None = None) -> Ledger:
    """Open a sweep's ledger, making store, experiment and parent run where they are missing.

    Raises:
        ArgumentError: The name cannot be one.
        SweepError: The store cannot be opened.
    """
    check_name(name)
    uri = resolve_uri(tracking_uri)
    with exclusive(uri):
        client = client_of(uri)
        experiment_id = _experiment(client, name) or _create_experiment(client, name, uri)
        parent = _parent(client, experiment_id) or _create_parent(client, experiment_id, name)
    return Ledger(name, uri, experiment_id, parent)


def find_ledger(name: str, tracking_uri: str | PathLike[str] | None = None) -> Ledger:
    """The ledger of a sweep that exists.

    Raises:
        SweepError: If there is none of that name; lists those there are.
    """
    uri = _existing(tracking_uri)
    shown = without_credentials(uri)
    with exclusive(uri):
        client = client_of(uri)
        experiment_id = _experiment(client, name)
        parent = _parent(client, experiment_id) if experiment_id else None
    if experiment_id is None or parent is None:
        known = sorted(found.name for found in _ledgers(client, uri))
        raise SweepError(f"no sweep named {name!r} in {shown}; it holds: {_few(known)}")
    return Ledger(name, uri, experiment_id, parent)


def list_ledgers(tracking_uri: str | PathLike[str] | None = None) -> list[Ledger]:
    """The ledgers of all sweeps in a store, the latest first.

    Raises:
        SweepError: The store is not there, or cannot be used.
    """
    uri = _existing(tracking_uri)
    with exclusive(uri):
        return list(_ledgers(client_of(uri), uri))


def _ledgers(client: MlflowClient, uri: str) -> Iterator[Ledger]:
    for experiment in client.search_experiments():
        parent = _parent(client, experiment.experiment_id)
        if parent is not None:
            yield Ledger(experiment.name, uri, experiment.experiment_id, parent)


def _few(names: list[str]) -> str:
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more if names else "none"


def _existing(tracking_uri: str | PathLike[str] | None) -> str:
    uri = resolve_uri(tracking_uri)
    if sqlite_folder(uri) is not None and not Path(uri.removeprefix("sqlite:///")).exists():
        raise SweepError(
            f"no store at {without_credentials(uri)}; run a sweep first, or say where one is, by "
            "tracking_uri= or MLFLOW_TRACKING_URI"
        )
    return uri


def check_name(name: object) -> None:
    """Refuse what MLflow would mangle.

    Raises:
        ArgumentError: If the name is empty, too long, or holds control characters.
    """
    if not isinstance(name, str) or not name.strip():
        raise ArgumentError(f"name: expected a sweep name, got {name!r}")
    if len(name) > _NAME_LIMIT or not name.isprintable():
        raise ArgumentError(
            f"name: expected up to {_NAME_LIMIT} printable characters, got {len(name)}: "
            f"{name[:40]!r}"
        )


def told(
    function: Callable[Concatenate[Ledger, _P], _T],
) -> Callable[Concatenate[Ledger, _P], _T]:
    """Faults of the store come out of a function of a ledger as a StoreError."""

    @wraps(function)
    def called(ledger: Ledger, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with told_faults(ledger.tracking_uri):
            return function(ledger, *args, **kwargs)

    return called


@told
def open_runs(ledger: Ledger, setting: str) -> dict[str, tuple[str, str, str]]:
    """Runs of a setting that say they are running: by run id, their trial, worker and attempt."""
    return {
        run.info.run_id: (
            run.data.tags[TRIAL_ID],
            run.data.tags.get(WORKER, ""),
            run.data.tags.get(ATTEMPT, ""),
        )
        for run in _search(ledger, f"tags.`{STATE}` = 'running'")
        if run.data.tags.get(SETTING) == setting and TRIAL_ID in run.data.tags
    }


@told
def is_open(ledger: Ledger, run_id: str) -> bool:
    """Whether a run says at this moment that it is running."""
    return client_of(ledger.tracking_uri).get_run(run_id).data.tags.get(STATE) == "running"


def fetch_runs(ledger: Ledger, setting: str | None = None) -> list[Run]:
    """One run per trial: the complete one where there is one, else the latest.

    Args:
        ledger: Whose runs.
        setting: Only runs of this setting (model, data, loss, recipe); all if None.
    """
    return latest_runs(fetch_attempts(ledger, setting))


def latest_runs(attempts: Iterable[Run]) -> list[Run]:
    """Of all runs, the latest first, one per trial; see `fetch_runs`."""
    best: dict[str, Run] = {}
    for run in attempts:
        known = best.get(run.trial_id)
        if known is None or (run.state == "complete" and known.state != "complete"):
            best[run.trial_id] = run
    return sorted(best.values(), key=lambda run: (run.compute_budget, run.num_params))


@told
def fetch_attempts(ledger: Ledger, setting: str | None = None) -> list[Run]:
    """All runs, latest first: a trial may have failed before it finished."""
    return [
        _to_run(run)
        for run in _children(ledger)
        if setting is None or run.data.tags.get(SETTING) == setting
    ]


@told
def has_ended(ledger: Ledger, trial_id: str, setting: str, but_for: str = "") -> bool:
    """Whether a trial has a loss, or has diverged, in any run but one."""
    return any(
        _to_run(run).state in ENDED
        for run in runs_of(ledger, trial_id)
        if run.data.tags.get(SETTING) == setting and run.info.run_id != but_for
    )


def runs_of(ledger: Ledger, trial_id: str) -> Iterator[Any]:
    """All runs of a trial, latest first."""
    return _search(ledger, f"tags.`{TRIAL_ID}` = '{int(trial_id, 16):016x}'")


@told
def fetch_curves(ledger: Ledger, runs: Iterable[Run], most_points: int = 200) -> pd.DataFrame:
    """Training curves of runs: `trial_id`, `num_tokens` by then, `loss` (of the batch).

    Args:
        ledger: Whose runs.
        runs: The runs.
        most_points: Points a curve is thinned to.
    """
    client = client_of(ledger.tracking_uri)
    rows: list[tuple[str, float, float]] = []
    for run in runs:
        points = client.get_metric_history(run.run_id, "train_loss")
        points.sort(key=lambda point: point.step)
        every = -(-len(points) // most_points) or 1
        kept = points[::-1][::every][::-1]  # the last point is among them
        rows += [(run.trial_id, float(point.step), point.value) for point in kept]
    return pd.DataFrame(rows, columns=["trial_id", "num_tokens", "loss"])


def artifact_address(ledger: Ledger, name: str) -> str:
    """Where an artifact of the parent run lies: a path where it is a file here, else its URI."""
    run = client_of(ledger.tracking_uri).get_run(ledger.parent_run_id)
    uri = f"{run.info.artifact_uri}/{name}"
    return url2pathname(urlsplit(uri).path) if uri.startswith("file:") else uri


def runs_frame(runs: list[Run]) -> pd.DataFrame:
    """Runs as the table that the laws are fitted to."""
    return to_frame(runs, RUN_COLUMNS)


@told
def read_meta(ledger: Ledger) -> dict[str, str]:
    """What the latest plan wrote about itself on the parent run."""
    tags = client_of(ledger.tracking_uri).get_run(ledger.parent_run_id).data.tags
    meta = json.loads(tags.get(META, "{}"))
    return {str(key): str(value) for key, value in meta.items()}


@told
def write_meta(ledger: Ledger, meta: Mapping[str, str], note: str) -> None:
    """Write what a plan says of itself, and the description that the UI shows."""
    client = client_of(ledger.tracking_uri)
    client.set_tag(ledger.parent_run_id, META, json.dumps(dict(meta)))
    client.set_tag(ledger.parent_run_id, NOTE, note)


@told
def log_dataset(ledger: Ledger, name: str, fingerprint: str, profile: Mapping[str, object]) -> None:
    """Show on the parent run which data the sweep trains on; once for each fingerprint."""
    data = Dataset(
        name=name[:_NAME_LIMIT],
        digest=fingerprint[:_DIGEST_LIMIT],
        source_type="code",
        source=json.dumps({"name": name}),
        profile=json.dumps(dict(profile)),
    )
    context = InputTag("mlflow.data.context", "training")
    client = client_of(ledger.tracking_uri)
    client.log_inputs(ledger.parent_run_id, [DatasetInput(data, [context])])


@told
def write_note(ledger: Ledger, note: str) -> None:
    """Write the description that the UI shows of the sweep, as Markdown."""
    client_of(ledger.tracking_uri).set_tag(ledger.parent_run_id, NOTE, note)


@told
def set_parent_state(ledger: Ledger, state: str) -> None:
    """Show on the parent run whether the sweep is at work."""
    client = client_of(ledger.tracking_uri)
    client.set_tag(ledger.parent_run_id, STATE, state)
    if state == "running":
        client.update_run(ledger.parent_run_id, status="RUNNING")
    else:
        client.set_terminated(ledger.parent_run_id, status=_PARENT_STATUS[state])


_PARENT_STATUS = {"complete": "FINISHED", "failed": "FAILED", "planned": "KILLED"}


@told
def log_analysis(ledger: Ledger, folder: Path, metrics: Mapping[str, float]) -> None:
    """Log a folder of tables, plots and laws, and headline numbers, on the parent run."""
    client = client_of(ledger.tracking_uri)
    client.log_artifacts(ledger.parent_run_id, str(folder))
    at = now()
    values = [Metric(k, v, at, 0) for k, v in metrics.items() if math.isfinite(v)]
    client.log_batch(ledger.parent_run_id, metrics=values)


def _is_complete(run: Any) -> bool:
    return (
        run.info.status == "FINISHED"
        and run.data.tags.get(STATE) == "complete"
        and math.isfinite(run.data.metrics.get("loss", math.nan))
    )


def _to_run(run: Any) -> Run:
    params, metrics, tags = run.data.params, run.data.metrics, run.data.tags
    state = tags.get(STATE, "planned")
    if state == "complete" and not _is_complete(run):
        state = "planned"
    return Run(
        trial_id=tags[TRIAL_ID],
        run_id=run.info.run_id,
        compute_budget=float(params.get("compute_budget", math.nan)),
        size=_size(params.get("size", "null")),
        num_params=float(params.get("num_params", math.nan)),
        num_tokens=float(params.get("num_tokens", math.nan)),
        flops=metrics.get("flops", math.nan),
        loss=metrics.get("loss", math.nan) if state == "complete" else math.nan,
        wall_time_s=metrics.get("wall_time_s", math.nan),
        seed=int(params.get("seed", 0)),
        state=state,
        excluded="" if state == "complete" else _reason(state, tags),
        steps=float(params.get("steps", math.nan)),
        learning_rate=float(params.get("learning_rate", math.nan)),
        lr_multiplier=float(params.get("lr_multiplier", 1.0)),
        epochs=metrics.get("epochs", math.nan),
        code=params.get("code", ""),
    )


def _reason(state: str, tags: Mapping[str, str]) -> str:
    if state not in ("failed", "diverged"):
        return "not finished"
    return f"{state}: {tags[REASON]}" if tags.get(REASON) else state


def _size(text: str) -> Size | None:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def _children(ledger: Ledger) -> Iterator[Any]:
    """All trial runs of a sweep, latest first."""
    return (run for run in _search(ledger, "") if TRIAL_ID in run.data.tags)


def _search(ledger: Ledger, filter_string: str) -> Iterator[Any]:
    client = client_of(ledger.tracking_uri)
    token = None
    while True:
        with _garbage_left():
            page = client.search_runs(
                [ledger.experiment_id],
                filter_string=filter_string,
                run_view_type=ViewType.ACTIVE_ONLY,
                max_results=1000,
                order_by=["attributes.start_time DESC"],
                page_token=token,
            )
        yield from page
        token = page.token
        if not token:
            return


@contextmanager
def _garbage_left() -> Iterator[None]:
    """Within, no garbage is looked for: among a page's 30,000 new rows that takes most of its time.

    Measured on 2,000 runs in SQLite: .32 ms a run, against .89.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _experiment(client: MlflowClient, name: str) -> str | None:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return None
    if experiment.lifecycle_stage == "deleted":
        raise SweepError(
            f"the experiment {name!r} was deleted in MLflow; restore it there, or use another name"
        )
    return experiment.experiment_id


def _create_experiment(client: MlflowClient, name: str, uri: str) -> str:
    folder = sqlite_folder(uri)
    location = None if folder is None else (folder / "artifacts").as_uri()
    try:
        return client.create_experiment(name, artifact_location=location)
    except MlflowException:
        found = _experiment(client, name)  # another driver was first
        if found is None:
            raise
        return found


def _parent(client: MlflowClient, experiment_id: str) -> str | None:
    """The sweep's parent run: the earliest, should two drivers have made one each."""
    runs = client.search_runs(
        [experiment_id],
        filter_string="tags.`flops_fit.kind` = 'sweep'",
        max_results=1,
        order_by=["attributes.start_time ASC"],
    )
    return runs[0].info.run_id if runs else None


def _create_parent(client: MlflowClient, experiment_id: str, name: str) -> str:
    tags = {"flops_fit.kind": "sweep", SWEEP: name, STATE: "planned"}
    return client.create_run(experiment_id, run_name=f"sweep {name}", tags=tags).info.run_id


def now() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return int(time.time() * 1000)
