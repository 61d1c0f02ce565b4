"""`Ledger`: a sweep's place in an MLflow store, and the tags that its runs carry."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar
from urllib.parse import quote

from flops_fit.store.faults import store_errors
from flops_fit.store.uri import sqlite_file, sqlite_folder, sqlite_url, without_credentials

# Tags of a trial's run. They are a stored format: never rename them.
TRIAL_ID = "flops_fit.trial_id"
STATE = "flops_fit.state"  # planned, running, complete, failed or diverged; written last
SWEEP = "flops_fit.sweep"
SETTING = "flops_fit.setting"
WORKER = "flops_fit.worker"
ATTEMPT = "flops_fit.attempt"
REASON = "flops_fit.reason"
ROLE = "flops_fit.role"  # sweep, pilot or check; older runs have none: sweep
WALL_TIME = "wall_time_s"  # seconds of training
COUNTED_TOKENS = "counted_tokens"  # param: D as trained, where examples differ in length
META = "flops_fit.meta"  # of the parent run: JSON of the latest plan
CHOSEN = "flops_fit.chosen_budgets"  # of the parent run: JSON of what was chosen for a time
PARENT = "mlflow.parentRunId"
NOTE = "mlflow.note.content"
COLOUR = "mlflow.runColor"  # of the run in MLflow's charts

ENDED = ("complete", "diverged")  # states in which a trial is not run again
# MLflow opens pages in its view for GenAI unless the address or its toggle says otherwise.
_VIEW = "workflowType=machine_learning"
TOGGLE = "Model training"  # the toggle, at the top left
_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Ledger:
    """Where a sweep's runs are kept; plain strings, so that it can be sent to workers.

    Attributes:
        name: Name of the sweep and of its MLflow experiment.
        tracking_uri: The MLflow store.
        experiment_id: The sweep's experiment.
        parent_run_id: The run whose children are the trials.
        made_in: The folder in which a SQLite store was made, if it has moved since; else empty.
    """

    name: str
    tracking_uri: str
    experiment_id: str
    parent_run_id: str
    made_in: str = ""

    @property
    def first_uri(self) -> str:
        """The address that the store had when it was made."""
        if not self.made_in:
            return self.tracking_uri
        return sqlite_url(Path(self.made_in) / sqlite_file(self.tracking_uri).name)

    @property
    def home(self) -> Path | None:
        """The folder of a SQLite store; None for a server."""
        return sqlite_folder(self.tracking_uri)

    @property
    def page(self) -> str:
        """The part of the address of this sweep's runs that follows the server's."""
        return f"#/experiments/{self.experiment_id}/runs?{_VIEW}"

    def page_of(self, artifact: str) -> str:
        """The part of the address that shows an artifact of the parent run."""
        run = f"#/experiments/{self.experiment_id}/runs/{self.parent_run_id}"
        return f"{run}/artifacts/{quote(artifact)}?{_VIEW}"

    def where_to_look(self) -> str:
        """The address that shows this sweep's runs, after the command that serves a SQLite file."""
        uri = without_credentials(self.tracking_uri)
        hint = f"(choose {TOGGLE} at the top left)"
        if uri.startswith("http"):
            return f"{uri.rstrip('/')}/{self.page}\n  {hint}"
        served = f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
        return f"{served}\n  then http://127.0.0.1:5000/{self.page} {hint}"


def raises_store_errors(
    function: Callable[Concatenate[Ledger, _P], _T],
) -> Callable[Concatenate[Ledger, _P], _T]:
    """Decorate a function of a ledger: errors of its store are raised as `StoreError`."""

    @wraps(function)
    def called(ledger: Ledger, *args: _P.args, **kwargs: _P.kwargs) -> _T:
        with store_errors(ledger.tracking_uri):
            return function(ledger, *args, **kwargs)

    return called


def now_ms() -> int:
    """Milliseconds since 1970, MLflow's unit of time."""
    return int(time.time() * 1000)
