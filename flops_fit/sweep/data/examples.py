"""A look at the user's examples: what they hold, and what is amiss with them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch.utils.data import IterableDataset, default_collate

from flops_fit.errors import in_short
from flops_fit.sweep.data.labels import LabelRule
from flops_fit.sweep.data.lengths import FIRST_LOOK, MOST_READ, Lengths, NoLabelsError, lengths_of
from flops_fit.sweep.data.source import first_examples, is_iterable, spread

_MOST_STREAMED = 256  # examples of a stream that are read to measure lengths
_MOST_NAMED = 5


class Recalled(IterableDataset[Any]):
    """The examples of a generator function, which is called anew for each pass."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function

    def __iter__(self) -> Iterator[Any]:
        return iter(self.function())


def recalled(factory: Callable[[], Any]) -> Any:
    """What a factory returns; a stream that calls it for each pass if it makes generators."""
    data = factory()
    return Recalled(factory) if inspect.isgenerator(data) else data


def labels_held(
    name: str,
    data: Any,
    collate: Callable[[list[Any]], Any],
    problems: list[str],
    rule: LabelRule | None = None,
) -> Lengths | None:
    """The lengths of some data; errors are added to `problems`.

    Args:
        name: Of the argument, for messages.
        data: Map-style or iterable.
        collate: From a list of examples to a batch.
        problems: Where errors go.
        rule: Which labels count, if other data of the sweep have shown it.
    """
    first: Sequence[int]
    more: Sequence[int]
    look = FIRST_LOOK // 4 if rule else FIRST_LOOK  # then it is only seen whether there are labels
    if is_iterable(data):
        pool = first_examples(data, look)
        first = range(len(pool))
        more = first if len(pool) < look else range(_MOST_STREAMED)

        def read(indices: Sequence[int]) -> list[Any]:
            nonlocal pool
            if len(pool) <= max(indices):
                pool = first_examples(data, _MOST_STREAMED)
            return [pool[index % len(pool)] for index in indices]

    else:
        first, more = spread(len(data), look), spread(len(data), MOST_READ)
        read_many = getattr(data, "__getitems__", None)

        def read(indices: Sequence[int]) -> list[Any]:
            return read_many(list(indices)) if read_many else [data[index] for index in indices]

    try:
        return lengths_of(read, first, more, collate, rule)
    except NoLabelsError as error:
        problems.append(f"{name}: {error}")
    except Exception as error:
        problems.append(
            f"{name}: collating examples from all over the data raised {in_short(error)}; if they "
            "differ in length, pass a DataLoader with a collate_fn that pads them"
        )
    return None


def row_faults(dataset: Any, collate: Callable[[list[Any]], Any]) -> str:
    """Advice to append where examples hold Python lists or other values that are not collated."""
    if collate is not default_collate:
        return ""
    try:
        (example,) = first_examples(dataset, 1)
    except Exception:
        return ""
    fields = example.items() if isinstance(example, Mapping) else enumerate(_as_tuple(example))
    lists = [repr(key) for key, value in fields if isinstance(value, list)]
    if lists:
        return (
            f"; the rows hold Python lists ({', '.join(lists)}): make them tensors, for a dataset "
            "of the Hugging Face hub with dataset.with_format('torch'), and if they differ in "
            "length pass a DataLoader with a collate_fn that pads them"
        )
    return ""


def _as_tuple(example: Any) -> tuple[Any, ...]:
    return tuple(example) if isinstance(example, tuple | list) else (example,)


def named(indices: Sequence[int]) -> str:
    """`3, 17, 40, ...`."""
    more = ", ..." if len(indices) > _MOST_NAMED else ""
    return ", ".join(map(str, indices[:_MOST_NAMED])) + more
