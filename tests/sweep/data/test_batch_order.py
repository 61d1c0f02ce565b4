"""Steps are a function of seed and step: whoever reads them, in how many parts, from where on."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate, get_worker_info

from flops_fit.sweep.data.batch_order import ShuffledSteps, parts_of
from flops_fit.sweep.data.loading import open_source


def order(seed=1, num_examples=10, batch_size=4, start=0, stop=5):
    return list(ShuffledSteps(num_examples, batch_size, range(start, stop), seed))


def test_order_is_full_batches_by_seed_alone():
    assert order(1) == order(1) != order(2)
    assert [len(batch) for _, batch in order(1)] == [4] * 5
    drawn = [index for _, batch in order(1) for index in batch]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))


def test_a_resumed_order_continues():
    assert order(start=3) == order()[3:]


def test_batch_larger_than_the_data_is_filled_by_further_passes():
    ((_, batch),) = order(num_examples=3, batch_size=7, stop=1)
    assert sorted(batch[:6]) == [0, 0, 1, 1, 2, 2]


@given(st.integers(1, 200), st.integers(1, 9), st.integers(1, 60))
def test_parts_of_all_ranks_make_up_the_batch(batch_size, ranks, most):
    parts = [
        part
        for rank in range(ranks)
        for part in parts_of(batch_size, rank=rank, ranks=ranks, most=most)
    ]
    positions = [k for part in parts for k in range(batch_size)[part]]
    assert positions == list(range(batch_size))
    sizes = {part.stop - part.start for part in parts}
    assert max(sizes) <= most
    assert min(sizes) >= 1
    assert parts_of(batch_size, rank=0, ranks=ranks)


class Noisy(Dataset):
    """Numbered examples with noise from all three generators."""

    def __len__(self):
        return 60

    def __getitem__(self, index):
        noise = [torch.randn(()).item(), np.random.rand(), random.random()]
        return torch.tensor([index, *noise], dtype=torch.double), index % 2


class NoisyStream(IterableDataset):
    """The same as a stream, shared out among its readers."""

    def __iter__(self):
        reader = get_worker_info()
        first, every = (reader.id, reader.num_workers) if reader else (0, 1)
        yield from (Noisy()[index] for index in range(first, 60, every))


def masking(examples):
    """A collate function that draws."""
    inputs, targets = default_collate(examples)
    return inputs * (torch.rand(inputs.shape) > 0.5), targets


QUIET = [(torch.full((4,), float(i)), i % 2) for i in range(60)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("data", "collate"),
    [(Noisy(), None), (NoisyStream(), None), (QUIET, None), (QUIET, masking)],
    ids=["map", "stream", "quiet", "masked"],
)
def test_any_step_is_the_same_from_wherever_one_starts(data, collate, workers):
    loader = DataLoader(data, batch_size=5, num_workers=workers, collate_fn=collate)
    source = open_source(loader, QUIET)
    whole = [batch for (batch,) in source.training_steps(5, 14, seed=3)]
    torch.manual_seed(77)  # whatever the model drew meanwhile
    for start in (0, 1, 4, 13):
        rest = [batch for (batch,) in source.training_steps(5, 14, seed=3, start=start)]
        assert len(rest) == 14 - start
        for (x, y), (again, labels) in zip(whole[start:], rest, strict=True):
            assert torch.equal(x, again)
            assert torch.equal(y, labels)
    assert source.draws == (data is not QUIET or collate is masking)


def test_noise_differs_from_step_to_step_and_does_not_touch_the_callers_generator():
    source = open_source(Noisy(), QUIET)
    state = torch.get_rng_state()
    drawn = [x[:, 1:] for ((x, _),) in source.training_steps(5, 40, seed=3)]
    assert len({value for x in drawn for value in x.flatten().tolist()}) == 40 * 5 * 3
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("data", [QUIET, Noisy(), NoisyStream()], ids=["map", "noisy", "stream"])
@pytest.mark.parametrize("rank", [0, 1])
def test_parts_hold_the_same_examples_as_the_whole(data, rank):
    source = open_source(data, QUIET)
    parts = parts_of(14, rank=rank, ranks=2, most=3)
    share = slice(7 * rank, 7 * rank + 7)
    for ((x, y),), cut in zip(
        source.training_steps(14, 9, seed=3),
        source.training_steps(14, 9, seed=3, parts=parts),
        strict=True,
    ):
        assert [len(labels) for _, labels in cut] == [2, 2, 3]
        assert torch.equal(torch.cat([inputs for inputs, _ in cut]), x[share])
        assert torch.equal(torch.cat([labels for _, labels in cut]), y[share])


@pytest.mark.parametrize("data", [QUIET, NoisyStream()], ids=["map", "stream"])
def test_a_rank_without_a_share_still_sees_every_step(data):
    assert list(open_source(data, QUIET).training_steps(2, 9, seed=3, parts=[])) == [[]] * 9
