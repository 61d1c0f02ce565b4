"""Sweeps in several processes, and sweeps that are killed."""

import logging
import os
import shutil
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch
from sweeps import SCRIPT, assert_same, real_sweep, wait_for_runs

import flops_fit


@pytest.fixture(scope="module")
def whole(empty_store, tmp_path_factory) -> flops_fit.Result:
    """The real sweep, run in one process without a break."""
    return real_sweep(
        Path(shutil.copytree(empty_store, tmp_path_factory.mktemp("whole") / "store"))
    )


def test_two_processes_share_the_work_and_agree_with_one(store, whole):
    assert_same(real_sweep(store, workers=2), whole, store)


def test_an_executor_gets_the_workers_and_what_ends_is_told(store, whole, caplog):
    caplog.set_level(logging.INFO, "flops_fit")
    with ProcessPoolExecutor(2, mp_context=torch.multiprocessing.get_context("spawn")) as pool:
        result = real_sweep(store, executor=pool, workers=2)
    assert_same(result, whole, store)
    told = caplog.text
    assert "[12/12] " in told
    assert told.count(": complete, loss ") == 12


@pytest.mark.parametrize(
    ("sign", "workers", "codes"),
    [
        (signal.SIGKILL, 2, [-signal.SIGKILL]),
        (signal.SIGINT, 1, [-signal.SIGINT, 1]),  # 1: code run at exit makes Python forget why
        (signal.SIGTERM, 2, [143]),
    ],
)
def test_a_killed_sweep_goes_on_to_the_same_table(store, whole, start, sign, workers, codes):
    script = SCRIPT.format(
        tests=str(Path(__file__).parents[1] / "helpers"), folder=str(store), workers=workers
    )
    (store / "script.py").write_text(script)
    process = start(sys.executable, store / "script.py")
    wait_for_runs(store, 3, process)
    os.kill(process.pid, sign)
    process.finish()
    assert process.returncode in codes
    assert_same(real_sweep(store), whole, store)
    assert not any((store / "checkpoints").glob("*"))
