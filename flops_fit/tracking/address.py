"""`StoreAddress`: which sweep, in which MLflow store and Optuna storage."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from flops_fit.errors import ArgumentError
from flops_fit.store.uri import check_storage, check_uri, resolve_uri, sqlite_folder, sqlite_url
from flops_fit.tracking import mlflow_project
from flops_fit.tracking.experiments import check_name, find_ledger, open_ledger
from flops_fit.tracking.ledger import Ledger


@dataclass(frozen=True)
class StoreAddress:
    """Where the caller wants a sweep's records kept, as given; None stands for a default.

    Attributes:
        name: Name of the sweep, which is its MLflow experiment.
        tracking_uri: The MLflow store; by default MLflow's own setting, else `mlruns/mlflow.db`.
        storage: URL of the Optuna storage, or the path of a `.db` file; by default `optuna.db`
            beside the MLflow store.
    """

    name: str | None = None
    tracking_uri: str | PathLike[str] | None = None
    storage: str | PathLike[str] | None = None

    @property
    def is_given(self) -> bool:
        """Whether the caller named a sweep or a store."""
        return self.name is not None or self.tracking_uri is not None

    def problems(self) -> list[str]:
        """What is wrong with the name and the stores; empty if nothing is."""
        problems: list[str] = []
        checks: list[tuple[Callable[[object], object], object]] = [
            (check_name, self.name),
            (check_uri, self.tracking_uri),
            (check_storage, self.storage),
        ]
        for check, value in checks:
            try:
                if value is not None:
                    check(value)
            except ArgumentError as error:
                problems += error.problems
        return problems

    def sweep_name(self, default: str) -> str:
        """The name given, else that of the experiment `mlflow run` was given, else `default`."""
        return self.name or mlflow_project.project_experiment(self.tracking_uri) or default

    def open_ledger(self, default_name: str) -> Ledger:
        """Open the sweep's ledger; store, experiment and parent run are created where missing.

        Raises:
            ArgumentError: The name cannot be one.
            SweepError: The store cannot be opened.
        """
        return open_ledger(self.sweep_name(default_name), self.tracking_uri)

    def find_ledger(self, default_name: str) -> Ledger:
        """The ledger of a sweep that exists.

        Raises:
            SweepError: There is no such sweep.
        """
        return find_ledger(self.sweep_name(default_name), self.tracking_uri)

    def storage_url(self, ledger: Ledger) -> str:
        """The Optuna storage: as given, else `optuna.db` beside the MLflow store.

        Beside a server's ledger that is `mlruns/optuna.db` in the working directory.
        """
        if self.storage is not None:
            return check_storage(self.storage)
        return sqlite_url(local_folder(ledger) / "optuna.db")

    @property
    def folder(self) -> Path | None:
        """Where files beside the store lie; None if the address cannot be one."""
        try:
            uri = resolve_uri(self.tracking_uri)
        except ArgumentError:
            return None
        return sqlite_folder(uri) or _folder_here()


def local_folder(ledger: Ledger) -> Path:
    """Where files beside a ledger lie: its folder, or `mlruns` here if it is a server's."""
    return ledger.home or _folder_here()


def _folder_here() -> Path:
    return Path("mlruns").absolute()
