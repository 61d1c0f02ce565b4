"""`Source`: the user's data, which yields batches for training and for the held-out loss.

A batch is `(inputs, targets)` or a mapping; nothing here assumes text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, Subset, TensorDataset, default_collate

from flops_fit.sweep.data.batch_order import DrawnSteps, Parts, ShuffledSteps, StreamedSteps
from flops_fit.sweep.data.device_cache import Held, Read, hold, room_for
from flops_fit.sweep.data.held_out import OWN_DATA, Strided, in_words, share
from flops_fit.sweep.data.labels import targets_of, tensors_of
from flops_fit.sweep.data.lengths import Lengths

_COSTED_EXAMPLES = 8  # in a batch whose FLOPs are counted, if no loader sets the batch size
_MAX_READ = 1000  # examples of a stream without a length that are read to count them


@dataclass(frozen=True)
class Source:
    """The user's data, opened and split.

    Attributes:
        train: Map-style or iterable dataset that trials train on.
        held_out: The same for the held-out loss; no example is in both.
        num_examples: Number of examples in `train`; None if unknown.
        unit: "tokens" if an example's target holds many labels, else "examples".
        sample_tokens: Labels in the first example's target; 1 if the unit is examples.
        sample: One collated batch of (up to) two examples.
        fingerprint: Hash of length, structure and a few examples.
        batch_size: Batch size of the user's `DataLoader`, in examples; None if not set by one.
        collate: From a list of training examples to a batch.
        held_out_collate: The same for held-out examples.
        num_workers: Worker processes of the user's `DataLoader`.
        worker_init_fn: Its function called first in each worker process, or None.
        draws: Whether reading or collating draws random numbers.
        lengths: How many labels the training examples hold; None if all hold equally many.
        held_out_lengths: The same for the held-out examples.
        held_out_by: How the held-out examples were chosen: "blocks" or "random" of a map-style
            dataset, "every 20th" of a stream, or "eval_dataset" where the user passed them.
        read_as: Lines for the user on what the data are read as, if not as they are.
        sharers: Processes that share a device, each of which keeps its own copy of the data there.
    """

    train: Any
    held_out: Any
    num_examples: int | None
    unit: str
    sample_tokens: int
    sample: Any
    fingerprint: str
    batch_size: int | None
    collate: Callable[[list[Any]], Any]
    held_out_collate: Callable[[list[Any]], Any]
    num_workers: int
    worker_init_fn: Callable[[int], None] | None
    draws: bool = False
    lengths: Lengths | None = None
    held_out_lengths: Lengths | None = None
    held_out_by: str = OWN_DATA
    read_as: tuple[str, ...] = ()
    sharers: int = 1
    # Copies of the training data by device, shared by all trials; None if they do not fit there.
    _held: dict[torch.device, Held | None] = field(default_factory=dict, compare=False, repr=False)

    @property
    def tokens_per_example(self) -> float:
        """Units of D in one example; where examples differ, the mean of the labels that count."""
        return self.sample_tokens if self.lengths is None else self.lengths.mean

    @property
    def num_tokens(self) -> int | None:
        """Amount of training data in units of D; None if unknown."""
        if self.num_examples is None:
            return None
        return round(self.num_examples * self.tokens_per_example)

    @property
    def notes(self) -> tuple[str, ...]:
        """What is done to the user's data, and what is held out of them, as lines for the user."""
        whole = getattr(self.train, "dataset", self.train)
        held_out = in_words(self.held_out_by, length_of(whole))
        return (*self.read_as, held_out) if held_out else self.read_as

    @property
    def costed(self) -> list[tuple[Any, float]]:
        """Batches to count FLOPs on, each with the units of D that it stands for."""
        if self.lengths is None:
            return [(self.sample, count_examples(self.sample) * self.tokens_per_example)]
        return self.lengths.costed(self.batch_size or _COSTED_EXAMPLES)

    def padding_at(self, batch_size: int) -> float:
        """FLOPs of an example in batches of this size, relative to those of `costed`."""
        if self.lengths is None:
            return 1.0
        reference = self.lengths.elements(self.batch_size or _COSTED_EXAMPLES)
        return self.lengths.elements(batch_size) / reference

    def training_steps(
        self,
        batch_size: int,
        steps: int,
        seed: int,
        *,
        start: int = 0,
        parts: Parts | None = None,
        device: torch.device | None = None,
    ) -> Iterator[list[Any]]:
        """Batches of the steps from `start` to `steps`, each a list with one batch for every part.

        Which examples a step holds is a function of `seed` and the step alone.

        Args:
            batch_size: Examples a step.
            steps: Steps of the whole trial.
            seed: Seed of the order, and of random numbers that reading draws.
            start: Number of steps already done.
            parts: The parts of a step's examples to return; by default one part with all.
            device: Device that the batches are for. Data that fit into its memory and are seen at
                least once are copied there once.
        """
        parts = [slice(None)] if parts is None else parts
        reading_seed = seed if self.draws else None
        if is_iterable(self.train):
            return self._streamed_steps(batch_size, steps, seed, reading_seed, start, parts)
        # The sampler yields the indices of a whole step; the dataset collates them by parts. So the
        # loader itself must not batch.
        order = ShuffledSteps(len(self.train), batch_size, range(start, steps), seed)
        data = DrawnSteps(self.train, self.collate, parts, reading_seed)
        seen_once = steps * batch_size >= len(self.train)
        if device is not None and seen_once and (held := self._held_on(device, data.read)):
            return held.steps(order, parts)
        options = {"batch_size": None, "sampler": order}
        return iter(self._loader(data, _identity, self.num_workers, options, seed))

    def _streamed_steps(
        self,
        batch_size: int,
        steps: int,
        seed: int,
        reading_seed: int | None,
        start: int,
        parts: Parts,
    ) -> Iterator[list[Any]]:
        # Each of several workers sees another part of a stream, and "every 20th" would be another
        # example in each. A stream that is split therefore has one reader.
        split = isinstance(self.train, Strided)
        workers = min(1, self.num_workers) if split else self.num_workers
        # Workers take turns at yielding steps: each skips as many, the remainder is dropped here.
        remainder = start % max(1, workers)
        data = StreamedSteps(
            self.train,
            self.collate,
            batch_size,
            parts,
            skip=start - remainder,
            seed=reading_seed,
            expected=self.num_examples,
        )
        loader = self._loader(data, _identity, workers, {"batch_size": None}, seed)
        return islice(loader, remainder, remainder + steps - start)

    def _held_on(self, device: torch.device, read: Read) -> Held | None:
        """The training data on a device; None if they must be read batch by batch."""
        if device not in self._held:
            # Copied data skip collate function and workers, so both must be the defaults.
            fits = room_for(device, self.sharers * len(self.train) * bytes_of(self.sample))
            plain = self.collate is default_collate and not self.draws and not self.num_workers
            plain = plain and self.lengths is None  # labels are counted on the host
            self._held[device] = hold(read, len(self.train), device) if fits and plain else None
        return self._held[device]

    def held_out_batches(self, batch_size: int, max_examples: int) -> DataLoader[Any]:
        """A loader over at most `max_examples` held-out examples, the same ones every time."""
        data: Any
        if is_iterable(self.held_out):
            # With several readers "the first examples" would be others; this process reads them.
            data = _Head(self.held_out, max_examples)
            workers = 0
        else:
            chosen = spread(len(self.held_out), max_examples)
            data = Subset(self.held_out, chosen)
            workers = self.num_workers
        return self._loader(data, self.held_out_collate, workers, {"batch_size": batch_size}, 0)

    def held_out_sample(self) -> Any:
        """One collated batch of (up to) two held-out examples."""
        return self.held_out_collate(first_examples(self.held_out, 2))

    def _loader(
        self,
        dataset: Any,
        collate: Callable[[list[Any]], Any],
        workers: int,
        options: dict[str, Any],
        seed: int,
    ) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            generator=torch.Generator().manual_seed(seed),  # seeds the workers
            collate_fn=collate,
            num_workers=workers,
            worker_init_fn=self.worker_init_fn,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            **options,
        )


class _Head(IterableDataset[Any]):
    """The first examples of a stream."""

    def __init__(self, dataset: Iterable[Any], count: int) -> None:
        self.dataset = dataset
        self.count = count

    def __iter__(self) -> Iterator[Any]:
        return islice(self.dataset, self.count)


def _identity(batch: Any) -> Any:
    return batch


def is_iterable(dataset: Any) -> bool:
    """True for a stream, False for a map-style dataset."""
    if isinstance(dataset, IterableDataset):
        return True
    return not hasattr(dataset, "__getitem__") and hasattr(dataset, "__iter__")


def count_examples(batch: Any) -> int:
    """Examples in a batch: the first length of its first tensor."""
    return len(tensors_of(batch)[0])


def tensors_behind(dataset: Any) -> list[torch.Tensor]:
    """The tensors of a `TensorDataset`, restricted to a subset; empty for other data."""
    if isinstance(dataset, Subset):
        indices = torch.as_tensor(dataset.indices)
        return [tensor[indices] for tensor in tensors_behind(dataset.dataset)]
    return list(dataset.tensors) if type(dataset) is TensorDataset else []


def bytes_of(batch: Any) -> float:
    """Bytes of one example in a batch."""
    return sum(leaf.nbytes for leaf in tensors_of(batch)) / count_examples(batch)


def length_of(dataset: Any) -> int | None:
    """Number of examples in a dataset; None if unknown."""
    if isinstance(dataset, Strided):
        size = length_of(dataset.dataset)
        return None if size is None else size - share(size)
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):
        return None


def length_by_reading(dataset: Any) -> int | None:
    """Number of examples in a dataset; short streams without a length are read to count them."""
    length = length_of(dataset)
    if length is not None or not is_iterable(dataset):
        return length
    count = sum(1 for _ in islice(dataset, _MAX_READ))
    return count if count < _MAX_READ else None


def first_examples(dataset: Any, count: int) -> list[Any]:
    """Up to `count` examples from the start of a dataset."""
    if is_iterable(dataset):
        return list(islice(dataset, count))
    return [dataset[i] for i in range(min(count, len(dataset)))]


def spread(count: int, most: int) -> list[int]:
    """Up to `most` indices spread evenly over `count`."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def unit_of(batch: Any, lengths: Lengths | None = None) -> tuple[str, int]:
    """Unit of D and units per example: tokens if a target holds several integer labels."""
    target = targets_of(batch)
    if not isinstance(target, torch.Tensor) or target.is_floating_point() or target.ndim < 2:
        return "examples", 1
    labels = target[0].numel()  # of one example, which may hold several sequences
    return ("tokens", labels) if labels > 1 or lengths is not None else ("examples", 1)
