"""Logged models: the trained models of a sweep that are kept in MLflow, each under its run.

MLflow lists them on the experiment's page "Models" and on the page of the run. The files of a store
that has moved lie beside it, as its other artifacts do (`artifacts`).
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from mlflow.artifacts import download_artifacts
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Metric
from mlflow.models import Model

from flops_fit.records import Run
from flops_fit.store.client import client_of
from flops_fit.store.uri import file_of
from flops_fit.tracking.artifacts import beside_moved_store
from flops_fit.tracking.ledger import SETTING, SWEEP, TRIAL_ID, Ledger, raises_store_errors

FLAVOUR = "flops_fit"  # in the file MLmodel; a stored name
BEST = "flops_fit.best"  # tag: whether it is the best model of its budget
_MODELS = "models"  # folder among an experiment's artifacts, as MLflow names it
_T = TypeVar("_T")


@dataclass(frozen=True)
class KeptModel:
    """A model that is logged whole.

    Attributes:
        model_id: Its id in MLflow.
        run_id: The run that trained it.
        setting: Hash of what all trials of its plan share.
        compute_budget: The budget of its row.
        loss: Its held-out loss.
        is_best: Whether it was the best of its budget when last looked at.
        location: Where its files were put.
    """

    model_id: str
    run_id: str
    setting: str
    compute_budget: float
    loss: float
    is_best: bool
    location: str


@raises_store_errors
def kept_models(ledger: Ledger) -> list[KeptModel]:
    """The models of a sweep that are logged whole, the latest first."""
    return [
        KeptModel(
            model.model_id,
            model.source_run_id or "",
            model.tags.get(SETTING, ""),
            float(model.params.get("compute_budget", math.nan)),
            float(model.params.get("loss", math.nan)),
            model.tags.get(BEST) == "true",
            model.artifact_location,
        )
        for model in _models(ledger)
        if model.status == LoggedModelStatus.READY
    ]


@raises_store_errors
def log_model(ledger: Ledger, run: Run, setting: str, folder: Path, fields: Mapping[str, Any],
              name: str, *, is_best: bool) -> None:  # fmt: skip
    """Log a model under the run that trained it.

    What an attempt before has left unfinished is removed.

    Args:
        ledger: The sweep.
        run: The run.
        setting: Hash of what all trials of its plan share.
        folder: Its files; the description `MLmodel` is added.
        fields: What `MLmodel` holds as the flavour `flops_fit`.
        name: Name of the model in MLflow.
        is_best: Whether it is the best of its budget.
    """
    client = client_of(ledger.tracking_uri)
    for model in _models(ledger):
        if model.source_run_id == run.run_id and model.status == LoggedModelStatus.PENDING:
            client.delete_logged_model(model.model_id)
    model = client.create_logged_model(
        ledger.experiment_id,
        name,
        run.run_id,
        tags={
            SWEEP: ledger.name, TRIAL_ID: run.trial_id, SETTING: setting, BEST: _said(is_best)
        },
        params={
            "compute_budget": repr(run.compute_budget),
            "size": str(run.size),
            "num_params": f"{run.num_params:.0f}",
            "num_tokens": f"{run.num_tokens:.0f}",
            "loss": repr(run.loss),
            "learning_rate": repr(run.learning_rate),
            "batch_size": f"{run.batch_size:.0f}",
        },
    )  # fmt: skip
    described = Model(
        run_id=run.run_id, flavors={FLAVOUR: dict(fields)}, model_id=model.model_id,
        model_uuid=model.model_id, model_size_bytes=sum(f.stat().st_size for f in folder.iterdir()),
    )  # fmt: skip
    described.save(str(folder / "MLmodel"))
    beside = _beside_moved_store(ledger, model.artifact_location, model.model_id)
    if beside is None:
        client.log_model_artifacts(model.model_id, str(folder))
    else:
        shutil.copytree(folder, beside, dirs_exist_ok=True)
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    with suppress(Exception):  # MLflow's pages show the loss beside the model; it is kept anyway
        _show_on_run(ledger, run, model.model_id)


def _show_on_run(ledger: Ledger, run: Run, model_id: str) -> None:
    """Have the page of the run list the model, and the page of the model its loss."""
    client = client_of(ledger.tracking_uri)
    last = client.get_metric_history(run.run_id, "loss")[-1]
    client.log_outputs(run.run_id, [LoggedModelOutput(model_id, last.step)])
    same = Metric("loss", last.value, last.timestamp, last.step, model_id=model_id)
    client.log_batch(run.run_id, metrics=[same])


@raises_store_errors
def mark_best(ledger: Ledger, model_id: str, *, is_best: bool) -> None:
    """Note whether a model is the best of its budget."""
    client_of(ledger.tracking_uri).set_logged_model_tags(model_id, {BEST: _said(is_best)})


@raises_store_errors
def read_model_file(ledger: Ledger, model: KeptModel, name: str, read: Callable[[Path], _T]) -> _T:
    """What is read of a file of a logged model.

    Args:
        ledger: The sweep.
        model: The model.
        name: Of the file.
        read: From its path on this machine to what is returned.
    """
    local = _beside_moved_store(ledger, model.location, model.model_id) or file_of(model.location)
    if local is not None:
        return read(local / name)
    with tempfile.TemporaryDirectory() as folder:
        uri = f"{model.location}/{name}"
        path = download_artifacts(uri, dst_path=folder, tracking_uri=ledger.tracking_uri)
        return read(Path(path))


def _models(ledger: Ledger) -> list[LoggedModel]:
    """All models of a sweep that this package has logged, the latest first."""
    client = client_of(ledger.tracking_uri)
    found: list[LoggedModel] = []
    token = None
    while True:
        page = client.search_logged_models([ledger.experiment_id], page_token=token)
        found += [model for model in page if TRIAL_ID in model.tags]
        token = page.token
        if not token:
            return found


def _beside_moved_store(ledger: Ledger, location: str, model_id: str) -> Path | None:
    return beside_moved_store(ledger, location, Path(_MODELS, model_id, "artifacts"))


def _said(is_best: bool) -> str:
    return "true" if is_best else "false"
