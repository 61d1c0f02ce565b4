from dataclasses import replace

import pytest
import torch
from torch.utils.data import TensorDataset, default_collate
from trials import RECIPE, a_trial

from flops_fit.sweep.data import device_cache as held_data
from flops_fit.sweep.data import source as source_module
from flops_fit.sweep.data.device_cache import hold, room_for
from flops_fit.sweep.data.loading import open_source
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.train import train

CPU = torch.device("cpu")


@pytest.fixture
def roomy(monkeypatch):
    """The CPU taken for an accelerator with room."""
    monkeypatch.setattr(source_module, "room_for", lambda device, size: True)


def read_from(dataset):
    return lambda indices: [dataset[index] for index in indices]


def of_mappings(length):
    return [{"x": torch.full((3,), float(n)), "labels": n % 2} for n in range(length)]


def test_batches_are_those_that_reading_gives():
    data = of_mappings(2500)
    held = hold(read_from(data), len(data), CPU)
    chosen = torch.tensor([7, 2499, 0, 7])
    batch, expected = held.batch(chosen), default_collate([data[i] for i in chosen])
    assert batch.keys() == expected.keys()
    assert all(torch.equal(batch[key], expected[key]) for key in batch)


@pytest.mark.parametrize(
    "data",
    [
        [torch.ones(1 + n // 1024) for n in range(1030)],
        [torch.ones(2).to(torch.int if n < 1024 else torch.float) for n in range(1030)],
        ["a", "b"] * 10,
        [(torch.ones(2), "a")] * 20,
    ],
    ids=["another shape", "another type", "text", "text beside"],
)
def test_examples_that_are_no_rows_of_one_kind_are_read_as_before(data):
    assert hold(read_from(data), len(data), CPU) is None


def test_a_trial_ends_with_the_same_bits(mlp, classes, cross_entropy, roomy):
    task = Task(mlp, "width", {"dropout": 0.1}, classes, cross_entropy)
    trial, source = a_trial(steps=100, batch=32), task.open()
    outcome = train(task, source, trial, RECIPE, lambda point: None)
    assert source._held[CPU] is not None
    with pytest.MonkeyPatch.context() as as_it_is:
        as_it_is.setattr(source_module, "room_for", room_for)
        other = train(task, task.open(), trial, RECIPE, lambda point: None)
    assert outcome.loss == other.loss


def test_they_are_read_once_for_all_trials(roomy, monkeypatch):
    source = open_source(TensorDataset(torch.randn(60, 4), torch.zeros(60)))
    reads = []
    monkeypatch.setattr(source_module, "hold", lambda *given: reads.append(1) or hold(*given))
    for seed in (0, 1):
        steps = list(
            source.training_steps(8, 20, seed, parts=[slice(0, 4), slice(4, 8)], device=CPU)
        )
        assert [len(part[0]) for part in steps[-1]] == [4, 4]
    assert reads == [1]


@pytest.mark.parametrize("change", [{"draws": True}, {"num_workers": 2}, {"collate": list}])
def test_random_data_and_ways_of_their_own_are_left_alone(roomy, change):
    source = open_source(TensorDataset(torch.randn(60, 4), torch.zeros(60)))
    assert replace(source, **change)._held_on(CPU, source.train.__getitems__) is None


def test_a_trial_that_sees_part_of_the_data_reads_what_it_sees(roomy):
    source = open_source(TensorDataset(torch.randn(60, 4), torch.zeros(60)))
    next(source.training_steps(8, 3, 0, device=CPU))
    assert source._held == {}


def test_only_an_accelerator_with_ten_times_the_room_takes_them(monkeypatch):
    monkeypatch.setattr(held_data.torch.cuda, "mem_get_info", lambda device: (1000, 2000))
    assert not room_for(CPU, 1)
    assert room_for(torch.device("cuda"), 100)
    assert not room_for(torch.device("cuda"), 101)
