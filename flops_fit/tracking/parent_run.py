"""The parent run of a sweep: its plan, its state and its data."""

from __future__ import annotations

import json
from collections.abc import Mapping

from mlflow.entities import Dataset, DatasetInput, InputTag

from flops_fit.store.client import client_of
from flops_fit.tracking.experiments import NAME_LIMIT
from flops_fit.tracking.ledger import CHOSEN, META, NOTE, STATE, Ledger, raises_store_errors

REPORT = "report.html"  # the artifact
_DIGEST_LIMIT = 36  # characters of a dataset's digest in MLflow's schema
_STATUS_OF_STATE = {"complete": "FINISHED", "failed": "FAILED", "planned": "KILLED"}


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
    write_note(ledger, note)


@raises_store_errors
def read_chosen(ledger: Ledger) -> str:
    """The budgets chosen for times or money, as JSON; empty if there are none."""
    tags = client_of(ledger.tracking_uri).get_run(ledger.parent_run_id).data.tags
    return str(tags.get(CHOSEN, ""))


@raises_store_errors
def write_chosen(ledger: Ledger, chosen: str) -> None:
    """Keep the budgets chosen for times or money, as JSON."""
    client_of(ledger.tracking_uri).set_tag(ledger.parent_run_id, CHOSEN, chosen)


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
    """Write the description that the UI shows of the sweep, as Markdown.

    A link to the report comes first.
    """
    page = ledger.page_of(REPORT)
    link = f"[**Report**]({page}): the answer, plots and checks, written when the sweep ends"
    client_of(ledger.tracking_uri).set_tag(ledger.parent_run_id, NOTE, f"{link}\n\n{note}")


@raises_store_errors
def set_parent_state(ledger: Ledger, state: str) -> None:
    """Show on the parent run whether the sweep is `running`, `complete`, `failed` or `planned`."""
    client = client_of(ledger.tracking_uri)
    client.set_tag(ledger.parent_run_id, STATE, state)
    if state == "running":
        client.update_run(ledger.parent_run_id, status="RUNNING")
    else:
        client.set_terminated(ledger.parent_run_id, status=_STATUS_OF_STATE[state])
