"""The user's data, opened: an endless training stream and a fixed held-out share.

Whatever was passed (map-style dataset, iterable dataset, `DataLoader`, or a factory of one) becomes
a `Source`. Batches are `(inputs, targets)` or a mapping; nothing here assumes text.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
    Subset,
    default_collate,
)

from flops_fit.errors import ArgumentError, FlopsFitWarning
from flops_fit.sweep.fingerprint import Leaves, fingerprint_of, leaves_of, varies
from flops_fit.sweep.seeding import seeded

HELD_OUT_EVERY = 20  # one example in twenty is set aside where no eval_dataset is given
_TARGET_KEYS = ("labels", "label", "targets", "target")


@dataclass(frozen=True)
class Source:
    """The user's data, opened and split.

    Attributes:
        train: Map-style or iterable dataset that trials train on.
        held_out: The same for the held-out loss; no example is in both.
        num_examples: Examples in `train`; None where it cannot be known.
        unit: "tokens" where an example's target holds many labels, else "examples".
        tokens_per_example: Labels in one example's target; 1 where the unit is examples.
        sample: One collated batch of (up to) two examples.
        fingerprint: Hash of length, structure and a few examples.
        batch_size: The user's `DataLoader`'s batch size, in examples; None where free.
        collate: From a list of training examples to a batch.
        held_out_collate: The same for held-out examples.
        num_workers: The user's `DataLoader`'s worker processes.
        worker_init_fn: What it calls in each of them first; None for nothing.
    """

    train: Any
    held_out: Any
    num_examples: int | None
    unit: str
    tokens_per_example: int
    sample: Any
    fingerprint: str
    batch_size: int | None
    collate: Callable[[list[Any]], Any]
    held_out_collate: Callable[[list[Any]], Any]
    num_workers: int
    worker_init_fn: Callable[[int], None] | None

    @property
    def num_tokens(self) -> int | None:
        """Training data in units of D; None where it cannot be known."""
        return None if self.num_examples is None else self.num_examples * self.tokens_per_example

    def training_batches(self, batch_size: int, steps: int, seed: int) -> DataLoader[Any]:
        """A loader of at least `steps` full batches; the order is a function of `seed` alone."""
        options: dict[str, Any]
        if is_iterable(self.train):
            data, options = _Endless(self.train), {"batch_size": batch_size, "drop_last": True}
        else:
            order = ShuffledBatches(len(self.train), batch_size, steps, seed)
            data, options = self.train, {"batch_sampler": order}
        # Several workers each see another part of a stream, so "every 20th" would mean another
        # example in each: a stream that is split has one reader.
        workers = min(1, self.num_workers) if _is_split(self.train) else self.num_workers
        return self._loader(data, self.collate, workers, options)

    def held_out_batches(self, batch_size: int, max_examples: int) -> DataLoader[Any]:
        """A loader over the same held-out examples every time, at most `max_examples`."""
        data: Any
        if is_iterable(self.held_out):  # here too "the first" means the same in one reader only
            data, workers = _Head(self.held_out, max_examples), 0
        else:
            chosen = spread(len(self.held_out), max_examples)
            data, workers = Subset(self.held_out, chosen), self.num_workers
        return self._loader(data, self.held_out_collate, workers, {"batch_size": batch_size})

    def _loader(
        self,
        dataset: Any,
        collate: Callable[[list[Any]], Any],
        workers: int,
        options: dict[str, Any],
    ) -> DataLoader[Any]:
        return DataLoader(
            dataset,
            collate_fn=collate,
            num_workers=workers,
            worker_init_fn=self.worker_init_fn,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=workers > 0,
            **options,
        )


class ShuffledBatches(Sampler[list[int]]):
    """Full batches for ever: each pass over the data is a new permutation drawn from the seed.

    A batch may straddle two passes, so that none is ragged and D is met exactly.
    """

    def __init__(self, num_examples: int, batch_size: int, steps: int, seed: int) -> None:
        self.num_examples, self.steps, self.seed = num_examples, steps, seed
        self.batch_size = batch_size
        self.drop_last = True

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed)
        waiting: list[int] = []
        for _ in range(self.steps):
            while len(waiting) < self.batch_size:
                waiting += torch.randperm(self.num_examples, generator=generator).tolist()
            yield waiting[: self.batch_size]
            del waiting[: self.batch_size]


class _Endless(IterableDataset[Any]):
    """An iterable dataset, begun again whenever it ends."""

    def __init__(self, dataset: Iterable[Any]) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[Any]:
        while True:
            empty = True
            for example in self.dataset:
                empty = False
                yield example
            if empty:
                raise ArgumentError("dataset: a pass over the iterable dataset held no example")


class _Strided(IterableDataset[Any]):
    """One example in `HELD_OUT_EVERY` of a stream, or all the others."""

    def __init__(self, dataset: Iterable[Any], *, held_out: bool) -> None:
        self.dataset, self.held_out = dataset, held_out

    def __iter__(self) -> Iterator[Any]:
        for index, example in enumerate(self.dataset):
            if (index % HELD_OUT_EVERY == 0) == self.held_out:
                yield example


class _Head(IterableDataset[Any]):
    """The first examples of a stream."""

    def __init__(self, dataset: Iterable[Any], count: int) -> None:
        self.dataset, self.count = dataset, count

    def __iter__(self) -> Iterator[Any]:
        return islice(self.dataset, self.count)


def is_iterable(dataset: Any) -> bool:
    """True for a stream, False for a map-style dataset."""
    if isinstance(dataset, IterableDataset):
        return True
    return not hasattr(dataset, "__getitem__") and hasattr(dataset, "__iter__")


@seeded(0)
def open_source(dataset: Any, eval_dataset: Any = None) -> Source:
    """Open, check and split the user's data.

    Raises:
        ArgumentError: Listing every fault found: empty, wrong structure, own sampler, and so on.
    """
    problems: list[str] = []
    train = _open("dataset", dataset, problems)
    held_out = None
    if eval_dataset is not None:
        # A bare eval_dataset is collated as the dataset's DataLoader does it.
        collate = train.collate if train else default_collate
        held_out = _open("eval_dataset", eval_dataset, problems, collate)
    sample = _sample("dataset", train, problems) if train else None
    other = _sample("eval_dataset", held_out, problems) if held_out else None
    if other is not None and sample is not None and _structure(sample) != _structure(other):
        problems.append(
            f"eval_dataset: its batches are {_describe(other)}, those of the dataset "
            f"{_describe(sample)}; both must have one structure"
        )
    if problems or train is None:
        raise ArgumentError(problems)
    parts = _split(train.dataset) if held_out is None else (train.dataset, held_out.dataset)
    unit, tokens = _unit_of(sample)
    return Source(
        train=parts[0],
        held_out=parts[1],
        num_examples=_length(parts[0]),
        unit=unit,
        tokens_per_example=tokens,
        sample=sample,
        fingerprint="+".join(_fingerprint(part.dataset) for part in (train, held_out) if part),
        batch_size=train.batch_size,
        collate=train.collate,
        held_out_collate=held_out.collate if held_out else train.collate,
        num_workers=train.num_workers,
        worker_init_fn=train.worker_init_fn,
    )


def targets_of(batch: Any) -> Any:
    """What the loss compares with: the second of a pair, or a mapping's labels (None if none)."""
    if not isinstance(batch, Mapping):
        return batch[1]
    return next((batch[key] for key in _TARGET_KEYS if key in batch), batch.get("input_ids"))


def count_examples(batch: Any) -> int:
    """Examples in a batch: the first length of its first tensor."""
    return next(len(leaf) for leaf in _leaves(batch) if _has_length(leaf))


@dataclass(frozen=True)
class _Opened:
    dataset: Any
    collate: Callable[[list[Any]], Any]
    batch_size: int | None = None
    num_workers: int = 0
    worker_init_fn: Callable[[int], None] | None = None


def _open(
    name: str,
    data: Any,
    problems: list[str],
    collate: Callable[[list[Any]], Any] = default_collate,
) -> _Opened | None:
    """Call a factory, unpack a loader; faults go to `problems`."""
    if callable(data) and not _looks_like_data(data):
        try:
            data = data()
        except Exception as error:
            problems.append(f"{name}: calling the factory raised {type(error).__name__}: {error}")
            return None
    if not _looks_like_data(data):
        problems.append(
            f"{name}: expected a map-style Dataset, an IterableDataset, a DataLoader, or a "
            f"function without arguments that returns one; got {_name(data)}"
        )
        return None
    opened = _Opened(data, collate)
    if isinstance(data, DataLoader):
        if not _draws_plainly(data):
            problems.append(
                f"{name}: this DataLoader draws batches by a sampler of its own; flops-fit draws "
                "the order itself, from each trial's seed. Pass the dataset, or a DataLoader with "
                "batch_size and shuffle only"
            )
            return None
        opened = _Opened(
            data.dataset, data.collate_fn, data.batch_size, data.num_workers, data.worker_init_fn
        )
    fault = _unreadable(opened.dataset)
    if fault:
        problems.append(f"{name}: {_name(opened.dataset)} {fault}")
        return None
    return opened


def _draws_plainly(loader: DataLoader[Any]) -> bool:
    if loader.batch_size is None:
        return False
    in_order = isinstance(loader.sampler, RandomSampler | SequentialSampler)
    return is_iterable(loader.dataset) or (in_order and type(loader.batch_sampler) is BatchSampler)


def _unreadable(dataset: Any) -> str:
    """Why a data set cannot be read again and again; empty if it can."""
    if not is_iterable(dataset):
        sized = hasattr(dataset, "__len__")
        return "" if sized else "has no __len__; give it one, or make it an IterableDataset"
    once = hasattr(dataset, "__next__") and not isinstance(dataset, IterableDataset)
    return "can be read only once; pass an object whose __iter__ begins afresh" if once else ""


def _looks_like_data(data: Any) -> bool:
    return not isinstance(data, str | bytes | Mapping | type) and (
        hasattr(data, "__getitem__") or hasattr(data, "__iter__")
    )


def _length(dataset: Any) -> int | None:
    if isinstance(dataset, _Strided):
        size = _length(dataset.dataset)
        return None if size is None else size - _held_out_share(size)
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):
        return None


def _held_out_share(count: int) -> int:
    return -(-count // HELD_OUT_EVERY)


def _sample(name: str, opened: _Opened, problems: list[str]) -> Any:
    """One collated batch of two examples, its structure checked; None if it is faulty."""
    try:
        examples = _examples(opened.dataset, 2)
        batch = opened.collate(examples) if examples else None
    except Exception as error:
        problems.append(f"{name}: reading two examples raised {type(error).__name__}: {error}")
        return None
    if not examples:
        problems.append(f"{name}: it is empty")
        return None
    if not _well_formed(batch):
        problems.append(
            f"{name}: expected batches of (inputs, targets) or a mapping of tensors; a batch of "
            f"two examples is {_describe(batch)}"
        )
        return None
    return batch


def _well_formed(batch: Any) -> bool:
    pair = isinstance(batch, tuple | list) and len(batch) == 2
    return (pair or isinstance(batch, Mapping)) and any(map(_has_length, _leaves(batch)))


def _structure(batch: Any) -> object:
    return frozenset(batch) if isinstance(batch, Mapping) else len(batch)


def _examples(dataset: Any, count: int) -> list[Any]:
    if is_iterable(dataset):
        return list(islice(dataset, count))
    return [dataset[i] for i in range(min(count, len(dataset)))]


def _split(dataset: Any) -> tuple[Any, Any]:
    """A fixed share set aside: drawn at random from a map-style set, every 20th of a stream."""
    count = len(_examples(dataset, 2))
    if count < 2:
        raise ArgumentError(
            f"dataset: {count} example cannot be split; pass eval_dataset, or more examples"
        )
    if is_iterable(dataset):
        if varies(*_readings(dataset)):
            warnings.warn(
                "dataset: this stream yields other examples each time it is read, so the twentieth "
                "set aside by place may also be trained on; pass eval_dataset",
                FlopsFitWarning,
                stacklevel=2,
            )
        return _Strided(dataset, held_out=False), _Strided(dataset, held_out=True)
    count = len(dataset)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
    held_out = _held_out_share(count)
    train, rest = sorted(order[held_out:]), sorted(order[:held_out])
    return Subset(dataset, train), Subset(dataset, rest)


def _is_split(dataset: Any) -> bool:
    return isinstance(dataset, _Strided)


def spread(count: int, most: int) -> list[int]:
    """Up to `most` indices spread evenly over `count`."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def _unit_of(batch: Any) -> tuple[str, int]:
    """Tokens where each target holds several integer labels, else examples."""
    target = targets_of(batch)
    if not isinstance(target, torch.Tensor) or target.is_floating_point() or target.ndim < 2:
        return "examples", 1
    labels = target[0].numel()
    return ("tokens", labels) if labels > 1 else ("examples", 1)


def _fingerprint(dataset: Any) -> str:
    return fingerprint_of(_name(dataset), _length(dataset), *_readings(dataset))


def _readings(dataset: Any) -> tuple[Leaves, Leaves]:
    """A few examples, read twice under different seeds."""
    return _read(dataset, seed=0), _read(dataset, seed=1)


def _read(dataset: Any, seed: int) -> Leaves:
    with seeded(seed):
        if is_iterable(dataset):
            examples = _examples(dataset, 4)
        else:
            examples = [dataset[i] for i in spread(len(dataset), 16)]
    return list(map(leaves_of, examples))


def _leaves(batch: Any) -> list[Any]:
    return tree_leaves(dict(batch) if isinstance(batch, Mapping) else batch)


def _has_length(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor) and leaf.ndim > 0


def _name(value: Any) -> str:
    kind = value if isinstance(value, type) else type(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def _describe(batch: Any) -> str:
    if isinstance(batch, torch.Tensor):
        return f"a tensor of shape {tuple(batch.shape)}"
    if isinstance(batch, Mapping):
        return "a mapping of " + ", ".join(map(str, batch))
    if isinstance(batch, tuple | list):
        return f"a {type(batch).__name__} of {len(batch)}: " + ", ".join(map(_describe, batch))
    return _name(batch)
