"""flops_fit.tracking.queries.parent_run."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mlflow.entities import Dataset, DatasetInput, InputTag, Metric

from flops_fit.store.client import client_of
from flops_fit.tracking.experiments import _NAME_LIMIT
from flops_fit.tracking.ledger import META, NOTE, STATE, Ledger, now, raises_store_errors

_DIGEST_LIMIT = 36


def artifact_address(ledger: Ledger, name: str) -> str:
    """Where an artifact of the parent run lies: a path where it is a file here, else its URI."""
    run = client_of(ledger.tracking_uri).get_run(ledger.parent_run_id)
    uri = f"{run.info.artifact_uri}/{name}"
    return url2pathname(urlsplit(uri).path) if uri.startswith("file:") else uri


@raises_store_errors
def read_meta(ledger: Ledger) -> dict[str, str]:
    """What the latest plan wrote about itself on the parent run."""
    tags = client_of(ledger.tracking_uri).get_run(ledger.parent_run_id).data.tags
    meta = json.loads(tags.get(META, "{}"))
    return {str(key): str(value) for key, value in meta.items()}


@raises_store_errors
def write_meta(ledger: Ledger, meta: Mapping[str, str], note: str) -> None:
    """Write what a plan says of itself, and the description that the UI shows."""
    client = client_of(ledger.tracking_uri)
    client.set_tag(ledger.parent_run_id, META, json.dumps(dict(meta)))
    client.set_tag(ledger.parent_run_id, NOTE, note)


@raises_store_errors
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


@raises_store_errors
def write_note(ledger: Ledger, note: str) -> None:
    """Write the description that the UI shows of the sweep, as Markdown."""
    client_of(ledger.tracking_uri).set_tag(ledger.parent_run_id, NOTE, note)


@raises_store_errors
def set_parent_state(ledger: Ledger, state: str) -> None:
    """Show on the parent run whether the sweep is at work."""
    client = client_of(ledger.tracking_uri)
    client.set_tag(ledger.parent_run_id, STATE, state)
    if state == "running":
        client.update_run(ledger.parent_run_id, status="RUNNING")
    else:
        client.set_terminated(ledger.parent_run_id, status=_PARENT_STATUS[state])


_PARENT_STATUS = {"complete": "FINISHED", "failed": "FAILED", "planned": "KILLED"}


@raises_store_errors
def log_analysis(ledger: Ledger, folder: Path, metrics: Mapping[str, float]) -> None:
    """Log a folder of tables, plots and laws, and headline numbers, on the parent run."""
    client = client_of(ledger.tracking_uri)
    client.log_artifacts(ledger.parent_run_id, str(folder))
    at = now()
    values = [Metric(k, v, at, 0) for k, v in metrics.items() if math.isfinite(v)]
    client.log_batch(ledger.parent_run_id, metrics=values)
