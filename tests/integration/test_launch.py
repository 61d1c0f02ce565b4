"""A user's script under torchrun: one sweep, whoever dies or stops."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from processes import Process, wait_until

from flops_fit import tracking
from flops_fit.errors import SweepError
from flops_fit.store.client import client_of
from flops_fit.tracking.logged_models import kept_models

SCRIPT = Path(__file__).parents[1] / "helpers" / "launched_sweep.py"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
pytestmark = pytest.mark.slow


def torchrun(folder: Path, seconds: float) -> list[object]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launcher, "--nproc-per-node=2", SCRIPT, folder, seconds]


def accelerate_launch(folder: Path, seconds: float) -> list[object]:
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu"]
    options = ["--num_machines=1", "--mixed_precision=no", "--dynamo_backend=no"]
    ranks = ["--num_processes=2", f"--main_process_port={free_port()}"]
    return [*launcher, *options, *ranks, SCRIPT, folder, seconds]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


@pytest.fixture
def unwatched(store, start) -> list[Process]:
    """Two ranks at work on a long trial that no launcher looks after."""
    address = {"WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port())}
    address["FLOPS_FIT_TIMEOUT"] = "15"
    processes = [
        start(sys.executable, SCRIPT, store, 0.2, env={**ENVIRONMENT, **address, "RANK": str(rank)})
        for rank in (0, 1)
    ]
    wait_for_training(store, *processes)
    return processes


def wait_for_training(folder: Path, *processes: Process) -> None:
    """Wait until the second trial is in flight and has reported a point of its curve."""

    def in_flight() -> bool:
        for process in processes:
            assert process.poll() is None, process.output
        return len(states(folder)) >= 2

    wait_until(in_flight, *processes)


def states(folder: Path) -> list[str]:
    try:
        ledger = tracking.find_ledger("launched", f"sqlite:///{folder}/mlflow.db")
    except SweepError:
        return []
    return sorted(run.state for run in tracking.fetch_runs(ledger))


def losses(file: Path) -> dict[str, float]:
    return pd.read_csv(file).set_index("trial_id")["loss"].to_dict()


@pytest.fixture(scope="module")
def alone(empty_store, tmp_path_factory) -> dict[str, float]:
    """The losses that one process finds."""
    folder = Path(shutil.copytree(empty_store, tmp_path_factory.mktemp("alone") / "store"))
    subprocess.run(
        [sys.executable, SCRIPT, folder, "0"], env=ENVIRONMENT, check=True, capture_output=True
    )
    return losses(folder / "0.csv")


def test_two_ranks_make_one_sweep_and_a_stopped_one_goes_on_to_the_same_table(store, alone, start):
    stopped = start(*torchrun(store, 0.2), env=ENVIRONMENT)
    wait_for_training(store, stopped)
    stopped.terminate()
    assert "Stopped: 1 of 9 trials are done" in stopped.finish()
    assert stopped.returncode != 0
    assert states(store) == ["complete", "planned"]
    assert len(list((store / "checkpoints").iterdir())) == 1

    again = start(*accelerate_launch(store, 0.0), env=ENVIRONMENT)
    said = again.finish()
    assert again.returncode == 0, said
    assert said.count("SweepPlan: 9 trials") == 1
    assert said.count("2 processes train each trial together") == 1
    assert said.count("complete, loss") == 8
    assert losses(store / "0.csv") == losses(store / "1.csv") == pytest.approx(alone, rel=1e-6)
    ledger = tracking.find_ledger("launched", f"sqlite:///{store}/mlflow.db")
    runs = client_of(ledger.tracking_uri).search_runs([ledger.experiment_id])
    trials = [run for run in runs if run.data.tags.get(tracking.TRIAL_ID)]
    assert len(trials) == 9
    assert {run.data.params["ranks"] for run in trials} == {"2"}
    assert sorted(model.compute_budget for model in kept_models(ledger)) == [1e5, 2e5, 4e5]
    assert not list(store.glob("weights/*/*.safetensors"))


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP])
def test_a_rank_that_dies_or_falls_silent_fails_the_trial_and_nothing_hangs(store, unwatched, sign):
    main, other = unwatched
    other.send_signal(sign)
    said = main.finish()
    assert main.returncode == 1
    assert "LostRankError: rank 0 of 2 has lost contact with the others" in said
    assert states(store) == ["complete", "failed"]


def test_ctrl_c_on_one_rank_stops_all_at_the_next_step(store, unwatched):
    unwatched[1].send_signal(signal.SIGINT)
    for process in unwatched:
        last = process.finish().rstrip().splitlines()[-1]
        assert "KeyboardInterrupt" in last
        # 1: code run at exit makes Python forget why
        assert process.returncode in (-signal.SIGINT, 1)
    assert states(store) == ["complete", "planned"]
    assert len(list((store / "checkpoints").iterdir())) == 1


def test_where_rank_0_dies_the_others_end_too(store, unwatched):
    main, other = unwatched
    main.kill()
    said = other.finish()
    assert other.returncode == 1
    assert "LostRankError: rank 1 of 2 has lost contact with the others" in said
