"""The parent run of a sweep: its plan, its state, its data and the analysis as artifacts."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric

from flops_fit.store.client import client_of
from flops_fit.tracking.experiments import NAME_LIMIT
from flops_fit.tracking.ledger import META, NOTE, STATE, Ledger, now_ms, raises_store_errors

_DIGEST_LIMIT = 36  # characters of a dataset's digest in MLflow's schema
_STATUS_OF_STATE = {"complete": "FINISHED", "failed": "FAILED", "planned": "KILLED"}


def artifact_address(ledger: Ledger, name: str) -> str:
    """Where an artifact of the parent run is: a path if it is a local file, else its URI."""
    run = client_of(ledger.tracking_uri).get_run(ledger.parent_run_id)
    uri = f"{run.info.artifact_uri}/{name}"
    return url2pathname(urlsplit(uri).path) if uri.startswith("file:") else uri


@raises_store_errors
def read_meta(ledger: Ledger) -> dict[str, str]:
    """What the latest plan wrote about itself on the parent run; empty if there was none."""
    tags = client_of(ledger.tracking_uri).get_run(ledger.parent_run_id).data.tags
    meta = json.loads(tags.get(META, "{}"))
    return {str(key): str(value) for key, value in meta.items()}


@raises_store_errors
def write_meta(ledger: Ledger, meta: Mapping[str, str], note: str) -> None:
    """Write the fields of a plan, and the description that the UI shows.

    Args:
        ledger: The sweep.
        meta: The plan's fields; see `read_meta`.
        note: The description, as Markdown.
    """
    client = client_of(ledger.tracking_uri)
    client.set_tag(ledger.parent_run_id, META, json.dumps(dict(meta)))
    client.set_tag(ledger.parent_run_id, NOTE, note)


@raises_store_errors
def log_dataset(ledger: Ledger, name: str, fingerprint: str, profile: Mapping[str, object]) -> None:
    """Show the training data on the parent run; MLflow keeps one entry per fingerprint.

    Args:
        ledger: The sweep.
        name: Class of the dataset.
        fingerprint: Hash of the data.
        profile: Its size, as MLflow shows it.
    """
    data = Dataset(
        name=name[:NAME_LIMIT],
        digest=fingerprint[:_DIGEST_LIMIT],
        source_type="code",
        source=json.dumps({"name": name}),
        profile=json.dumps(dict(profile)),
    )
    context = InputTag("mlflow.data.context", "training")
    client = client_of(ledger.tracking_uri)
    client.log_inputs(ledger.parent_run_id, [DatasetInput(data, [context])])


@raises_store_errors
def write_note(ledger: Ledger, note: str) -> None:
    """Write the description that the UI shows of the sweep, as Markdown."""
    client_of(ledger.tracking_uri).set_tag(ledger.parent_run_id, NOTE, note)


@raises_store_errors
def set_parent_state(ledger: Ledger, state: str) -> None:
    """Show on the parent run whether the sweep is `running`, `complete`, `failed` or `planned`."""
    client = client_of(ledger.tracking_uri)
    client.set_tag(ledger.parent_run_id, STATE, state)
    if state == "running":
        client.update_run(ledger.parent_run_id, status="RUNNING")
    else:
        client.set_terminated(ledger.parent_run_id, status=_STATUS_OF_STATE[state])


@raises_store_errors
def log_analysis(ledger: Ledger, folder: Path, metrics: Mapping[str, float]) -> None:
    """Log a folder of tables, plots and laws as artifacts, and headline numbers as metrics.

    Args:
        ledger: The sweep.
        folder: The files.
        metrics: Numbers by name; those that are not finite are left out.
    """
    client = client_of(ledger.tracking_uri)
    client.log_artifacts(ledger.parent_run_id, str(folder))
    logged_at = now_ms()
    values = [
        Metric(name, value, logged_at, 0) for name, value in metrics.items() if math.isfinite(value)
    ]
    client.log_batch(ledger.parent_run_id, metrics=values)
