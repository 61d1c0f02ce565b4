"""Reading runs from the ledger: which trials are done, running or failed.

A sweep is an MLflow experiment with one parent run; each trial is a child of it. A trial is done
when a child carries its `flops_fit.trial_id`, is FINISHED, has a finite loss, and the tag
`flops_fit.state=complete`, which is written last: FINISHED alone proves nothing.
"""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pandas as pd
from mlflow.entities import ViewType

from flops_fit.records import METRIC_PREFIX, RUN_COLUMNS, Run, Size, to_frame
from flops_fit.store.client import client_of
from flops_fit.tracking.ledger import (
    ATTEMPT,
    COUNTED_TOKENS,
    ENDED,
    REASON,
    ROLE,
    SETTING,
    STATE,
    TRIAL_ID,
    WALL_TIME,
    WORKER,
    Ledger,
    raises_store_errors,
)

_PAGE_SIZE = 1000  # runs in one call


@dataclass(frozen=True)
class OpenRun:
    """A run that its tags call running; its worker may be dead.

    Attributes:
        run_id: The run.
        trial_id: The trial.
        worker: Who trains it.
        attempt: Hex id of the attempt at the trial.
    """

    run_id: str
    trial_id: str
    worker: str
    attempt: str


@raises_store_errors
def open_runs(ledger: Ledger, setting: str) -> list[OpenRun]:
    """The runs of a setting that are tagged as running."""
    return [
        OpenRun(
            run.info.run_id,
            run.data.tags[TRIAL_ID],
            run.data.tags.get(WORKER, ""),
            run.data.tags.get(ATTEMPT, ""),
        )
        for run in _search(ledger, f"tags.`{STATE}` = 'running'")
        if run.data.tags.get(SETTING) == setting and TRIAL_ID in run.data.tags
    ]


@raises_store_errors
def is_open(ledger: Ledger, run_id: str) -> bool:
    """Whether a run is tagged as running at this moment."""
    return client_of(ledger.tracking_uri).get_run(run_id).data.tags.get(STATE) == "running"


def fetch_runs(ledger: Ledger, setting: str | None = None) -> list[Run]:
    """One run per trial: the complete one where there is one, else the latest.

    Args:
        ledger: The sweep.
        setting: Only runs of this setting (model, data, loss, recipe); all if None.
    """
    return latest_runs(fetch_all_runs(ledger, setting))


def latest_runs(attempts: Iterable[Run]) -> list[Run]:
    """One run per trial: the complete one where there is one, else the latest.

    Args:
        attempts: All runs, latest first.
    """
    best: dict[str, Run] = {}
    for run in attempts:
        known = best.get(run.trial_id)
        if known is None or (run.state == "complete" and known.state != "complete"):
            best[run.trial_id] = run
    return sorted(best.values(), key=lambda run: (run.compute_budget, run.num_params))


@raises_store_errors
def fetch_all_runs(ledger: Ledger, setting: str | None = None) -> list[Run]:
    """All runs of all trials, latest first: a trial may have failed before it finished.

    Args:
        ledger: The sweep.
        setting: Only runs of this setting; all if None.
    """
    return [
        _to_run(run)
        for run in trial_runs(ledger)
        if setting is None or run.data.tags.get(SETTING) == setting
    ]


@raises_store_errors
def has_ended(ledger: Ledger, trial_id: str, setting: str, but_for: str = "") -> bool:
    """Whether a trial has a loss, or has diverged.

    Args:
        ledger: The sweep.
        trial_id: The trial.
        setting: Only runs of this setting count.
        but_for: Id of a run that does not count.
    """
    return any(
        _to_run(run).state in ENDED
        for run in runs_of(ledger, trial_id)
        if run.data.tags.get(SETTING) == setting and run.info.run_id != but_for
    )


def runs_of(ledger: Ledger, trial_id: str) -> Iterator[Any]:
    """All runs of a trial, latest first."""
    # The id is parsed and formatted again, so that nothing else can enter the query.
    return _search(ledger, f"tags.`{TRIAL_ID}` = '{int(trial_id, 16):016x}'")


@raises_store_errors
def fetch_curves(ledger: Ledger, runs: Iterable[Run], most_points: int = 200) -> pd.DataFrame:
    """Training curves of runs.

    Args:
        ledger: The sweep.
        runs: The runs.
        most_points: A longer curve is thinned to this many points; its last point is kept.

    Returns:
        Columns `trial_id`, `num_tokens` seen so far, and `loss` of the training batch.
    """
    client = client_of(ledger.tracking_uri)
    rows: list[tuple[str, float, float]] = []
    for run in runs:
        points = client.get_metric_history(run.run_id, "train_loss")
        points.sort(key=lambda point: point.step)
        stride = math.ceil(len(points) / most_points) or 1
        thinned = points[::-1][::stride][::-1]  # from the end, so that the last point stays
        rows += [(run.trial_id, float(point.step), point.value) for point in thinned]
    return pd.DataFrame(rows, columns=["trial_id", "num_tokens", "loss"])


def runs_frame(runs: list[Run]) -> pd.DataFrame:
    """Runs as the table that the laws are fitted to: the fields of `Run`, and its metrics."""
    frame = to_frame(runs, RUN_COLUMNS)
    for name in metric_names(runs):
        frame[f"{METRIC_PREFIX}{name}"] = [run.metrics.get(name, math.nan) for run in runs]
    return frame


def metric_names(runs: Iterable[Run]) -> list[str]:
    """The metrics that some of the runs have, in the order of their names."""
    return sorted({name for run in runs for name in run.metrics})


def _is_complete(run: Any) -> bool:
    """Whether an MLflow run has finished, by all three marks; see the module's docstring."""
    return (
        run.info.status == "FINISHED"
        and run.data.tags.get(STATE) == "complete"
        and math.isfinite(run.data.metrics.get("loss", math.nan))
    )


def _to_run(run: Any) -> Run:
    """An MLflow run as a record; params that an older version did not write are NaN or default."""
    params, metrics, tags = run.data.params, run.data.metrics, run.data.tags

    def constant(name: str) -> float:
        """A final value; older versions wrote it as a metric."""
        return float(params.get(name, metrics.get(name, math.nan)))

    planned = float(params.get("num_tokens", math.nan))
    state = tags.get(STATE, "planned")
    if state == "complete" and not _is_complete(run):
        state = "planned"  # killed between its last writes
    return Run(
        trial_id=tags[TRIAL_ID],
        run_id=run.info.run_id,
        compute_budget=float(params.get("compute_budget", math.nan)),
        size=_size(params.get("size", "null")),
        num_params=float(params.get("num_params", math.nan)),
        # Counted while training where examples differ in length; else as planned.
        num_tokens=float(params.get(COUNTED_TOKENS, metrics.get("num_tokens", planned))),
        flops=constant("flops"),
        loss=metrics.get("loss", math.nan) if state == "complete" else math.nan,
        wall_time_s=float(tags.get(WALL_TIME, metrics.get(WALL_TIME, math.nan))),
        seed=int(params.get("seed", 0)),
        state=state,
        excluded="" if state == "complete" else _reason(state, tags),
        steps=float(params.get("steps", math.nan)),
        learning_rate=float(params.get("learning_rate", math.nan)),
        lr_multiplier=float(params.get("lr_multiplier", 1.0)),
        epochs=constant("epochs"),
        code=params.get("code", ""),
        role=tags.get(ROLE, "sweep"),
        batch_size=float(params.get("batch_size", math.nan)),
        metrics={
            name.removeprefix(METRIC_PREFIX): value
            for name, value in metrics.items()
            if name.startswith(METRIC_PREFIX)
        },
    )


def _reason(state: str, tags: Mapping[str, str]) -> str:
    """Why a run that is not complete takes no part in the fits."""
    if state not in ("failed", "diverged"):
        return "not finished"
    return f"{state}: {tags[REASON]}" if tags.get(REASON) else state


def _size(text: str) -> Size | None:
    """The value of the size parameter; the text itself where it is not JSON."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def trial_runs(ledger: Ledger) -> Iterator[Any]:
    """All trial runs of a sweep, latest first."""
    return (run for run in _search(ledger, "") if TRIAL_ID in run.data.tags)


def _search(ledger: Ledger, filter_string: str) -> Iterator[Any]:
    """All runs that match, latest first, page by page."""
    client = client_of(ledger.tracking_uri)
    token = None
    while True:
        with _gc_paused():
            page = client.search_runs(
                [ledger.experiment_id],
                filter_string=filter_string,
                run_view_type=ViewType.ACTIVE_ONLY,
                max_results=_PAGE_SIZE,
                order_by=["attributes.start_time DESC"],
                page_token=token,
            )
        yield from page
        token = page.token
        if not token:
            return


@contextmanager
def _gc_paused() -> Iterator[None]:
    """Pause garbage collection, which takes most of the time among a page's 30,000 new objects.

    Measured on 2,000 runs in SQLite: 0.32 ms a run with it paused, 0.89 ms without.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
