"""A sweep with a goal takes one course, whichever processes train its trials."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import goal_training
import pandas as pd
import pytest
from processes import ended_processes, wait_until

from flops_fit import tracking
from flops_fit.errors import SweepError
from flops_fit.tracking.queries import trial_runs

pytestmark = pytest.mark.slow
HELPERS = Path(goal_training.__file__).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def command(name: str, folder: Path) -> list[object]:
    """A `flops-fit` command with the sweep's arguments."""
    options = [f"--{key}={value}" for key, value in goal_training.ARGUMENTS.items()]
    recipe = [f"--recipe={key}={value}" for key, value in goal_training.RECIPE.items()]
    store = f"--tracking-uri=sqlite:///{folder}/mlflow.db"
    return [sys.executable, "-m", "flops_fit", name, *options, *recipe, store]


def ledger(folder: Path) -> tracking.Ledger:
    return tracking.find_ledger("goal", f"sqlite:///{folder}/mlflow.db")


def table(folder: Path) -> pd.DataFrame:
    """Every attempt at a trial that the ledger holds."""
    rows = [
        {
            "trial_id": run.data.tags["flops_fit.trial_id"],
            "state": run.data.tags["flops_fit.state"],
            "worker": run.data.tags["flops_fit.worker"],
            "loss": run.data.metrics["loss"],
        }
        for run in trial_runs(ledger(folder))
    ]
    return pd.DataFrame(rows).sort_values("trial_id", ignore_index=True)


def assert_one_course(folder: Path, alone: Path) -> None:
    """The ledger holds each trial of the sweep by one process once, with about its loss."""
    found, expected = table(folder), table(alone)
    assert list(found["trial_id"]) == list(expected["trial_id"])
    assert set(found["state"]) == {"complete"}
    assert list(found["loss"]) == pytest.approx(list(expected["loss"]), rel=1e-3)
    rounds, of_alone = (
        tracking.read_artifact(
            ledger(one), "rounds.json", lambda path: json.loads(path.read_text())
        )
        for one in (folder, alone)
    )
    assert [entry["next"] for entry in rounds] == [entry["next"] for entry in of_alone]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """The folder of the sweep by one process."""
    folder = tmp_path_factory.mktemp("alone")
    with ended_processes() as start:
        process = start(sys.executable, goal_training.__file__, folder, cwd=folder, env=ENVIRONMENT)
        output = process.finish()
    assert process.returncode == 0, output
    assert "as precise as asked for" in output
    return folder


def test_workers_that_join_train_trials_of_the_rounds(store, start, alone):
    def begin(name):
        return start(*command(name, store), cwd=HELPERS, env=ENVIRONMENT)

    def has_begun() -> bool:
        assert driver.poll() is None, driver.output
        try:
            return len(tracking.fetch_runs(ledger(store))) > 0
        except SweepError:
            return False

    driver = begin("run")
    wait_until(has_begun, driver)
    joined = [begin("worker") for _ in range(2)]
    outputs = [process.finish() for process in (driver, *joined)]
    assert driver.returncode == 1  # so small a sweep is too coarse to extrapolate on
    assert "as precise as asked for" in outputs[0]
    assert [process.returncode for process in joined] == [0, 0], outputs
    assert_one_course(store, alone)
    assert table(store)["worker"].nunique() > 1
    assert all("Nothing waits in the sweep" in output for output in outputs[1:])


def test_two_ranks_take_the_course_of_one_process(store, start, alone):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    options = ["--nproc-per-node=2", goal_training.__file__, store]
    process = start(*launcher, *options, cwd=store, env=ENVIRONMENT)
    output = process.finish()
    assert process.returncode == 0, output
    assert_one_course(store, alone)
    first, second = (pd.read_csv(store / f"{rank}.csv") for rank in range(2))
    pd.testing.assert_frame_equal(first, second)


@pytest.mark.filterwarnings("default")
def test_an_executor_trains_as_many_trials_at_once_as_it_has_workers(store):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=store
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        result = goal_training.run(store, executor=client.get_executor(), workers=2)
    found = table(store)
    assert found["trial_id"].is_unique
    assert set(found["state"]) == {"complete"}
    assert len(found) == len(result.runs)
    assert "as precise as asked for" in result.findings.rounds["message"].iloc[-1]
