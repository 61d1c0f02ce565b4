"""flops_fit.tracking.queries.experiments."""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from flops_fit.errors import ArgumentError, SweepError
from flops_fit.store.client import client_of, exclusive
from flops_fit.store.uri import resolve_uri, sqlite_folder, without_credentials
from flops_fit.tracking.ledger import STATE, SWEEP, Ledger

_NAME_LIMIT = 200


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
