"""A look at the user's examples: what they hold, and what is amiss with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flops_fit.errors import in_short
from flops_fit.sweep.data.labels import IGNORED, LabelRule
from flops_fit.sweep.data.lengths import FIRST_LOOK, MOST_READ, Lengths, NoLabelsError, lengths_of
from flops_fit.sweep.data.source import first_examples, is_iterable, spread, tensors_behind

_MOST_STREAMED = 256  # examples of a stream that are read to measure lengths
_MOST_NAMED = 5


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
        odd = _rows_without_labels(data)
        first = sorted({*spread(len(data), look), *odd})
        more = sorted({*spread(len(data), MOST_READ), *odd})
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


def _rows_without_labels(data: Any) -> list[int]:
    """An index of a row without any label, if data in memory have one that is easily found."""
    tensors = tensors_behind(data)
    if len(tensors) != 2:
        return []
    labels = tensors[1]
    if labels.is_floating_point() or labels.is_complex() or not labels.numel():
        return []
    empty = (labels.reshape(len(labels), -1) == IGNORED).all(1)
    return [int(empty.nonzero()[0])] if bool(empty.any()) else []


def named(indices: Sequence[int]) -> str:
    """`3, 17, 40, ...`."""
    more = ", ..." if len(indices) > _MOST_NAMED else ""
    return ", ".join(map(str, indices[:_MOST_NAMED])) + more
