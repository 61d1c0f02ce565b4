"""A trial's data, step by step: a function of seed and step alone.

A step's examples may be cut into parts (micro-batches, the shares of several processes) without
changing which examples they are. A trial taken up again in mid-course sees what it would have seen.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count, islice, pairwise
from typing import Any

import torch
from torch.utils.data import Dataset, IterableDataset, Sampler, get_worker_info

from flops_fit.errors import ArgumentError, FlopsFitWarning
from flops_fit.runtime.rng import rng_state, seeded, set_rng_state

Collate = Callable[[list[Any]], Any]
Parts = Sequence[slice]


def parts_of(batch_size: int, *, rank: int = 0, ranks: int = 1, most: int | None = None) -> Parts:
    """The parts of a step's batch that one process trains on, each at most `most` examples.

    Ranks get contiguous shares, as even as can be; so do the parts of a share. Where there are
    fewer examples than ranks some have no part, rank 0 never.
    """
    first, last = (-(-batch_size * k // ranks) for k in (rank, rank + 1))
    parts = -(-(last - first) // (most or batch_size))
    bounds = [first + (last - first) * k // max(1, parts) for k in range(parts + 1)]
    return [slice(a, b) for a, b in pairwise(bounds)]


class ShuffledSteps(Sampler[tuple[int, list[int]]]):
    """For each step its number and the indices of its examples.

    Each pass over the data is a new permutation drawn from the seed. A batch may straddle two
    passes, so that none is ragged and D is met exactly.
    """

    def __init__(self, num_examples: int, batch_size: int, steps: range, seed: int) -> None:
        self.num_examples, self.batch_size, self.steps = num_examples, batch_size, steps
        self.seed = seed

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        order = self._endless()
        for step in range(self.steps.stop):
            batch = list(islice(order, self.batch_size))
            if step >= self.steps.start:
                yield step, batch

    def _endless(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed)
        while True:
            yield from torch.randperm(self.num_examples, generator=generator).tolist()


class DrawnSteps(Dataset[list[Any]]):
    """The collated parts of a step of a map-style dataset.

    Args:
        dataset: The dataset; `__getitems__` is used where it has it.
        collate: From a list of examples to a batch.
        parts: The parts of each step's batch that are wanted.
        seed: Where reading or collating draws at random; each step then has its own randomness,
            whichever process reads it. None where nothing is drawn.
    """

    def __init__(self, dataset: Any, collate: Collate, parts: Parts, seed: int | None) -> None:
        self.dataset, self.collate, self.parts, self.seed = dataset, collate, parts, seed
        self.read_many = getattr(dataset, "__getitems__", None)

    def __getitem__(self, wanted: tuple[int, list[int]]) -> list[Any]:
        step, indices = wanted
        if self.seed is None:
            return [self.collate(self.read(indices[part])) for part in self.parts]
        with seeded((self.seed + step) % 2**63):
            examples = self.read(indices)  # all: what one draws depends on those before it
            return [self.collate(examples[part]) for part in self.parts]

    def read(self, indices: list[int]) -> list[Any]:
        """Some examples, before they are collated."""
        if self.read_many is not None:
            return self.read_many(indices)
        return [self.dataset[index] for index in indices]


class StreamedSteps(IterableDataset[list[Any]]):
    """The collated parts of step after step of a stream, begun again whenever it ends.

    Args:
        dataset: The stream.
        collate: From a list of examples to a batch.
        batch_size: Examples a step.
        parts: The parts of each step's batch that are wanted.
        skip: Steps to read over first; a multiple of the number of readers.
        seed: Where reading in this process draws at random; the stream then has generators of its
            own, which the model's draws do not disturb. None where nothing is drawn.
        expected: Examples of one pass that were planned for; an end before them, or where none was
            known of, is warned of.
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
        self.dataset, self.collate, self.expected = dataset, collate, expected
        self.batch_size, self.parts, self.skip, self.seed = batch_size, parts, skip, seed

    def __iter__(self) -> Iterator[list[Any]]:
        reader = get_worker_info()
        skipped = self.skip // (reader.num_workers if reader else 1)
        examples = self._endless()
        if self.seed is not None and reader is None:
            examples = _apart(examples, self.seed)
        for _ in islice(examples, skipped * self.batch_size):
            pass
        while True:
            batch = list(islice(examples, self.batch_size))
            yield [self.collate(batch[part]) for part in self.parts]

    def _endless(self) -> Iterator[Any]:
        for done in count():
            read = 0
            for example in self.dataset:
                read += 1
                yield example
            if not read:
                raise ArgumentError("dataset: a pass over the iterable dataset held no example")
            whole = self.expected is not None and (read >= self.expected or get_worker_info())
            if not done and not whole:
                warnings.warn(
                    f"dataset: this stream ended after {read:,} examples and is read again; a law "
                    "of new data does not hold for what is read over and over",
                    FlopsFitWarning,
                    stacklevel=2,
                )


def _apart(items: Iterator[Any], seed: int) -> Iterator[Any]:
    """The same items, read with generators of their own."""
    with seeded(seed):
        own = rng_state()
    while True:
        outer = rng_state()
        set_rng_state(own)
        try:
            item = next(items)
        finally:
            own = rng_state()
            set_rng_state(outer)
        yield item
