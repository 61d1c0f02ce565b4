"""The model and the loss tried on batches of the sizes, and with the extremes, that come later.

`dry_run` tries two examples. Training may pass a single one at a time; the last held-out batch may
be a single one; and a label or an input out of range may be in any example.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten_with_path
from torch.utils.data import Subset

from flops_fit.errors import in_short
from flops_fit.records import Size
from flops_fit.runtime import distributed
from flops_fit.runtime.rng import seeded
from flops_fit.sweep.data.batch_order import parts_of
from flops_fit.sweep.data.held_out import Strided
from flops_fit.sweep.data.source import (
    Source,
    bytes_of,
    first_examples,
    is_iterable,
    length_of,
    spread,
    tensors_behind,
)
from flops_fit.sweep.plan.explanation import explained
from flops_fit.sweep.task.model_cost import ModelCost
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.recipe import Recipe

_MOST_READ = 256  # examples of the training data, and of the held-out data, that are looked at
_MOST_OF_STREAM = 64  # or fewer, of a stream
_MOST_BYTES = 2**24  # or fewer, if they are large
_MOST_FLOPS = 1e10  # of a batch that is tried
_NO_LABEL = -100


@seeded(0)
def extreme_faults(task: Task, source: Source, size: Size, flops_per_token: float) -> list[str]:
    """Errors that examples with the lowest and highest values raise, at one size of the model.

    Args:
        task: Model, data and loss, which work on two examples.
        source: The data.
        size: Size of the model.
        flops_per_token: Its training FLOPs, which limit how many examples are tried.
    """
    most = 3 * _affordable(source, flops_per_token)
    model = task.build_quietly(size)
    faults = _extreme_faults("dataset", task, model, source.train, source.collate, source, most)
    held_out = (source.held_out, source.held_out_collate)
    return faults + _extreme_faults("eval_dataset", task, model, *held_out, source, most)


@seeded(0)
def batch_size_faults(
    task: Task, source: Source, recipe: Recipe, rows: Sequence[int], cost: ModelCost
) -> list[str]:
    """An error if a batch as small or as large as one of the sweep raises, at one size.

    Args:
        task: Model, data and loss, which work on two examples.
        source: The data.
        recipe: Its accumulation divides the batches.
        rows: Examples a step of the planned trials.
        cost: The size of the model to try; its FLOPs limit the batches tried.
    """
    most = min(_affordable(source, cost.flops_per_token), _most_read(source, source.train))
    parts = {count for row in rows for count in _part_sizes(row, recipe)}
    model = task.build_quietly(cost.size)
    faults: list[str] = []
    for count in sorted({min(parts), min(max(parts), most)} - {2}):
        what = f"recipe: a training batch of {_examples(count)} (of {_listed(rows)} a step)"
        some = first_examples(source.train, count)
        faults += _raised(what, task, model.train(), some, source.collate)
    for count in _last_sizes(source, recipe, rows) & {1}:
        what = f"eval_dataset: the last held-out batch, of {_examples(count)},"
        some = first_examples(source.held_out, count)
        faults += _raised(what, task, model.eval(), some, source.held_out_collate)
    return faults[:1]


def _affordable(source: Source, flops_per_token: float) -> int:
    """Examples whose training step costs at most `_MOST_FLOPS`."""
    return max(2, int(_MOST_FLOPS / (flops_per_token * source.tokens_per_example)))


def _most_read(source: Source, data: Any) -> int:
    by_size = int(max(16, min(_MOST_READ, _MOST_BYTES / bytes_of(source.sample))))
    return min(by_size, _MOST_OF_STREAM) if is_iterable(data) else by_size


def _examples(count: int) -> str:
    return "1 example" if count == 1 else f"{count} examples"


def _listed(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _micro_batch(row: int, recipe: Recipe) -> int:
    return -(-row // (distributed.count() * recipe.accumulate))


def _part_sizes(row: int, recipe: Recipe) -> set[int]:
    """Examples of the micro-batches of a step, over all ranks."""
    ranks = distributed.count()
    parts = [
        part
        for rank in range(ranks)
        for part in parts_of(row, rank=rank, ranks=ranks, most=_micro_batch(row, recipe))
    ]
    return {part.stop - part.start for part in parts}


def _last_sizes(source: Source, recipe: Recipe, rows: Sequence[int]) -> set[int]:
    """Examples of the last held-out batch; data of unknown length are taken to be long."""
    length = length_of(source.held_out)
    count = recipe.eval_examples if length is None else min(length, recipe.eval_examples)
    sizes = {_micro_batch(row, recipe) for row in rows}
    return {count % size or size for size in sizes}


def _raised(
    what: str, task: Task, model: nn.Module, examples: list[Any], collate: Any
) -> list[str]:
    """An error if model and loss raise on these examples."""
    batch = None
    try:
        batch = collate(examples)
        with torch.no_grad():
            task.loss(model, batch)
    except Exception as error:
        reason = in_short(error) if batch is None else explained(error, task, model, batch)
        return [f"{what} raised {reason}"]
    return []


def _extreme_faults(
    name: str, task: Task, model: nn.Module, data: Any, collate: Any, source: Source, most: int
) -> list[str]:
    """An error if examples with extreme values raise, or have a loss that is not finite."""
    if isinstance(data, Strided) and data.held_out:  # twenty times as many would be read
        return []
    try:
        places, examples = _extremes(data, collate, source)
    except Exception as error:
        return [f"{name}: reading and collating examples raised {in_short(error)}"]
    if not examples:
        return []
    places, examples = places[:most], examples[:most]
    which = f"{name}: the examples with the lowest and highest values ({_shown(data, places)})"
    if faults := _raised(which, task, model.eval(), examples, collate):
        return faults
    with torch.no_grad():
        loss = float(task.loss(model, collate(examples)))
    if math.isfinite(loss):
        return []
    return [f"{which} have a loss of {loss}; look for NaN and infinite values in them"]


def _shown(data: Any, places: Sequence[int]) -> str:
    """The places as indices of the user's dataset, which `data` is a part of."""
    shown = [data.indices[place] for place in places] if isinstance(data, Subset) else places
    return "indices " + ", ".join(map(str, shown))


def _extremes(data: Any, collate: Any, source: Source) -> tuple[list[int], list[Any]]:
    """Indices and examples with the lowest and highest numbers, of those that are looked at."""
    if tensors := tensors_behind(data):
        places = _two({place for tensor in tensors for place in _places(tensor)}, len(data))
        return places, [data[place] for place in places]
    most = _most_read(source, data)
    if is_iterable(data):
        read = first_examples(data, most)
        indices = list(range(len(read)))
    else:
        indices = spread(len(data), most)
        read = [data[index] for index in indices]
    collate(read)  # raises if their lengths differ
    chosen: set[int] = set()
    for column in _columns(read):
        chosen.update(_places(column))
    places = _two(chosen, len(read))
    return [indices[place] for place in places], [read[place] for place in places]


def _two(places: set[int], count: int) -> list[int]:
    """The places in order, of which there are two at least: batches of one are tried apart."""
    return sorted(places | set(range(min(2, count)))) if len(places) == 1 else sorted(places)


def _columns(examples: list[Any]) -> Iterator[torch.Tensor]:
    """For each number or tensor of an example, its lowest and highest value in all examples."""
    found: dict[str, list[list[float]]] = {}
    for example in examples:
        for path, leaf in tree_flatten_with_path(_plain(example))[0]:
            value = _as_numbers(leaf)
            if value is not None:
                found.setdefault(str(path), []).append([_low(value), float(value.max())])
    for bounds in found.values():
        if len(bounds) == len(examples):
            yield torch.tensor(bounds, dtype=torch.float64)


def _plain(example: Any) -> Any:
    return dict(example) if hasattr(example, "keys") else example


def _as_numbers(leaf: Any) -> torch.Tensor | None:
    try:
        value = torch.as_tensor(leaf)
    except Exception:  # text, images
        return None
    return None if value.is_complex() or not value.numel() else value.double()


def _low(value: torch.Tensor) -> float:
    counted = value[value != _NO_LABEL]
    return float(counted.min()) if counted.numel() else 0.0


def _places(column: torch.Tensor) -> set[int]:
    """Where the lowest and highest values of a column are; NaN counts as both."""
    if column.is_complex() or column.ndim == 0 or not column.numel():
        return set()
    flat = column.reshape(len(column), -1)
    lows = flat if flat.is_floating_point() else flat.to(torch.int64)
    lows = torch.where(lows == _NO_LABEL, lows.max(), lows).amin(1)
    return {int(lows.argmin()), int(flat.amax(1).argmax())}
