"""flops_fit.tracking.queries.ledger."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from flops_fit.store.faults import store_errors
from flops_fit.store.uri import sqlite_folder, without_credentials

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


def raises_store_errors(
    function: Callable[Concatenate[Ledger, _P], _T],
) -> Callable[Concatenate[Ledger, _P], _T]:
    """Faults of the store come out of a function of a ledger as a StoreError."""

    @wraps(function)
    def called(ledger: Ledger, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with store_errors(ledger.tracking_uri):
            return function(ledger, *args, **kwargs)

    return called


def now() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return int(time.time() * 1000)
