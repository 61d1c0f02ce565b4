"""Sweeps that `mlflow run` starts: named after its experiment, nested under the run it opens."""

from __future__ import annotations

import os
from os import PathLike
from typing import Any

from flops_fit.errors import SweepError
from flops_fit.store.client import client_of, exclusive
from flops_fit.store.uri import is_missing_file, resolve_uri
from flops_fit.tracking.ledger import NOTE, PARENT, SWEEP, Ledger

_DEFAULT_EXPERIMENT = "0"


def project_experiment(tracking_uri: str | PathLike[str] | None = None) -> str | None:
    """Name of the experiment that `mlflow run` was given, if this process is one of its runs.

    Returns:
        None outside `mlflow run`, and in MLflow's "Default" experiment, which nobody chose.
    """
    uri = resolve_uri(tracking_uri)
    run = _project_run(uri)
    if run is None or run.info.experiment_id == _DEFAULT_EXPERIMENT:
        return None
    return client_of(uri).get_experiment(run.info.experiment_id).name


def nest_under_project_run(ledger: Ledger) -> None:
    """Make the sweep a child of the run that `mlflow run` opened, if it started this process.

    MLflow nests by a tag alone, also across experiments. If several `mlflow run` share one sweep,
    it is the child of the latest; each of their runs names the sweep in a tag.
    """
    run = _project_run(ledger.tracking_uri)
    if run is None or run.info.run_id == ledger.parent_run_id:
        return
    client = client_of(ledger.tracking_uri)
    client.set_tag(ledger.parent_run_id, PARENT, run.info.run_id)
    client.set_tag(run.info.run_id, SWEEP, ledger.name)
    page = f"#/experiments/{ledger.experiment_id}/runs/{ledger.parent_run_id}"
    note = f"Ran the sweep [{ledger.name}]({page}), which is its child."
    client.set_tag(run.info.run_id, NOTE, note)


def _project_run(uri: str) -> Any:
    """The run of `MLFLOW_RUN_ID`; None where it is not set, or belongs to another store."""
    run_id = os.environ.get("MLFLOW_RUN_ID")
    if not run_id or is_missing_file(uri):
        return None
    try:
        with exclusive(uri):
            return client_of(uri).get_run(run_id)
    except SweepError:
        return None
