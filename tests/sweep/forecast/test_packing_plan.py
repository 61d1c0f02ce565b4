"""How many workers a device gets, from what its trials were measured to take."""

import os
from dataclasses import dataclass, replace

import cloudpickle
import pandas as pd
import pytest
import torch

from flops_fit.errors import FlopsFitWarning, SweepError
from flops_fit.runtime.sending import UnsendableError
from flops_fit.sweep.devices.device import Packing
from flops_fit.sweep.forecast import packing
from flops_fit.sweep.forecast.packing import MOST_PER_DEVICE, EqualParts, Measured, Packer

GPUS, CORES = 2, 64


@dataclass(frozen=True)
class Sent:
    """What of a job counts here."""

    task: object = None
    recipe: object = None
    packing: Packing | None = None


@pytest.fixture
def trials(planned):
    return planned().trials


@pytest.fixture
def machine(monkeypatch):
    """A function that replaces the measurement: two GPUs of 100 GB, and what trials take."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: GPUS)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(CORES))
    calls = []

    def install(gigabytes=lambda trial: 1.0, busy=0.01, fails=None):
        def measured(task, places, recipe, rounds, processes=1):
            calls.append(places)
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
                    "device_bytes": 100e9,
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
