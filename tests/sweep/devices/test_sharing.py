"""Trials on their shares of a device: what fits trains side by side, and nobody fails another."""

import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from fake_device import FakeDevice
from trials import a_trial

from flops_fit.errors import DivergedError
from flops_fit.runtime.process_id import at_work
from flops_fit.runtime.signals import StopRequest
from flops_fit.sweep.devices import claims, sharing
from flops_fit.sweep.devices.claims import claims_file, holders, share_claimed
from flops_fit.sweep.devices.device import CONTEXT_BYTES, Device, Need, Packing
from flops_fit.sweep.devices.sharing import SharedDevice, device_to_itself

GB = 1e9


class GaveUpError(Exception):
    """Raised by the first pause: whoever raises it would have waited."""


def give_up():
    raise GaveUpError


FULL = torch.OutOfMemoryError("CUDA out of memory")


@pytest.fixture
def limits():
    return []


@pytest.fixture
def shared(tmp_path, limits):
    """A function that gives a worker its place, on a device of 10 GB that two workers share."""
    device = Device("fake", 10e9, limits.append)

    def make(need, owner):
        packing = Packing(lambda trial: need, 2)
        return SharedDevice(device, packing, tmp_path / "fake.json", owner, StopRequest())

    with at_work() as owner:
        yield lambda need: make(need, owner)


def trainer(*ends):
    """Trains with these results in turn; notes whether each try was alone."""
    left, tries = list(ends), []

    def train(alone):
        tries.append(alone)
        end = left.pop(0)
        if isinstance(end, Exception):
            raise end
        return end

    return train, tries


def test_a_trial_that_fits_has_only_its_share_of_the_memory(shared, limits):
    train, tries = trainer(1.5)
    assert shared(Need(1e9)).run(a_trial(), train) == 1.5
    assert tries == [False]
    assert 0.1 < limits[0] < 0.3


@pytest.mark.parametrize("error", [FULL, MemoryError(), RuntimeError("CUDA out of memory.")])
def test_out_of_memory_beside_others_is_tried_again_with_the_whole_device(shared, limits, error):
    train, tries = trainer(error, 1.5)
    assert shared(Need(1e9)).run(a_trial(), train) == 1.5
    assert tries == [False, True]
    assert limits[0] < 0.3 < 0.7 < limits[1]


def test_out_of_memory_alone_is_the_trial_s_failure(shared):
    train, tries = trainer(FULL, FULL, 1.5)
    with pytest.raises(torch.OutOfMemoryError):
        shared(Need(1e9)).run(a_trial(), train)
    assert tries == [False, True]


@pytest.mark.parametrize(
    ("need", "error"),
    [(Need(9e9), FULL), (Need(1e9), DivergedError("NaN", 3)), (Need(1e9), ValueError("a bug"))],
)
def test_nothing_else_is_tried_again(shared, need, error):
    train, tries = trainer(error, 1.5)
    with pytest.raises(type(error)):
        shared(need).run(a_trial(), train)
    assert len(tries) == 1


def test_a_worker_that_shares_nothing_claims_the_whole_device_and_leaves_its_limit(shared, limits):
    own = replace(shared(Need(1e9)), packing=None)

    def train(alone):
        assert alone
        with at_work() as other, share_claimed(own.claims, other, 0.01, before_pause=give_up):
            pass

    with pytest.raises(GaveUpError):
        own.run(a_trial(), train)
    assert limits == []


def test_a_worker_that_shares_nothing_says_that_it_waits(shared, caplog):
    own = replace(shared(Need(1e9)), packing=None)
    own.stop.signal = signal.SIGINT  # gives up at the first pause
    with (
        at_work() as other,
        share_claimed(own.claims, other, 0.1, before_pause=give_up),
        pytest.raises(KeyboardInterrupt),
    ):
        own.run(a_trial(), lambda alone: 1.5)
    assert "another sweep of this store trains on the GPU: waiting for it" in caplog.text


@pytest.mark.parametrize("has_gpu", [True, False])
def test_a_measurement_has_the_device_to_itself(tmp_path, monkeypatch, has_gpu):
    device = Device("fake", 10e9, lambda share: None) if has_gpu else None
    monkeypatch.setattr(sharing, "device_here", lambda: device)
    file = claims_file(tmp_path, "fake")
    with device_to_itself(tmp_path):
        assert len(holders(file)) == has_gpu
        if has_gpu:
            with (
                at_work() as other,
                pytest.raises(GaveUpError),
                share_claimed(file, other, 0.01, before_pause=give_up),
            ):
                pass
    assert holders(file) == set()


@pytest.mark.parametrize(("number", "ends_as"), [(2, KeyboardInterrupt), (15, SystemExit)])
def test_a_worker_that_waits_for_its_share_can_be_stopped(shared, number, ends_as):
    own = shared(Need(1e9))
    own.stop.signal = number
    train, tries = trainer(1.5)
    with (
        at_work() as other,
        share_claimed(own.claims, other, 1.0, before_pause=lambda: None),
        pytest.raises(ends_as),
    ):
        own.run(a_trial(), train)
    assert tries == []


@pytest.fixture
def run_packed(tmp_path, monkeypatch):
    """A function that trains eight trials by several workers on a device; returns the errors."""
    monkeypatch.setattr(claims, "PAUSE_S", 0.01)
    monkeypatch.setattr(sharing, "clear_device_cache", lambda garbage_collection: None)
    trials = [replace(a_trial(), trial_id=str(n), size=n) for n in range(8)]

    def run(fake, workers, uses_by_estimate=None):
        packing = Packing(lambda trial: Need((uses_by_estimate or fake.uses)(trial)), workers)

        def work(trial):
            with at_work() as owner:
                place = SharedDevice(
                    fake.device, packing, tmp_path / "fake.json", owner, StopRequest()
                )
                try:
                    place.run(trial, lambda alone: fake.train(trial))
                except torch.OutOfMemoryError:
                    return trial.size
                return None

        with ThreadPoolExecutor(workers) as pool:
            failed = [size for size in pool.map(work, trials) if size is not None]
        assert holders(tmp_path / "fake.json") == set()
        assert len(fake.trained) + len(failed) == len(trials)
        return failed

    return run


def test_small_trials_train_side_by_side(run_packed):
    fake = FakeDevice(80 * GB, lambda trial: 5 * GB)
    fake.meeting = threading.Barrier(4)
    assert run_packed(fake, 4) == fake.failed == []
    assert fake.most == 4


def test_trials_that_fill_the_device_train_one_at_a_time(run_packed):
    fake = FakeDevice(80 * GB, lambda trial: 50 * GB)
    assert run_packed(fake, 4) == fake.failed == []
    assert fake.most == 1


def test_large_and_small_ones_never_take_more_than_there_is(run_packed):
    fake = FakeDevice(20 * GB, lambda trial: GB * 2 ** (trial.size % 4))
    assert run_packed(fake, 4) == fake.failed == []


def test_an_estimate_that_is_too_low_fails_neither_its_trial_nor_the_others(run_packed):
    fake = FakeDevice(16 * GB, lambda trial: (6 if trial.size == 3 else 1) * GB)
    assert run_packed(fake, 4, uses_by_estimate=lambda trial: GB) == []
    assert [trial.size for trial in fake.failed] == [3]


@pytest.mark.parametrize(
    ("memory", "largest", "estimated"),
    [(24, 12, 12), (16, 5, 5), (16, 5, 0.1)],  # GB; in the last one the estimate is too low
)
def test_a_trial_that_is_alone_may_use_all_that_the_processes_leave(
    run_packed, memory, largest, estimated
):
    fake = FakeDevice(
        memory * GB,
        lambda trial: (largest if trial.size == 3 else 0.1) * GB,
        beside=16 * CONTEXT_BYTES,
    )
    by_estimate = lambda trial: (estimated if trial.size == 3 else 0.1) * GB  # noqa: E731
    assert run_packed(fake, 16, uses_by_estimate=by_estimate) == []
    assert len(fake.trained) == 8


def test_what_does_not_even_fit_alone_fails_alone(run_packed):
    fake = FakeDevice(16 * GB, lambda trial: (99 if trial.size == 3 else 1) * GB)
    assert run_packed(fake, 4, uses_by_estimate=lambda trial: GB) == [3]
    assert [trial.size for trial in fake.failed] == [3, 3]
