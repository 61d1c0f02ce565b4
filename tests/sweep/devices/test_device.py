"""What share of a device a trial claims, and how much of its memory a process may hold."""

import pytest
import torch
from trials import a_trial

from flops_fit.sweep.data.device_cache import MAX_SHARE
from flops_fit.sweep.devices.device import SLACK, Device, Need, Packing, device_here

GPU = Device("a GPU", 100e9, lambda share: None)


@pytest.mark.parametrize(
    ("need", "expected"),
    [
        (Need(1e9), 0.0157),  # memory alone, with slack, beside four contexts and the data
        (Need(1e9, busy=0.25), 0.25),  # its arithmetic is what it needs more of
        (Need(90e9), 1.0),  # it does not fit beside anything
        (Need(900e9), 1.0),  # nor at all: it is tried alone, where its batch can be halved
        (Need(1e6, busy=1.0), 1.0),  # it keeps the device busy by itself
    ],
)
def test_a_trial_claims_the_larger_of_its_shares(need, expected):
    share = Packing(lambda trial: need, 4).share(a_trial(), GPU)
    assert share == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("per_device", [1, 2, 4, 16])
def test_all_limits_together_leave_room_for_data_and_processes(per_device):
    packing = Packing(lambda trial: Need(1e9), per_device)
    share = packing.share(a_trial(), GPU)
    limit = packing.limit(share, GPU) * GPU.memory_bytes
    assert limit >= SLACK * 1e9 + MAX_SHARE * GPU.memory_bytes / per_device
    assert per_device * packing.limit(0.999 / per_device, GPU) < 0.96


@pytest.mark.parametrize("per_device", [1, 4, 16])
@pytest.mark.parametrize("memory", [4e9, 24e9, 100e9])
def test_a_trial_that_is_alone_has_no_limit(per_device, memory):
    device = Device("a GPU", memory, lambda share: None)
    assert Packing(lambda trial: Need(1e9), per_device).limit(1.0, device) == 1


@pytest.mark.parametrize(
    ("workers", "devices", "expected"), [(3, 1, 3), (16, 1, 16), (99, 1, 16), (5, 2, 3), (1, 4, 1)]
)
def test_only_workers_that_are_started_count(workers, devices, expected):
    packing = Packing(lambda trial: Need(1e9), 16)
    fewer = packing.among(workers, devices)
    assert fewer.per_device == expected
    assert (fewer.available(GPU) > packing.available(GPU)) == (expected < 16)


def test_a_small_device_with_many_workers_keeps_some_of_its_memory():
    small = Device("a small one", 4e9, lambda share: None)
    packing = Packing(lambda trial: Need(0.1e9), 16)
    assert 0 < packing.share(a_trial(), small) <= 1


def test_a_cpu_is_no_device_to_share(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device_here() is None


def test_a_gpu_is_known_by_its_uuid(monkeypatch):
    class Properties:
        uuid, total_memory = "GPU-1234", 80

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: Properties)
    found = device_here()
    assert (found.name, found.memory_bytes) == ("GPU-1234", 80.0)
