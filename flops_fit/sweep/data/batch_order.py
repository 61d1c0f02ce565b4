"""A trial's batches, step by step: a function of seed and step alone.

Dividing a step's examples into parts (micro-batches, shares of several processes) does not change
which examples they are. A trial resumed halfway sees the batches it would have seen uninterrupted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, islice, pairwise
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset, Sampler, get_worker_info

from flops_fit.errors import ArgumentError
from flops_fit.records import Trial
from flops_fit.runtime.rng import rng_state, seeded, set_rng_state
from flops_fit.warn import warn_user

Collate = Callable[[list[Any]], Any]
Parts = Sequence[slice]


def trial_seed(trial: Trial) -> int:
    """The seed of a trial's own randomness; trials of one sweep draw independent noise.

    Trials that differ only in the multiplier of the learning rate share a seed, so that comparing
    them compares the rates and not the seeds.
    """
    return int(trial.at_own_rate or trial.trial_id, 16) % 2**63


def parts_of(batch_size: int, *, rank: int = 0, ranks: int = 1, most: int | None = None) -> Parts:
    """The parts of a step's batch that one rank trains on.

    Shares of ranks, and parts of a share, are contiguous and as even as possible. If there are
    fewer examples than ranks, some ranks have no part; rank 0 always has one.

    Args:
        batch_size: Examples of the whole step.
        rank: This rank.
        ranks: Number of ranks.
        most: Most examples of a part; None for no limit.
    """
    first = -(-batch_size * rank // ranks)
    last = -(-batch_size * (rank + 1) // ranks)
    num_parts = -(-(last - first) // (most or batch_size))
    bounds = [first + (last - first) * k // max(1, num_parts) for k in range(num_parts + 1)]
    return [slice(a, b) for a, b in pairwise(bounds)]


class ShuffledSteps(Sampler[tuple[int, list[int]]]):
    """For each step, its number and the indices of its examples.

    Each pass over the data is a new permutation drawn from the seed. A batch may span two passes,
    so that all batches are full and D is met exactly.
    """

    def __init__(self, num_examples: int, batch_size: int, steps: range, seed: int) -> None:
        self.num_examples = num_examples
        self.batch_size = batch_size
        self.steps = steps
        self.seed = seed

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        order = self._endless()
        for step in range(self.steps.stop):  # earlier steps are drawn too, and dropped
            batch = list(islice(order, self.batch_size))
            if step >= self.steps.start:
                yield step, batch

    def _endless(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed)
        while True:
            yield from torch.randperm(self.num_examples, generator=generator).tolist()


class DrawnSteps(Dataset[list[Any]]):
    """The collated parts of each step of a map-style dataset.

    Args:
        dataset: The dataset; its `__getitems__` is used if there is one.
        collate: From a list of examples to a batch.
        parts: The parts of each step's batch to return.
        seed: If reading or collating draws random numbers: each step then has its own random
            state, whichever process reads it. None if nothing is random.
    """

    def __init__(self, dataset: Any, collate: Collate, parts: Parts, seed: int | None) -> None:
        self.dataset = dataset
        self.collate = collate
        self.parts = parts
        self.seed = seed
        self.read_many = getattr(dataset, "__getitems__", None)

    def __getitem__(self, wanted: tuple[int, list[int]]) -> list[Any]:
        step, indices = wanted
        if self.seed is None:
            return [self.collate(self.read(indices[part])) for part in self.parts]
        with seeded((self.seed + step) % 2**63):
            examples = self.read(indices)  # all of them: each draw depends on those before it
            return [self.collate(examples[part]) for part in self.parts]

    def read(self, indices: list[int]) -> list[Any]:
        """Some examples, not collated."""
        if self.read_many is not None:
            return self.read_many(indices)
        return [self.dataset[index] for index in indices]


class StreamedSteps(IterableDataset[list[Any]]):
    """The collated parts of each step of a stream, which is restarted whenever it ends.

    Args:
        dataset: The stream.
        collate: From a list of examples to a batch.
        batch_size: Examples a step.
        parts: The parts of each step's batch to return.
        skip: Steps to skip first; a multiple of the number of reader processes.
        seed: If reading draws random numbers: the stream then has its own generators in this
            process, independent of those of the model. None if nothing is random.
        expected: Number of examples the plan assumes for one pass; None if unknown. If the first
            pass ends earlier, or was not known to end, a warning is given.
    """

    def __init__(
        self,
        dataset: Iterable[Any],
        collate: Collate,
        batch_size: int,
        parts: Parts,
        *,
        skip: int,
        seed: int | None,
        expected: int | None,
    ) -> None:
        self.dataset = dataset
        self.collate = collate
        self.batch_size = batch_size
        self.parts = parts
        self.skip = skip
        self.seed = seed
        self.expected = expected

    def __iter__(self) -> Iterator[list[Any]]:
        reader = get_worker_info()
        skipped = self.skip // (reader.num_workers if reader else 1)
        examples = self._endless()
        if self.seed is not None and reader is None:
            examples = _with_own_generators(examples, self.seed)
        for _ in islice(examples, skipped * self.batch_size):
            pass
        while True:
            batch = list(islice(examples, self.batch_size))
            yield [self.collate(batch[part]) for part in self.parts]

    def _endless(self) -> Iterator[Any]:
        for num_passes in count():
            num_examples = 0
            for example in self.dataset:
                num_examples += 1
                yield example
            if not num_examples:
                raise ArgumentError("dataset: a pass over the iterable dataset held no example")
            # Of several readers each sees only its share of a pass.
            complete = self.expected is not None and (
                num_examples >= self.expected or get_worker_info()
            )
            if num_passes == 0 and not complete:
                warn_user(
                    f"dataset: this stream ended after {num_examples:,} examples and is read "
                    "again; a law fitted to new data does not hold for repeated data"
                )


def _with_own_generators(items: Iterator[Any], seed: int) -> Iterator[Any]:
    """The same items, read with random generators that start from `seed`."""
    with seeded(seed):
        state = rng_state()
    while True:
        callers_state = rng_state()
        set_rng_state(state)
        try:
            item = next(items)
        finally:
            state = rng_state()
            set_rng_state(callers_state)
        yield item
