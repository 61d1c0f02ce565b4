"""A sweep is an MLflow experiment with one parent run: finding, creating and listing them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from os import PathLike
from typing import Any

from mlflow.entities import Experiment, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from flops_fit.errors import ArgumentError, SweepError
from flops_fit.store.client import client_of, exclusive
from flops_fit.store.uri import (
    default_uri,
    is_missing_file,
    resolve_uri,
    sqlite_folder,
    without_credentials,
)
from flops_fit.tracking.artifacts import ARTIFACTS, made_in
from flops_fit.tracking.ledger import STATE, SWEEP, Ledger
from flops_fit.warn import warn_user

NAME_LIMIT = 200  # characters
_MOST_NAMES_SHOWN = 10
_MOST_EXPERIMENTS = 500  # searched in one query


def open_ledger(name: str, tracking_uri: str | PathLike[str] | None = None) -> Ledger:
    """Open a sweep's ledger; store, experiment and parent run are created where missing.

    Args:
        name: Name of the sweep.
        tracking_uri: MLflow store; None for the default.

    Raises:
        ArgumentError: The name cannot be one.
        SweepError: The store cannot be opened.
    """
    check_name(name)
    uri = resolve_uri(tracking_uri)
    with exclusive(uri):
        client = client_of(uri)
        experiment = _experiment(client, name) or _create_experiment(client, name, uri)
        found = _parent(client, experiment.experiment_id)
        parent = found or _create_parent(client, experiment.experiment_id, name)
    return _ledger(name, uri, experiment, parent)


def find_ledger(name: str | None = None, tracking_uri: str | PathLike[str] | None = None) -> Ledger:
    """The ledger of a sweep that exists; nothing is created.

    Args:
        name: Name of the sweep; None for the only one in the store.
        tracking_uri: MLflow store; None for the default.

    Raises:
        SweepError: There is no sweep of that name, or no name is given and there are none or
            several; lists the sweeps in the store.
    """
    if name is None:
        return _only_ledger(tracking_uri)
    uri = _existing(tracking_uri)
    with exclusive(uri):
        client = client_of(uri)
        experiment = _experiment(client, name)
        parent = _parent(client, experiment.experiment_id) if experiment else None
    if experiment is None or parent is None:
        names = sorted(ledger.name for ledger in _ledgers(client, uri))
        raise SweepError(
            f"no sweep named {name!r} in {without_credentials(uri)}; it holds: {_listed(names)}"
        )
    return _ledger(name, uri, experiment, parent)


def _only_ledger(tracking_uri: str | PathLike[str] | None) -> Ledger:
    uri = _existing(tracking_uri)
    ledgers = list_ledgers(uri)
    # `mlflow run` sets a store of its own; a sweep of other calls in this folder is meant as well.
    if not ledgers and tracking_uri is None and "MLFLOW_RUN_ID" in os.environ:
        uri = default_uri()
        ledgers = [] if is_missing_file(uri) else list_ledgers(uri)
    if len(ledgers) == 1:
        return ledgers[0]
    where = without_credentials(uri)
    names = sorted(ledger.name for ledger in ledgers)
    raise SweepError(
        f"expected the name of a sweep: {where} holds {_listed(names)}"
        if names
        else f"{where} holds no sweep yet; start one with find_optimal or `flops-fit run`"
    )


def list_ledgers(tracking_uri: str | PathLike[str] | None = None) -> list[Ledger]:
    """The ledgers of all sweeps in a store, the latest first.

    Raises:
        SweepError: The store does not exist, or cannot be used.
    """
    uri = _existing(tracking_uri)
    with exclusive(uri):
        return list(_ledgers(client_of(uri), uri))


def _ledgers(client: MlflowClient, uri: str) -> Iterator[Ledger]:
    """All sweeps; experiments of other programs, which have no parent run of ours, are skipped."""
    for experiment in client.search_experiments():
        parent = _parent(client, experiment.experiment_id)
        if parent is not None:
            yield _ledger(experiment.name, uri, experiment, parent)


def _ledger(name: str, uri: str, experiment: Experiment, parent: str) -> Ledger:
    home = sqlite_folder(uri)
    moved_from = home and made_in(experiment.artifact_location, home)
    return Ledger(name, uri, experiment.experiment_id, parent, str(moved_from or ""))


def _listed(names: list[str]) -> str:
    if not names:
        return "none"
    num_hidden = len(names) - _MOST_NAMES_SHOWN
    more = f" and {num_hidden} more" if num_hidden > 0 else ""
    return ", ".join(names[:_MOST_NAMES_SHOWN]) + more


def _existing(tracking_uri: str | PathLike[str] | None) -> str:
    uri = resolve_uri(tracking_uri)
    if is_missing_file(uri):
        raise SweepError(
            f"no store at {without_credentials(uri)}; run a sweep first, or pass the address of "
            "its store as tracking_uri= or in MLFLOW_TRACKING_URI"
        )
    return uri


def check_name(name: object) -> None:
    """Refuse a name that MLflow would change or reject.

    Raises:
        ArgumentError: The name is empty, too long, or holds control characters.
    """
    if not isinstance(name, str) or not name.strip():
        raise ArgumentError(f"name: expected a sweep name, got {name!r}")
    if len(name) > NAME_LIMIT or not name.isprintable():
        raise ArgumentError(
            f"name: expected up to {NAME_LIMIT} printable characters, got {len(name)}: "
            f"{name[:40]!r}"
        )


def _experiment(client: MlflowClient, name: str) -> Experiment | None:
    """The experiment of a sweep, by its name or else by its parent run; None if there is none."""
    experiment = client.get_experiment_by_name(name)
    begun_as = None if experiment is None else _sweep_of(client, experiment)
    if begun_as != name:
        experiment = _of_former_name(experiment, begun_as, _renamed(client, name), name)
    if experiment is None:
        return None
    if experiment.lifecycle_stage == "deleted":
        raise SweepError(
            f"the experiment {experiment.name!r} of the sweep {name!r} was deleted in MLflow; "
            "restore it there, or use another name"
        )
    if experiment.name != name:
        warn_user(
            f"the experiment of the sweep {name!r} is called {experiment.name!r} in MLflow now: "
            "its runs are used; pass another name= for a sweep of its own"
        )
    return experiment


def _of_former_name(
    named: Experiment | None, begun_as: str | None, renamed: Experiment | None, name: str
) -> Experiment | None:
    """Which experiment is a sweep, if none of its name says so.

    Args:
        named: The experiment that has this name now.
        begun_as: The name with which the sweep in it was begun, if it holds one.
        renamed: The experiment of a sweep that was begun with this name.
        name: The name.

    Raises:
        SweepError: Both hold sweeps.
    """
    if named is None or renamed is None or named.experiment_id == renamed.experiment_id:
        return named or renamed
    if begun_as is not None:
        raise SweepError(
            f"two experiments may be the sweep {name!r}: the one called so now, which was begun as "
            f"{begun_as!r}, and {renamed.name!r}, which was begun as {name!r}; pass "
            f"name={begun_as!r} or name={renamed.name!r} for the one that is meant"
        )
    warn_user(
        f"the experiment {name!r} is used, which holds no sweep yet; the sweep that was begun with "
        f"this name is called {renamed.name!r} in MLflow now: pass name={renamed.name!r} to go on "
        "with it"
    )
    return named


def _sweep_of(client: MlflowClient, experiment: Experiment) -> str | None:
    """The name that an experiment's sweep was begun with; None if it holds none."""
    parent = _parent(client, experiment.experiment_id)
    return None if parent is None else client.get_run(parent).data.tags.get(SWEEP)


def _renamed(client: MlflowClient, name: str) -> Experiment | None:
    """An experiment whose parent run says that it is this sweep; the earliest, of several."""
    found = _all_pages(client.search_experiments, view_type=ViewType.ALL)
    experiments = {experiment.experiment_id: experiment for experiment in found}
    ids = list(experiments)
    for start in range(0, len(ids), _MOST_EXPERIMENTS):
        parents = _all_pages(
            client.search_runs,
            experiment_ids=ids[start : start + _MOST_EXPERIMENTS],
            filter_string="tags.`flops_fit.kind` = 'sweep'",
            run_view_type=ViewType.ALL,
            order_by=["attributes.start_time ASC"],
        )
        # Names are compared here: a filter cannot express every name.
        for run in parents:
            if run.data.tags.get(SWEEP) == name:
                return experiments[run.info.experiment_id]
    return None


def _all_pages(search: Callable[..., Any], **query: Any) -> Iterator[Any]:
    """All results of a search of MLflow's client."""
    token = None
    while True:
        page = search(**query, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _create_experiment(client: MlflowClient, name: str, uri: str) -> Experiment:
    folder = sqlite_folder(uri)
    location = None if folder is None else (folder / ARTIFACTS).as_uri()
    try:
        return client.get_experiment(client.create_experiment(name, artifact_location=location))
    except MlflowException:
        created = _experiment(client, name)  # perhaps another driver was first
        if created is None:
            raise
        return created


def _parent(client: MlflowClient, experiment_id: str) -> str | None:
    """The sweep's parent run: the earliest, in case two drivers have created one each."""
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
