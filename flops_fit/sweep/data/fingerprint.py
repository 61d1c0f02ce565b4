"""A hash that identifies a dataset in every process, even if it is augmented at random.

It is part of every trial id, a stored format.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

Leaves = list[list[np.ndarray]]


def fingerprint_of(name: str, length: int | None, first: Leaves, second: Leaves) -> str:
    """Hash of a dataset's name, its length and a few examples.

    Args:
        name: Name of the dataset's class.
        length: Number of examples; None if unknown.
        first: A few examples, each as a list of arrays.
        second: The same examples read again. A field that differs between the two readings is
            augmented at random, and only its type counts.
    """
    digest = hashlib.sha256(f"{name} {length};".encode())
    for one, two in zip(_fields(first), _fields(second), strict=False):
        digest.update(repr([str(array.dtype) for array in one]).encode())
        if _alike(one, two):
            for array in one:
                digest.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def varies(first: Leaves, second: Leaves) -> bool:
    """Whether two readings of the same examples differ."""
    fields = zip(_fields(first), _fields(second), strict=False)
    return not all(_alike(one, two) for one, two in fields)


def leaves_of(example: Any) -> list[np.ndarray]:
    """The fields of one example as arrays, in a fixed order."""
    return list(map(_as_array, tree_leaves(_as_dict(example))))


def _fields(examples: Leaves) -> Sequence[tuple[np.ndarray, ...]]:
    """The arrays of each field, over all examples."""
    return list(zip(*examples, strict=False))


def _alike(one: Sequence[np.ndarray], two: Sequence[np.ndarray]) -> bool:
    return all(
        a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in zip(one, two, strict=False)
    )


def _as_dict(example: Any) -> Any:
    return dict(sorted(example.items())) if isinstance(example, Mapping) else example


def _as_array(leaf: Any) -> np.ndarray:
    if isinstance(leaf, torch.Tensor):
        leaf = leaf.detach().cpu()
        # NumPy has no bfloat16.
        return (leaf.float() if leaf.dtype == torch.bfloat16 else leaf).numpy()
    array = np.asarray(leaf)
    # Strings and objects have no plain bytes: their repr counts.
    return array if array.dtype.kind in "biufc" else np.frombuffer(repr(leaf).encode(), np.uint8)
