"""Workers that share a device, as a sweep has them; see also test_sharing."""

import os
import pickle
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sweeps import SMALL_BUDGETS, SmallSweep, data

from flops_fit import Recipe, tracking
from flops_fit.errors import StoreError, SweepError
from flops_fit.sweep.devices.claims import claims_file, holders
from flops_fit.sweep.devices.device import Device, Need, Packing
from flops_fit.sweep.execution import executors, status, trial_queue, worker
from flops_fit.sweep.execution.driver import join_sweep, run_sweep
from flops_fit.tracking.ledger import REASON, STATE

GB = 1e9


def poll_until(condition):
    """Wait for a condition; gives up after two minutes."""
    for _ in range(12_000):
        if condition():
            return
        time.sleep(0.01)
    raise TimeoutError


TINY = Recipe(batch_size=8, max_epochs=1e9, pilot=False)


@pytest.fixture
def four(store) -> SmallSweep:
    """A sweep of four trials."""
    return SmallSweep(store, budgets=SMALL_BUDGETS[:1])


@pytest.fixture
def limits(monkeypatch):
    """Limits that the worker sets itself on a fake device of 10 GB."""
    found = []
    monkeypatch.setattr(worker, "device_here", lambda: Device("fake", 10 * GB, found.append))
    return found


def packed(sweep, need, per_device=2):
    return replace(sweep.open(), packing=Packing(lambda trial: need, per_device))


def test_each_trial_holds_its_share_while_it_trains(four, limits, train_with):
    job = packed(four, Need(GB))
    seen = []
    train_with(
        lambda trial, keeper: seen.append(len(holders(claims_file(job.claims_folder, "fake"))))
    )
    run_sweep(job, source=four.planned.source)
    assert seen == [1] * 4
    assert len(limits) == 4
    assert max(limits) < 0.3
    assert holders(claims_file(job.claims_folder, "fake")) == set()


@pytest.mark.slow
def test_out_of_memory_beside_others_is_no_failure_of_the_trial(four, limits, train_with):
    left = [torch.OutOfMemoryError("CUDA out of memory")]

    def fail_once(trial, keeper):
        if left:
            raise left.pop()

    train_with(fail_once)
    run_sweep(packed(four, Need(GB)), source=four.planned.source)
    assert {run.state for run in four.runs()} == {"complete"}
    tags = [run.data.tags for run in tracking.trial_runs(four.ledger)]
    assert sorted(tag[STATE] for tag in tags) == [*["complete"] * 4, "planned"]
    (reason,) = (tag[REASON] for tag in tags if tag[STATE] == "planned")
    assert reason == "out of memory beside other trials: run again alone"
    assert [limit > 0.7 for limit in limits] == [False, True, False, False, False]


def test_how_many_share_a_device_is_asked_for_once_and_only_if_something_is_to_be_trained(
    four, planted, limits
):
    asked = []

    def pack(job):
        asked.append(job)
        return replace(job, packing=Packing(lambda trial: Need(GB), 2)), 1

    four.run(pack=pack)
    assert len(asked) == 1
    assert len(limits) == 4
    four.run(pack=pack)
    assert len(asked) == 1


@pytest.mark.parametrize("shares", [True, False])
def test_a_worker_that_has_lost_its_gpu_trains_no_more_there(four, limits, train_with, shares):
    """Another process takes its place; alone in the caller's process, there is none."""
    tried = []

    def fault(trial, keeper):
        tried.append(trial)
        raise RuntimeError("CUDA error: device-side assert triggered")

    train_with(fault)
    job = packed(four, Need(GB)) if shares else four.open()
    with pytest.raises(RuntimeError if shares else SweepError, match="device-side assert"):
        run_sweep(job, source=four.planned.source)
    assert len(tried) == (1 if shares else 3)


@pytest.mark.slow
def test_a_worker_that_shares_nothing_claims_the_device_for_each_trial(four, limits, train_with):
    job = four.open()
    file = claims_file(job.claims_folder, "fake")
    seen = []
    train_with(lambda trial, keeper: seen.append(len(holders(file))))
    run_sweep(job, source=four.planned.source)
    assert seen == [1] * 4
    assert limits == []
    assert holders(file) == set()


@pytest.mark.slow
def test_a_worker_of_an_executor_claims_nothing(four, limits, train_with):
    job = four.open()
    seen = []
    train_with(lambda trial, keeper: seen.append(job.claims_folder.exists()))
    with ThreadPoolExecutor(1) as executor:
        run_sweep(job, executor=executor, source=four.planned.source)
    assert seen == [False] * 4


@pytest.mark.parametrize("workers", [1, 2])
def test_claims_that_cannot_be_kept_end_the_sweep_with_their_error(
    four, limits, monkeypatch, workers
):
    monkeypatch.setattr(executors, "count_devices", lambda: 1)
    job = four.open()
    job.claims_folder.write_text("a file in its place")
    with pytest.raises(StoreError, match=r"claims on this machine's devices cannot be kept in"):
        run_sweep(job, workers=workers, source=four.planned.source)


@pytest.mark.parametrize(("already", "expected"), [(0, 2), (3, 3), (9, 5)])
def test_memory_is_kept_for_the_workers_that_are_started_only(four, monkeypatch, already, expected):
    sent = []

    class Pool(list):
        def run(self, payload, count, listener, share):
            sent.append(pickle.loads(payload)[1])

    job = packed(four, Need(GB), per_device=5)
    executors.start_workers(job, 2, 5, None, None, print, Pool(range(already)))
    assert sent[0].packing.per_device == expected


@pytest.mark.parametrize("waits", [False, True])
def test_a_joined_worker_asks_how_many_share_a_device_only_if_something_waits(
    four, monkeypatch, limits, planted, waits
):
    monkeypatch.setattr(status, "BEGIN_S", 0.0)
    job, asked = four.open(), []
    if waits:
        study = trial_queue.open_study(job.study_name, job.storage)
        trial_queue.enqueue(study, job.trials, job.plan)

    def pack(job):
        asked.append(job)
        return replace(job, packing=Packing(lambda trial: Need(GB), 2)), 1

    join_sweep(job, source=four.planned.source, pack=pack)
    assert len(asked) == waits
    assert len(limits) == 4 * waits


def opens_on_fake_device():
    """The data, which each worker opens first; a fake device for it, and a kill of the first.

    The first to train waits until another one trains beside it, and then dies.
    """
    from flops_fit.sweep.execution import worker

    folder = Path(os.environ["FLOPS_FIT_TEST_FOLDER"])
    worker.device_here = lambda: Device("fake", 10 * GB, lambda share: None)
    train = worker.train

    def die_first(task, source, trial, *others):
        file = next(file for file in folder.glob("devices/*.json") if file.stem != "check")
        (folder / f"{trial.trial_id}.seen").write_text(str(len(holders(file))))
        try:
            (folder / "killed").touch(exist_ok=False)
        except FileExistsError:
            poll_until((folder / "two").exists)
            return train(task, source, trial, *others)
        poll_until(lambda: len(holders(file)) == 2)
        (folder / "two").touch()
        os.kill(os.getpid(), signal.SIGKILL)

    worker.train = die_first
    return data()


@pytest.mark.integration
def test_a_worker_that_is_killed_leaves_its_share_to_the_others(store, monkeypatch):
    monkeypatch.setenv("FLOPS_FIT_TEST_FOLDER", str(store))
    sweep = SmallSweep(store, budgets=(1e5, 2e5), sizes=(2, 4, 8, 16), recipe=TINY)
    job = packed(sweep, Need(2 * GB), per_device=3)  # two of them fit
    assert 1 / 3 < job.packing.share(job.trials[0], Device("fake", 10 * GB, print)) <= 1 / 2
    run_sweep(replace(job, task=replace(job.task, dataset=opens_on_fake_device)), workers=3)
    assert [run.state for run in sweep.runs()] == ["complete"] * 8
    seen = {int(file.read_text()) for file in store.glob("*.seen")}
    assert max(seen) == 2
