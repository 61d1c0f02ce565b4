"""How many workers a device gets, from what its trials were measured to take."""

import os
from dataclasses import dataclass, replace
from pathlib import Path

import cloudpickle
import pandas as pd
import pytest
import torch

from flops_fit.errors import FlopsFitWarning, StoreError, SweepError
from flops_fit.runtime.sending import UnsendableError
from flops_fit.sweep.devices.device import Device, Packing
from flops_fit.sweep.forecast import packing
from flops_fit.sweep.forecast.packing import MOST_PER_DEVICE, EqualParts, Measured, Packer

GPUS, CORES = 2, 64


@dataclass(frozen=True)
class Sent:
    """What of a job counts here."""

    task: object = None
    recipe: object = None
    claims_folder: Path = Path()
    packing: Packing | None = None


@pytest.fixture
def trials(planned):
    return planned().trials


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A function that replaces the measurement: two GPUs of 100 GB, and what trials take."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: GPUS)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(CORES))
    monkeypatch.chdir(tmp_path)  # the claims of `Sent`
    calls = []

    def install(gigabytes=lambda trial: 1.0, busy=0.01, fails=None, memory=100e9):
        def measured(task, places, recipe, rounds, claims):
            calls.append(claims)
            if fails is not None:
                raise fails
            return pd.DataFrame(
                {
                    "flops_per_token": trial.flops_per_token,
                    "batch_size": trial.batch_size,
                    "num_params": trial.num_params,
                    "state_bytes": 16.0 * trial.num_params,
                    "work_bytes": gigabytes(trial) * 1e9 - 16.0 * trial.num_params,
                    "seconds_per_step": 1.0,
                    "fastest": trial.flops_per_token * trial.batch_size / busy / packing.SATURATED,
                    "device_bytes": memory,
                }
                for trial in places
            )

        monkeypatch.setattr(packing, "measured_apart", measured)
        return calls

    return install


@pytest.mark.parametrize(
    ("gigabytes", "busy", "expected"),
    [
        (0.1, 0.01, MOST_PER_DEVICE),  # tiny
        (18.0, 0.01, 3),  # memory for three
        (0.1, 0.2, 5),  # five keep it busy
    ],
)
def test_auto_is_as_many_as_fit_and_are_of_use(trials, machine, gigabytes, busy, expected):
    machine(lambda trial: gigabytes, busy)
    job, count = Packer(trials, 1.0)(Sent())
    assert job.packing.per_device == expected
    assert count == GPUS * expected


def test_no_more_workers_than_cores(trials, machine, monkeypatch):
    machine()
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(12))
    job, count = Packer(trials, 1.0)(Sent())
    assert (job.packing.per_device, count) == (6, 12)


@pytest.mark.parametrize(("gigabytes", "busy"), [(70.0, 0.01), (1.0, 0.9)])
def test_large_trials_get_a_device_each(trials, machine, gigabytes, busy):
    machine(lambda trial: gigabytes, busy)
    assert Packer(trials, 1.0)(Sent()) == (Sent(), GPUS)


def test_the_smallest_trials_decide_how_many_and_each_claims_its_own_share(trials, machine):
    smallest = min(trial.size for trial in trials)
    machine(lambda trial: 2.0 if trial.size == smallest else 60.0)
    job, _ = Packer(trials, 1.0)(Sent())
    assert job.packing.per_device == MOST_PER_DEVICE
    need = {trial.size: job.packing.need_of(trial).memory_bytes for trial in trials}
    assert need[smallest] == pytest.approx(2e9)
    assert max(need.values()) == pytest.approx(60e9)


@pytest.mark.parametrize(("memory", "largest", "expected"), [(24e9, 12, 13), (16e9, 5, 13)])
def test_no_more_workers_than_leave_memory_for_the_largest_trial(
    trials, machine, memory, largest, expected
):
    """Each holds some beside its trial, also while it waits; 24 GB cannot have 16 and 12 GB."""
    size = max(trial.size for trial in trials)
    machine(lambda trial: largest if trial.size == size else 0.1, memory=memory)
    job, _ = Packer(trials, 1.0)(Sent())
    assert job.packing.per_device == expected
    device = Device("", memory, lambda share: None)
    assert largest * 1e9 <= job.packing.available(device)


def test_a_trial_that_fits_beside_no_other_process_shares_with_none(trials, machine):
    size = max(trial.size for trial in trials)
    machine(lambda trial: 95.0 if trial.size == size else 0.1)
    assert Packer(trials, 1.0)(Sent()) == (Sent(), GPUS)


def test_the_measurement_claims_the_device(trials, machine, tmp_path):
    calls = machine()
    Packer(trials, 1.0)(Sent(claims_folder=tmp_path))
    assert calls == [tmp_path]


@pytest.mark.parametrize(("workers", "per_device"), [("auto", None), (4, None), ("auto", 1)])
def test_claims_that_cannot_be_kept_are_said_at_once(
    trials, machine, tmp_path, workers, per_device
):
    calls = machine()
    (tmp_path / "devices").write_text("a file in its place")
    job = Sent(claims_folder=tmp_path / "devices")
    with pytest.raises(StoreError, match="cannot be kept in"):
        Packer(trials, 1.0, workers, per_device)(job)
    assert calls == []


def test_a_number_that_the_user_gives_is_kept_as_far_as_memory_goes(trials, machine):
    machine(lambda trial: 1.0, busy=0.9)
    job, count = Packer(trials, 1.0, per_device=4)(Sent())
    assert (job.packing.per_device, count) == (4, 8)
    assert job.packing.need_of(trials[0]).busy == 0
    assert job.packing.need_of(trials[0]).memory_bytes == pytest.approx(1e9)


@pytest.mark.parametrize(("workers", "per_device"), [(4, 2), (5, 3), (20, 10)])
def test_more_workers_than_devices_share_them(trials, machine, workers, per_device):
    machine()
    job, count = Packer(trials, 1.0, workers)(Sent())
    assert (job.packing.per_device, count) == (per_device, workers)


@pytest.mark.parametrize(("workers", "per_device"), [("auto", 1), (2, None), (1, None)])
def test_one_worker_a_device_is_not_measured(trials, machine, workers, per_device):
    calls = machine()
    job, count = Packer(trials, 1.0, workers, per_device)(Sent())
    assert job.packing is None
    assert count == (GPUS if workers == "auto" else workers)
    assert calls == []


@pytest.mark.parametrize("per_device", [None, 4])
def test_a_cpu_has_a_worker_for_each_core(trials, machine, monkeypatch, per_device):
    calls = machine()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert Packer(trials, 1.0, "auto", per_device)(Sent()) == (Sent(), CORES)
    assert calls == []


FAULTS = [SweepError("all died"), UnsendableError("model", object(), "a lock")]


@pytest.mark.parametrize("fault", FAULTS, ids=["died", "unsendable"])
def test_what_cannot_be_measured_trains_one_at_a_time(trials, machine, fault):
    machine(fails=fault)
    with pytest.warns(FlopsFitWarning, match="one trial at a time is trained on each GPU"):
        assert Packer(trials, 1.0)(Sent()) == (Sent(), GPUS)


def test_what_cannot_be_measured_is_shared_in_equal_parts_if_the_user_says_so(trials, machine):
    machine(fails=FAULTS[0])
    job, count = Packer(trials, 1.0, per_device=5)(Sent())
    assert (job.packing, count) == (Packing(EqualParts(5), 5), 10)
    assert job.packing.need_of(trials[0]).busy == 0.2


def test_what_was_measured_is_sent_to_workers(trials, machine):
    machine(lambda trial: 3.0)
    job, _ = Packer(trials, 1.0)(Sent())
    again = cloudpickle.loads(cloudpickle.dumps(job))
    assert isinstance(again.packing.need_of, Measured)
    larger = replace(trials[-1], batch_size=10 * trials[-1].batch_size)
    assert again.packing.need_of(larger) == job.packing.need_of(larger)
