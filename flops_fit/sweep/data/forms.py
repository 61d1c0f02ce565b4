"""Forms of data that cannot be taken as they are, and what to do about each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import IterableDataset

ONCE = (
    "an iterator or generator can be read only once, and each trial reads the data from the start; "
    "pass the generator function itself, not called (it is called again for each pass), or an "
    "IterableDataset whose __iter__ starts over"
)
READY_BATCHES = (
    "this DataLoader has batch_size=None, so its dataset yields ready-made batches; flops-fit "
    "forms the batches itself, since their size depends on the budget. Let the dataset yield "
    "single examples, and pass it alone or in a DataLoader with a batch_size"
)
_AS_TENSORS = (
    'return tensors: `dataset.with_format("torch")` for a Hugging Face dataset, '
    "`torch.tensor(...)` in __getitem__ for your own"
)
_COLLATE_FN = "pass a DataLoader whose collate_fn makes tensors of a list of examples"


class CalledForEachPass(IterableDataset[Any]):
    """A stream from a function that returns a new iterator at each call, as generators do."""

    def __init__(self, function: Callable[[], Iterator[Any]]) -> None:
        self.function = function

    def __iter__(self) -> Iterator[Any]:
        return self.function()


def opened_by(factory: Callable[[], Any]) -> Any:
    """What a function without arguments returns; if that is an iterator, a stream of new ones."""
    data = factory()
    if not hasattr(data, "__next__") or isinstance(data, IterableDataset):
        return data
    return data if factory() is data else CalledForEachPass(factory)


def with_tensors(data: Any) -> tuple[Any, str]:
    """A data set of Hugging Face's `datasets` whose examples hold lists, with tensors instead.

    What is neither a number nor a list of numbers (the text beside its tokens) is left out.

    Args:
        data: Any data.

    Returns:
        The data, and a line for the user; the data as they are and "" if there is nothing to do.
    """
    example = _hub_example(data)
    if not any(_is_numeric_list(value) for value in example.values()):
        return data, ""
    kept = [name for name, value in example.items() if _is_numeric_list(value) or _is_number(value)]
    others = [repr(name) for name in example if name not in kept]
    left_out = f"; left out, because they hold no numbers: {', '.join(others)}" if others else ""
    chosen = data.select_columns(kept) if others else data
    return chosen.with_format("torch"), (
        'lists of numbers are read as tensors, as by with_format("torch") of the Hugging Face '
        f"dataset{left_out}"
    )


def _hub_example(data: Any) -> Mapping[str, Any]:
    """The first example of a data set of `datasets`; empty for other data, and with a transform."""
    if not (hasattr(data, "with_format") and hasattr(data, "select_columns")):
        return {}
    if (getattr(data, "format", None) or {}).get("type") == "custom":
        return {}
    try:
        # One that can be iterated alone has `__getitem__` too, which takes the name of a column.
        first = data[0] if hasattr(data, "__len__") else next(iter(data))
    except Exception:  # reported when examples are read
        return {}
    return first if isinstance(first, Mapping) else {}


def splits_advice(data: Any) -> str:
    """What to do about a mapping of data sets, as `datasets.load_dataset` returns it."""
    if not isinstance(data, Mapping) or not data:
        return ""
    if not all(hasattr(part, "with_format") for part in data.values()):
        return ""
    names = ", ".join(repr(str(name)) for name in data)
    return f"; pass one of its splits ({names}) as dataset, and another as eval_dataset"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float | np.number)


def _is_numeric_list(value: Any) -> bool:
    """Whether a value is a list of numbers, or of lists of them."""
    inner = value
    while isinstance(inner, list) and inner:
        inner = inner[0]
    return isinstance(value, list) and _is_number(inner)


def list_fault(example: Any) -> str:
    """An error if an example holds lists of numbers, which the default collation transposes."""
    for name, value in _fields(example):
        if _is_numeric_list(value):
            return (
                f"{name} is a Python list of numbers, of which a batch would hold one tensor for "
                f"each position; {_AS_TENSORS}"
            )
    return ""


def collate_advice(examples: list[Any]) -> str:
    """What to do about examples that the default collation cannot stack; "" if not known."""
    for name, value in _fields(examples[0]):
        if value is None:
            return f"; {name} is None: return a tensor or a number"
        if isinstance(value, str | bytes):
            return f"; {name} is text: {tokenise()}"
        if hasattr(value, "convert") and hasattr(value, "getbands"):
            return (
                f"; {name} is a PIL image: make a tensor of it in the dataset, as with "
                "torchvision.transforms.ToTensor(), or, for tensors of bytes of a Hugging Face "
                'dataset, with_format("torch")'
            )
        if not isinstance(value, torch.Tensor | np.ndarray | np.number | int | float | list):
            return f"; {name} is a {type(value).__name__}: {_AS_TENSORS}"
    return (
        "; the examples differ in size: pad or cut them to one length in the dataset, or "
        f"{_COLLATE_FN} (with the labels of padding set to -100)"
    )


def form_advice(batch: Any) -> str:
    """What to do about a batch that is neither a pair nor a mapping of tensors."""
    if isinstance(batch, torch.Tensor) or (isinstance(batch, tuple | list) and len(batch) == 1):
        return (
            "; return (inputs, targets) for each example, for language models (row[:-1], row[1:])"
        )
    if texts := text_fields(batch):
        return f"; it is text: {tokenise(*texts)}"
    leaves = batch
    while isinstance(leaves, tuple | list) and leaves:  # text is collated as a list of it
        leaves = leaves[0]
    if isinstance(leaves, str):
        return f"; it is text: {tokenise()}"
    if isinstance(batch, tuple | list) and len(batch) > 2:
        return (
            "; group the inputs, as ((a, b), targets), or return a dict, whose keys are passed to "
            "the model by name"
        )
    return ""


def text_fields(batch: Any) -> list[str]:
    """The names under which a batch holds text."""
    if not isinstance(batch, Mapping):
        return []
    return [
        str(name)
        for name, values in batch.items()
        if isinstance(values, tuple | list) and values and isinstance(values[0], str)
    ]


def tokenise(column: str = "text", *_: str) -> str:
    """What to do about text.

    Args:
        column: The column that holds it; the first of several.
    """
    return (
        "tokenise it first. For a Hugging Face dataset: dataset.map(lambda "
        f"row: tokenizer(row[{column!r}], truncation=True, padding='max_length', max_length=256), "
        f"remove_columns=[{column!r}]), with a tokenizer of transformers; for data of your own, "
        "return torch.tensor(ids) from __getitem__"
    )


def _fields(example: Any) -> list[tuple[str, Any]]:
    """The parts of an example and what they are called in messages."""
    if isinstance(example, Mapping):
        return [(repr(key), value) for key, value in example.items()]
    if isinstance(example, tuple | list) and len(example) == 2:
        return [("the input", example[0]), ("the target", example[1])]
    if isinstance(example, tuple | list):
        return [(f"part {number}", value) for number, value in enumerate(example)]
    return [("an example", example)]
