"""Opening, checking and splitting the user's data.

A map-style dataset, an iterable dataset, a `DataLoader`, or a function that returns one of these
becomes a `Source`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    default_collate,
)

from flops_fit.errors import ArgumentError, in_short
from flops_fit.runtime.rng import seeded
from flops_fit.sweep.data.examples import labels_held
from flops_fit.sweep.data.fingerprint import Leaves, fingerprint_of, leaves_of, varies
from flops_fit.sweep.data.forms import (
    ONCE,
    READY_BATCHES,
    collate_advice,
    form_advice,
    list_fault,
    opened_by,
    splits_advice,
    with_tensors,
)
from flops_fit.sweep.data.held_out import (
    BLOCKS,
    OWN_DATA,
    STRIDED,
    Rule,
    Strided,
    split_indices,
)
from flops_fit.sweep.data.source import (
    Source,
    first_examples,
    is_iterable,
    length_by_reading,
    length_of,
    spread,
    tensors_of,
    unit_of,
)
from flops_fit.warn import warn_user


@seeded(0)  # reading may draw random numbers: the caller's generators stay as they are
def open_source(dataset: Any, eval_dataset: Any = None, rule: Rule = BLOCKS) -> Source:
    """Open, check and split the user's data.

    Args:
        dataset: A Dataset, a DataLoader, or a function without arguments that returns one.
        eval_dataset: The same for the held-out data; None sets a twentieth of `dataset` aside.
        rule: How that twentieth of a map-style dataset is chosen.

    Raises:
        ArgumentError: Lists every error found: empty, wrong structure, custom sampler, and so on.
    """
    problems: list[str] = []
    train = _open("dataset", dataset, problems)
    held_out = None
    if eval_dataset is not None:
        # An eval_dataset that is no DataLoader is collated as the dataset's DataLoader does it.
        collate = train.collate if train else default_collate
        held_out = _open("eval_dataset", eval_dataset, problems, collate)
    sample = _sample("dataset", train, problems) if train else None
    eval_sample = _sample("eval_dataset", held_out, problems) if held_out else None
    if sample is not None and eval_sample is not None:
        if _structure(sample) != _structure(eval_sample):
            problems.append(
                f"eval_dataset: its batches are {_describe(eval_sample)}, those of the dataset "
                f"{_describe(sample)}; both must have the same structure"
            )
    if problems or train is None:
        raise ArgumentError(problems)
    if held_out is None:
        train_data, held_out_data = _split(train.dataset, rule)
        held_out_by = STRIDED if is_iterable(train.dataset) else rule
    else:
        train_data, held_out_data = train.dataset, held_out.dataset
        held_out_by = OWN_DATA
    collate_held_out = held_out.collate if held_out else train.collate
    lengths = labels_held("dataset", train_data, train.collate, problems)
    label_rule = lengths.rule if lengths else None
    name = "eval_dataset" if held_out else "held-out share of the dataset"
    held_out_lengths = labels_held(name, held_out_data, collate_held_out, problems, label_rule)
    if problems:
        raise ArgumentError(problems)
    unit, tokens = unit_of(sample, lengths)
    return Source(
        train=train_data,
        held_out=held_out_data,
        num_examples=length_by_reading(train_data),
        unit=unit,
        sample_tokens=tokens,
        sample=sample,
        fingerprint="+".join(_fingerprint(part.dataset) for part in (train, held_out) if part),
        batch_size=train.batch_size,
        collate=train.collate,
        held_out_collate=collate_held_out,
        num_workers=train.num_workers,
        worker_init_fn=train.worker_init_fn,
        draws=_draws_at_random(train),
        lengths=lengths,
        held_out_lengths=held_out_lengths,
        held_out_by=held_out_by,
        read_as=tuple(part.note for part in (train, held_out) if part and part.note),
    )


@dataclass(frozen=True)
class _Opened:
    """A dataset, and how its `DataLoader` reads it; see `Source` for the fields.

    `note` says what was done to it, and may be empty.
    """

    dataset: Any
    collate: Callable[[list[Any]], Any]
    batch_size: int | None = None
    num_workers: int = 0
    worker_init_fn: Callable[[int], None] | None = None
    note: str = ""


def _open(
    name: str,
    data: Any,
    problems: list[str],
    collate: Callable[[list[Any]], Any] = default_collate,
) -> _Opened | None:
    """Call a factory, unpack a loader; None if there are errors, which are added to `problems`."""
    if callable(data) and not _looks_like_data(data):
        try:
            data = opened_by(data)
        except Exception as error:
            problems.append(f"{name}: calling the factory raised {in_short(error)}")
            return None
    if hasattr(data, "__next__"):
        problems.append(f"{name}: {ONCE}")
        return None
    if not _looks_like_data(data):
        problems.append(
            f"{name}: expected a map-style Dataset, an IterableDataset, a DataLoader, or a "
            f"function without arguments that returns one; got {_name(data)}{splits_advice(data)}"
        )
        return None
    opened = _Opened(data, collate)
    if isinstance(data, DataLoader):
        if data.batch_size is None and data.batch_sampler is None:
            problems.append(f"{name}: {READY_BATCHES}")
            return None
        if not _in_plain_order(data):
            problems.append(
                f"{name}: this DataLoader has a custom sampler or batch_sampler; flops-fit "
                "draws the order itself, from each trial's seed, in batches of equally many "
                "examples. Pass the dataset, or a DataLoader with batch_size and shuffle only"
            )
            return None
        opened = _Opened(
            data.dataset, data.collate_fn, data.batch_size, data.num_workers, data.worker_init_fn
        )
    if opened.collate is default_collate:
        tensors, note = with_tensors(opened.dataset)
        opened = replace(opened, dataset=tensors, note=note and f"{name}: {note}")
    fault = _unreadable(opened.dataset)
    if fault:
        problems.append(f"{name}: {_name(opened.dataset)} {fault}")
        return None
    return opened


def _has_batch_sampler(loader: DataLoader[Any]) -> bool:
    return loader.batch_sampler is not None


def _in_plain_order(loader: DataLoader[Any]) -> bool:
    """Whether a loader draws batches as `batch_size` and `shuffle` alone would."""
    if loader.batch_size is None:  # the loader has a batch sampler
        return False
    in_order = isinstance(loader.sampler, RandomSampler | SequentialSampler)
    return is_iterable(loader.dataset) or (in_order and type(loader.batch_sampler) is BatchSampler)


def _unreadable(dataset: Any) -> str:
    """Why a dataset cannot be read repeatedly; empty if it can."""
    if not is_iterable(dataset):
        sized = hasattr(dataset, "__len__")
        return "" if sized else "has no __len__; give it one, or make it an IterableDataset"
    if not _single_use(dataset):
        return ""
    return (
        "can be read only once; make its __iter__ start over, or pass the generator function "
        "itself, which is called anew for each pass"
    )


def _single_use(dataset: Any) -> bool:
    """Whether a stream returns the same iterator every time."""
    if hasattr(dataset, "__next__") and not isinstance(dataset, IterableDataset):
        return True
    try:
        return iter(dataset) is iter(dataset)
    except Exception:  # reported when examples are read
        return False


def _looks_like_data(data: Any) -> bool:
    """Whether data can be read as they are, though they may be callable too."""
    return not isinstance(data, str | bytes | Mapping | type) and (
        hasattr(data, "__getitem__") or hasattr(data, "__iter__")
    )


def _sample(name: str, opened: _Opened, problems: list[str]) -> Any:
    """One collated batch of two examples; None if there are errors, added to `problems`."""
    try:
        examples = first_examples(opened.dataset, 2)
    except Exception as error:
        problems.append(f"{name}: reading two examples raised {in_short(error)}")
        return None
    if not examples:
        problems.append(f"{name}: it is empty")
        return None
    by_default = opened.collate is default_collate
    try:
        # More than two: of examples that differ in length the first may be alike.
        opened.collate(_a_few(opened.dataset))
        batch = opened.collate(examples)
    except Exception as error:
        advice = collate_advice(examples) if by_default else ""
        problems.append(f"{name}: collating examples raised {in_short(error)}{advice}")
        return None
    if by_default and (fault := list_fault(examples[0])):
        problems.append(f"{name}: {fault}")
        return None
    if not _well_formed(batch):
        problems.append(
            f"{name}: expected batches of (inputs, targets) or a mapping of tensors; a batch of "
            f"two examples is {_describe(batch)}{form_advice(batch)}"
        )
        return None
    return batch


def _well_formed(batch: Any) -> bool:
    pair = isinstance(batch, tuple | list) and len(batch) == 2
    return (pair or isinstance(batch, Mapping)) and bool(tensors_of(batch))


def _structure(batch: Any) -> object:
    """The keys of a mapping, or the length of a pair."""
    return frozenset(batch) if isinstance(batch, Mapping) else len(batch)


def _split(dataset: Any, rule: Rule) -> tuple[Any, Any]:
    """Set data aside: a twentieth of a map-style dataset, every 20th example of a stream."""
    count = len(first_examples(dataset, 2))
    if count < 2:
        raise ArgumentError(
            f"dataset: {count} example cannot be split; pass eval_dataset, or more examples"
        )
    if is_iterable(dataset):
        if varies(*_readings(dataset)):
            warn_user(
                "dataset: this stream yields different examples each time it is read, so the "
                "examples held out for evaluation may also be trained on; pass eval_dataset"
            )
        return Strided(dataset, held_out=False), Strided(dataset, held_out=True)
    train, held_out = split_indices(len(dataset), rule)
    return Subset(dataset, train), Subset(dataset, held_out)


def _fingerprint(dataset: Any) -> str:
    return fingerprint_of(_name(dataset), length_of(dataset), *_readings(dataset))


def _readings(dataset: Any) -> tuple[Leaves, Leaves]:
    """A few examples, read twice under different seeds."""
    return _read(dataset, seed=0), _read(dataset, seed=1)


def _read(dataset: Any, seed: int) -> Leaves:
    with seeded(seed):
        return list(map(leaves_of, _a_few(dataset)))


def _a_few(dataset: Any) -> list[Any]:
    """The first examples of a stream; of a map-style dataset, examples spread over its length."""
    if is_iterable(dataset):
        return first_examples(dataset, 4)
    return [dataset[i] for i in spread(len(dataset), 16)]


def _draws_at_random(opened: _Opened) -> bool:
    """Whether reading or collating the same examples twice gives different results."""
    if varies(*_readings(opened.dataset)):
        return True
    # The examples are the same now; only collating them may differ.
    examples = _a_few(opened.dataset)
    batches = []
    for seed in (0, 1):
        with seeded(seed):
            batches.append([leaves_of(opened.collate(examples))])
    return varies(*batches)


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
