"""Artifacts of the parent run, which lie beside a SQLite store, also after the store has moved.

MLflow records the absolute path of each run's artifacts. In a store that was copied or renamed that
path leads to the old place, which may not exist, or may still be in use.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from mlflow.entities import Metric

from flops_fit.runtime.atomic_write import atomic_write
from flops_fit.store.client import client_of
from flops_fit.store.uri import file_of
from flops_fit.tracking.ledger import Ledger, now_ms, raises_store_errors
from flops_fit.warn import warn_user

ARTIFACTS = "artifacts"  # folder beside a SQLite store
FORECASTS = "forecasts"  # folder among the artifacts; a stored name
_T = TypeVar("_T")


@raises_store_errors
def artifact_address(ledger: Ledger, name: str) -> str:
    """Where an artifact of the parent run is: a path if it is a local file, else its URI."""
    recorded = _recorded(ledger)
    folder = _beside_moved_store(ledger, recorded) or file_of(recorded)
    return f"{recorded}/{name}" if folder is None else str(folder / name)


@raises_store_errors
def log_analysis(ledger: Ledger, folder: Path, metrics: Mapping[str, float]) -> None:
    """Log a folder of tables, plots and laws as artifacts, and headline numbers as metrics.

    Args:
        ledger: The sweep.
        folder: The files.
        metrics: Numbers by name; those that are not finite are left out.
    """
    client = client_of(ledger.tracking_uri)
    logged_at = now_ms()
    values = [
        Metric(name, value, logged_at, 0) for name, value in metrics.items() if math.isfinite(value)
    ]
    client.log_batch(ledger.parent_run_id, metrics=values)
    recorded = _recorded(ledger)
    moved_to = _beside_moved_store(ledger, recorded)
    if moved_to is None:
        client.log_artifacts(ledger.parent_run_id, str(folder))
        return
    shutil.copytree(folder, moved_to, dirs_exist_ok=True)
    warn_user(
        f"the store of the sweep {ledger.name!r} was made elsewhere: report, tables and laws are "
        f"written to {moved_to}, beside the store as it is now, and not to {file_of(recorded)}, "
        "where MLflow's own pages look for them"
    )


@raises_store_errors
def log_text(ledger: Ledger, name: str, text: str) -> str:
    """Log a text as an artifact of the parent run.

    Args:
        ledger: The sweep.
        name: Of the file, in a folder: `forecasts/<id>.json`.
        text: Its content.

    Returns:
        Where it is: a path if it is a local file, else its URI.
    """
    moved_to = _beside_moved_store(ledger, _recorded(ledger))
    if moved_to is None:
        client_of(ledger.tracking_uri).log_text(ledger.parent_run_id, text, name)
    else:
        (moved_to / name).parent.mkdir(parents=True, exist_ok=True)
        atomic_write(moved_to / name, text)
    return artifact_address(ledger, name)


def fetch_forecasts(ledger: Ledger) -> dict[str, str]:
    """The forecasts among the artifacts of the parent run: their texts by the names of the files.

    Files that are not UTF-8 are texts with replacement characters.
    """
    return read_artifact(ledger, FORECASTS, _texts) or {}


@raises_store_errors
def read_artifact(ledger: Ledger, name: str, read: Callable[[Path], _T]) -> _T | None:
    """What is read of a file or folder at the root of the parent run's artifacts.

    Args:
        ledger: The sweep.
        name: Of the file or folder.
        read: From its path on this machine to what is returned.

    Returns:
        None if there is no such artifact.
    """
    recorded = _recorded(ledger)
    local = _beside_moved_store(ledger, recorded) or file_of(recorded)
    if local is not None:
        return read(local / name) if (local / name).exists() else None
    client = client_of(ledger.tracking_uri)
    if all(item.path != name for item in client.list_artifacts(ledger.parent_run_id)):
        return None
    with tempfile.TemporaryDirectory() as folder:
        return read(Path(client.download_artifacts(ledger.parent_run_id, name, folder)))


def _texts(folder: Path) -> dict[str, str]:
    return {
        file.name: file.read_text(encoding="utf-8", errors="replace")
        for file in sorted(folder.glob("*.json"))
    }


def made_in(artifact_location: str, home: Path) -> Path | None:
    """The folder in which a SQLite store was made, by where an experiment's artifacts were to go.

    Args:
        artifact_location: Of an experiment.
        home: The store's folder now.

    Returns:
        None where it is that folder, or the artifacts were never to lie beside the store.
    """
    recorded = file_of(artifact_location)
    if recorded is None or recorded.name != ARTIFACTS or _is_same(recorded.parent, home):
        return None
    return recorded.parent


def _recorded(ledger: Ledger) -> str:
    """The address of the parent run's artifacts in MLflow."""
    run = client_of(ledger.tracking_uri).get_run(ledger.parent_run_id)
    return str(run.info.artifact_uri)


def _beside_moved_store(ledger: Ledger, recorded: str) -> Path | None:
    """The folder for the parent run's artifacts beside a store that has moved; else None."""
    return beside_moved_store(ledger, recorded, Path(ledger.parent_run_id, ARTIFACTS))


def beside_moved_store(ledger: Ledger, recorded: str, end: Path) -> Path | None:
    """A folder of artifacts beside a store that has moved.

    Args:
        ledger: A sweep in the store.
        recorded: Where MLflow says that the folder is.
        end: The folder, below that of all artifacts of the experiment.

    Returns:
        None if the store has not moved.
    """
    location = recorded.removesuffix(f"/{end.as_posix()}")
    if ledger.home is None or made_in(location, ledger.home) is None:
        return None
    return ledger.home / ARTIFACTS / end


def _is_same(folder: Path, home: Path) -> bool:
    """Whether two paths are one folder, perhaps by a link."""
    try:
        return folder == home or os.path.samefile(folder, home)
    except OSError:
        return False
