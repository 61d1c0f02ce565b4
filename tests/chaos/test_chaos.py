"""Sweeps whose drivers, workers and server are killed at random times: nothing lost, none twice.

Each trains for real. Its result is compared with a run without a break: the same trials, each
complete once, the same losses, the same curves through them. The short form runs with the
integration tests; `make chaos` runs all of it.
"""

import contextlib
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from postgres_drivers import driver_command, finished, postgres_server, trained
from processes import Process, wait_until
from served import served
from sweeps import assert_same, real_sweep

import flops_fit

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
DRIVER = Path(__file__).with_name("driver.py")


@pytest.fixture(scope="module")
def whole(empty_store, tmp_path_factory):
    """The sweep without a break."""
    folder = tmp_path_factory.mktemp("whole") / "store"
    return real_sweep(Path(shutil.copytree(empty_store, folder)))


class Stage:
    """A store, and the drivers on it."""

    def __init__(
        self, store: Path, start: Callable[..., Process], tracking_uri: str | None = None
    ) -> None:
        self.store = store
        self.tracking_uri = tracking_uri or f"sqlite:///{store}/mlflow.db"
        self._start = start
        self._left: set[Path] = set()  # journal files that were there before the last driver

    def drive(self, workers: int, budgets: int = 3, env: dict[str, str] | None = None) -> Process:
        """Start a driver; it is ended with the test."""
        self._left = set(self.store.rglob("spool/*/*"))
        return self._start(
            sys.executable, DRIVER, self.store, workers, budgets,
            self.tracking_uri, f"sqlite:///{self.store}/optuna.db",
            stdout=subprocess.DEVNULL, cwd=self.store, env={**os.environ, **(env or {})},
        )  # fmt: skip

    def strike(self, rng: random.Random, workers: int, drivers: int, budgets: int = 3) -> None:
        """Start drivers; once trials are under way each gets a signal at a random time."""
        processes = [self.drive(workers, budgets) for _ in range(drivers)]
        self.wait_until_busy(processes)
        for process in processes:
            time.sleep(rng.uniform(0, 2))
            process.send_signal(rng.choice(SIGNALS))
        for process in processes:
            process.finish()

    def finish(self) -> flops_fit.Result:
        """The call once more, to its end; in this process, which has imported everything."""
        with contextlib.chdir(self.store):  # where the drivers have their journal
            return real_sweep(
                self.store, tracking_uri=self.tracking_uri,
                storage=f"sqlite:///{self.store}/optuna.db",
            )  # fmt: skip

    def wait_until_busy(self, processes: list[Process]) -> None:
        """Wait until one of the drivers trains, or all have left."""

        def is_busy() -> bool:
            if all(process.poll() is not None for process in processes):
                return True
            return bool(set(self.store.rglob("spool/*/*.running")) - self._left)

        wait_until(is_busy, *processes)

    def assert_tidy(self) -> None:
        """Nothing is left of trials in flight, and nothing but their owner may read the rest."""
        assert not any(self.store.glob("**/checkpoints/*"))
        assert not [path for path in self.store.glob("**/spool/*/*") if path.is_file()]
        assert {path.stat().st_mode & 0o777 for path in self.store.glob("**/spool/*")} == {0o700}


@pytest.mark.slow
def test_a_sweep_survives_a_few_strikes(store, whole, start):
    stage, rng = Stage(store, start), random.Random(5)
    stage.strike(rng, workers=1, drivers=2)
    assert_same(stage.finish(), whole, store)
    stage.assert_tidy()


@pytest.mark.chaos
@pytest.mark.timeout(600)
@pytest.mark.parametrize(("seed", "workers"), [(0, 3), (2, 3), (0, 1), (2, 1), (3, 1)])
def test_a_sweep_survives_many_strikes(store, whole, start, seed, workers):
    """Four strikes of one or two drivers each; budgets are added on the way."""
    stage, rng = Stage(store, start), random.Random(seed)
    for strike in range(4):
        stage.strike(rng, workers, drivers=rng.choice((1, 1, 2)), budgets=2 + strike // 2)
    assert_same(stage.finish(), whole, store)
    stage.assert_tidy()


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_a_sweep_survives_strikes_at_its_server(store, whole, start):
    """The server is down while drivers are struck, and back with the next."""
    with served(store) as server:
        stage, rng = Stage(store, start, server.uri), random.Random(0)
        for _ in range(3):
            process = stage.drive(workers=rng.choice((1, 3)))
            stage.wait_until_busy([process])
            time.sleep(rng.uniform(0, 2))
            server.kill()
            time.sleep(rng.uniform(0, 3))
            process.send_signal(rng.choice(SIGNALS))
            process.finish()
            server.start()
        result = stage.finish()
        assert_same(result, whole, store)
    stage.assert_tidy()


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_a_sweep_survives_a_clock_that_is_moved(store, whole, start):
    """One driver is a day ahead, another a day behind; one is killed, and a third comes in time.

    (faketime moves the monotonic clock too, so that it cannot be moved while a process runs.)
    """
    library = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
    if library is None:
        pytest.skip("Debian's faketime is not installed")
    stage = Stage(store, start)
    drivers = [
        stage.drive(workers=1, env={"LD_PRELOAD": str(library), "FAKETIME": moved})
        for moved in ("+1d", "-1d")
    ]
    stage.wait_until_busy(drivers)
    time.sleep(2)
    drivers[0].kill()
    drivers[0].finish()
    output = drivers[1].finish()
    assert drivers[1].returncode == 0, output[-3000:]
    assert_same(stage.finish(), whole, store)
    stage.assert_tidy()


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_drivers_on_one_server_of_postgresql_survive_strikes(tmp_path, start):
    """Four drivers, 200 trials of a planted law, and every one of the four killed in turn."""
    with postgres_server() as postgres:
        command = driver_command(postgres, seconds=0.1, sizes=50)
        rng = random.Random(0)
        drivers = [start(*command, cwd=tmp_path) for _ in range(4)]
        for number in range(4):
            wanted = len(trained(tmp_path)) + 20
            wait_until(lambda wanted=wanted: len(trained(tmp_path)) >= wanted, *drivers)
            os.kill(drivers[number].pid, rng.choice(SIGNALS))
            drivers[number].finish()
            drivers.append(start(*command, cwd=tmp_path))
        outputs = [driver.finish() for driver in drivers]
        assert [driver.returncode for driver in drivers[4:]] == [0] * 4, outputs[4:]
        done = finished(postgres)
    assert len(done) == len(set(done)) == 200


@pytest.mark.chaos
def test_drivers_outlast_a_postgresql_that_is_stopped_and_started(tmp_path, start):
    """It holds both the ledger and the study; trials end and are claimed while it is away."""
    with postgres_server() as postgres:
        command = driver_command(postgres, seconds=0.5)
        drivers = [start(*command, cwd=tmp_path) for _ in range(2)]
        wait_until(lambda: len(trained(tmp_path)) >= 6, *drivers)
        options = (Path(postgres.pgdata) / "postmaster.opts").read_text()
        control(postgres, "stop", "-m", "fast")
        time.sleep(5)
        control(postgres, "start", "-w", "-o", shlex.join(shlex.split(options)[1:]))
        outputs = "".join(driver.finish() for driver in drivers)
        assert [driver.returncode for driver in drivers] == [0, 0], outputs
        done = finished(postgres)
        assert "the Optuna storage is back" in outputs
    assert len(done) == len(set(done)) == 24
    assert len(trained(tmp_path)) == 24


def control(postgres, *words):
    """Have `pg_ctl` stop or start the server's processes, with nothing of its own left open."""
    subprocess.run(
        [postgres.bin_path / "pg_ctl", "-D", postgres.pgdata, "-l", postgres.log, *words],
        user=postgres.system_user, check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
