"""The user's data, opened: an endless training stream and a fixed held-out share.

Whatever was passed (map-style dataset, iterable dataset, `DataLoader`, or a factory of one) becomes
a `Source`. Batches are `(inputs, targets)` or a mapping; nothing here assumes text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
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

from flops_fit.errors import ArgumentError
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
        collate: From a list of examples to a batch.
        num_workers: The user's `DataLoader`'s worker processes.
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
    num_workers: int

    @property
    def num_tokens(self) -> int | None:
        """Training data in units of D; None where it cannot be known."""
        return None if self.num_examples is None else self.num_examples * self.tokens_per_example

    def training_batches(self, batch_size: int, steps: int, seed: int) -> DataLoader[Any]:
        """A loader of at least `steps` full batches; the order is a function of `seed` alone."""
        if is_iterable(self.train):
            return self._loader(_Endless(self.train), batch_size=batch_size, drop_last=True)
        order = ShuffledBatches(len(self.train), batch_size, steps, seed)
        return self._loader(self.train, batch_sampler=order)

    def held_out_batches(self, batch_size: int, max_examples: int) -> DataLoader[Any]:
        """A loader over the same held-out examples every time, at most `max_examples`."""
        if is_iterable(self.held_out):
            # One process, so that "the first max_examples" means the same everywhere.
            head = _Head(self.held_out, max_examples)
            return DataLoader(head, batch_size=batch_size, collate_fn=self.collate)
        chosen = _spread(len(self.held_out), max_examples)
        return self._loader(Subset(self.held_out, chosen), batch_size=batch_size)

    def _loader(self, dataset: Any, **options: Any) -> DataLoader[Any]:
        workers = self.num_workers
        return DataLoader(
            dataset,
            collate_fn=self.collate,
            num_workers=workers,
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
        for index, example in enumerate(self.dataset):
            if index >= self.count:
                return
            yield example


def is_iterable(dataset: Any) -> bool:
    """True for a stream, False for a map-style dataset."""
    if isinstance(dataset, IterableDataset):
        return True
    return not hasattr(dataset, "__getitem__") and hasattr(dataset, "__iter__")


def open_source(dataset: Any, eval_dataset: Any = None) -> Source:
    """Open, check and split the user's data.

    Raises:
        ArgumentError: Listing every fault found: empty, wrong structure, own sampler, and so on.
    """
    problems: list[str] = []
    train = _open("dataset", dataset, problems)
    held_out = None if eval_dataset is None else _open("eval_dataset", eval_dataset, problems)
    if problems or train is None:
        raise ArgumentError(problems)
    sample = _sample("dataset", train, problems)
    if held_out is not None and not problems:
        _check_alike(sample, _sample("eval_dataset", held_out, problems), problems)
    if problems:
        raise ArgumentError(problems)
    parts = _split(train) if held_out is None else (train.dataset, held_out.dataset)
    unit, tokens = _unit_of(sample)
    size = _length(parts[0])
    return Source(
        train=parts[0],
        held_out=parts[1],
        num_examples=_train_share(size, is_iterable(train.dataset) and held_out is None),
        unit=unit,
        tokens_per_example=tokens,
        sample=sample,
        fingerprint=_fingerprint(train, held_out),
        batch_size=train.batch_size,
        collate=train.collate,
        num_workers=train.num_workers,
    )


def targets_of(batch: Any) -> Any:
    """What the loss compares with: the second of a pair, or a mapping's labels (None if none)."""
    if not isinstance(batch, Mapping):
        return batch[1]
    return next((batch[key] for key in _TARGET_KEYS if key in batch), batch.get("input_ids"))


def count_examples(batch: Any) -> int:
    """Examples in a batch: the first length of its first tensor."""
    return next(len(leaf) for leaf in tree_leaves(batch) if _is_array(leaf) and leaf.ndim)


@dataclass(frozen=True)
class _Opened:
    dataset: Any
    batch_size: int | None
    collate: Callable[[list[Any]], Any]
    num_workers: int


def _open(name: str, data: Any, problems: list[str]) -> _Opened | None:
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
    if isinstance(data, DataLoader):
        return _open_loader(name, data, problems)
    if not is_iterable(data) and not hasattr(data, "__len__"):
        problems.append(
            f"{name}: {_name(data)} has __getitem__ but no __len__; give it one, or make it an "
            "IterableDataset"
        )
        return None
    return _Opened(data, None, default_collate, 0)


def _open_loader(name: str, loader: DataLoader[Any], problems: list[str]) -> _Opened | None:
    plain_order = isinstance(loader.sampler, RandomSampler | SequentialSampler)
    plain_order = plain_order and type(loader.batch_sampler) is BatchSampler
    if loader.batch_size is None or not (plain_order or is_iterable(loader.dataset)):
        problems.append(
            f"{name}: this DataLoader draws batches by a sampler of its own; flops-fit draws the "
            "order itself, from each trial's seed. Pass the dataset, or a DataLoader with "
            "batch_size and shuffle only"
        )
        return None
    return _Opened(loader.dataset, loader.batch_size, loader.collate_fn, loader.num_workers)


def _looks_like_data(data: Any) -> bool:
    return not isinstance(data, str | bytes | Mapping | type) and (
        hasattr(data, "__getitem__") or hasattr(data, "__iter__")
    )


def _length(dataset: Any) -> int | None:
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):
        return _length(dataset.dataset) if isinstance(dataset, _Strided) else None


def _train_share(size: int | None, strided: bool) -> int | None:
    return size - -(-size // HELD_OUT_EVERY) if size is not None and strided else size


def _sample(name: str, opened: _Opened, problems: list[str]) -> Any:
    """One collated batch of two examples, its structure checked."""
    try:
        examples = _examples(opened.dataset, 2)
        batch = opened.collate(examples) if examples else None
    except Exception as error:
        problems.append(f"{name}: reading two examples raised {type(error).__name__}: {error}")
        return None
    if not examples:
        problems.append(f"{name}: it is empty")
    elif not _well_formed(batch):
        problems.append(
            f"{name}: expected batches of (inputs, targets) or a mapping of tensors; a batch of "
            f"two examples is {_describe(batch)}"
        )
    return batch


def _well_formed(batch: Any) -> bool:
    pair = isinstance(batch, tuple | list) and len(batch) == 2
    leaves = tree_leaves(dict(batch) if isinstance(batch, Mapping) else batch)
    return (pair or isinstance(batch, Mapping)) and any(
        isinstance(leaf, torch.Tensor) and leaf.ndim > 0 for leaf in leaves
    )


def _check_alike(batch: Any, other: Any, problems: list[str]) -> None:
    if not problems and _structure(batch) != _structure(other):
        problems.append(
            f"eval_dataset: its batches are {_describe(other)}, those of the dataset "
            f"{_describe(batch)}; both must have one structure"
        )


def _structure(batch: Any) -> object:
    if isinstance(batch, Mapping):
        return frozenset(batch)
    return len(batch)


def _examples(dataset: Any, count: int) -> list[Any]:
    if is_iterable(dataset):
        return [example for example, _ in zip(dataset, range(count), strict=False)]
    return [dataset[i] for i in range(min(count, len(dataset)))]


def _split(opened: _Opened) -> tuple[Any, Any]:
    """A fixed share set aside: drawn at random from a map-style set, every 20th of a stream."""
    if is_iterable(opened.dataset):
        stream = opened.dataset
        return _Strided(stream, held_out=False), _Strided(stream, held_out=True)
    count = len(opened.dataset)
    if count < 2:
        raise ArgumentError(
            f"dataset: {count} example cannot be split; pass eval_dataset, or more examples"
        )
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0)).tolist()
    held_out = -(-count // HELD_OUT_EVERY)
    return Subset(opened.dataset, sorted(order[held_out:])), Subset(
        opened.dataset, sorted(order[:held_out])
    )


def _spread(count: int, most: int) -> list[int]:
    """Up to `most` indices spread evenly over `count`."""
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(int)).tolist()


def _unit_of(batch: Any) -> tuple[str, int]:
    """Tokens where each target holds several integer labels, else examples."""
    target = targets_of(batch)
    if not isinstance(target, torch.Tensor) or target.is_floating_point() or target.ndim < 2:
        return "examples", 1
    labels = target[0].numel()
    return ("tokens", labels) if labels > 1 else ("examples", 1)


def _fingerprint(train: _Opened, held_out: _Opened | None) -> str:
    digest = hashlib.sha256()
    for opened in (train, held_out):
        if opened is not None:
            digest.update(f"{_name(opened.dataset)} {_length(opened.dataset)};".encode())
            for leaf in _stable_leaves(opened):
                digest.update(leaf)
    return digest.hexdigest()[:16]


def _stable_leaves(opened: _Opened) -> Iterator[bytes]:
    """Bytes of a few examples; shapes alone where random augmentation changes them."""
    first, second = (_seeded_leaves(opened.dataset, seed) for seed in (0, 1))
    for one, two in zip(first, second, strict=False):
        yield repr((str(one.dtype), one.shape)).encode()
        if one.shape == two.shape and np.array_equal(one, two):
            yield np.ascontiguousarray(one).tobytes()


def _seeded_leaves(dataset: Any, seed: int) -> list[np.ndarray]:
    with seeded(seed):
        if is_iterable(dataset):
            examples = _examples(dataset, 4)
        else:
            examples = [dataset[i] for i in _spread(len(dataset), 16)]
    leaves = tree_leaves([dict(e) if isinstance(e, Mapping) else e for e in examples])
    return [_as_array(leaf) for leaf in leaves]


def _as_array(leaf: Any) -> np.ndarray:
    if isinstance(leaf, torch.Tensor):
        leaf = leaf.detach().cpu()
        return (leaf.float() if leaf.dtype == torch.bfloat16 else leaf).numpy()
    array = np.asarray(leaf)
    return array if array.dtype.kind in "biufc" else np.frombuffer(repr(leaf).encode(), np.uint8)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, torch.Tensor | np.ndarray)


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
