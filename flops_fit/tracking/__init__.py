"""MLflow as the ledger: which trials have been trained, and with what results."""

from flops_fit.tracking.artifacts import (
    artifact_address,
    fetch_forecasts,
    log_analysis,
    log_text,
    read_artifact,
)
from flops_fit.tracking.experiments import check_name, find_ledger, list_ledgers, open_ledger
from flops_fit.tracking.ledger import ENDED, STATE, TRIAL_ID, WORKER, Ledger
from flops_fit.tracking.parent_run import (
    log_dataset,
    read_meta,
    set_parent_state,
    write_meta,
    write_note,
)
from flops_fit.tracking.queries import (
    fetch_all_runs,
    fetch_curves,
    fetch_runs,
    has_ended,
    is_open,
    latest_runs,
    metric_names,
    open_runs,
    runs_frame,
    trial_runs,
)

__all__ = [
    "ENDED",
    "STATE",
    "TRIAL_ID",
    "WORKER",
    "Ledger",
    "artifact_address",
    "check_name",
    "fetch_all_runs",
    "fetch_curves",
    "fetch_forecasts",
    "fetch_runs",
    "find_ledger",
    "has_ended",
    "is_open",
    "latest_runs",
    "list_ledgers",
    "log_analysis",
    "log_dataset",
    "log_text",
    "metric_names",
    "open_ledger",
    "open_runs",
    "read_artifact",
    "read_meta",
    "runs_frame",
    "set_parent_state",
    "trial_runs",
    "write_meta",
    "write_note",
]
