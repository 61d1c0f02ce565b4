"""Training data that fit into an accelerator's memory: copied there once, not batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten
from torch.utils.data import default_collate

from flops_fit.sweep.data.batch_order import Parts

MAX_SHARE = 0.1  # of the free memory: the rest is for the models
_CHUNK = 1024  # examples read at once

Read = Callable[[list[int]], list[Any]]


@dataclass(frozen=True)
class Held:
    """A whole dataset as one batch in the memory of a device.

    Attributes:
        leaves: The tensors of the batch, with one row per example.
        spec: The structure of a batch, of which the tensors are the leaves.
    """

    leaves: list[torch.Tensor]
    spec: TreeSpec

    def steps(self, order: Iterable[tuple[int, list[int]]], parts: Parts) -> Iterator[list[Any]]:
        """The parts of each step, as batches on the device.

        Args:
            order: For each step, its number and the indices of its examples.
            parts: The parts of each step's batch to return.
        """
        for _, indices in order:
            chosen = torch.tensor(indices, device=self.leaves[0].device)
            yield [self.batch(chosen[part]) for part in parts]

    def batch(self, chosen: torch.Tensor) -> Any:
        """The batch of the examples with these indices."""
        return tree_unflatten([leaf[chosen] for leaf in self.leaves], self.spec)


def room_for(device: torch.device, bytes_needed: float) -> bool:
    """Whether data of this size take at most a tenth of the free memory of a CUDA device."""
    if device.type != "cuda":
        return False
    return bytes_needed <= MAX_SHARE * torch.cuda.mem_get_info(device)[0]


def hold(read: Read, num_examples: int, device: torch.device) -> Held | None:
    """Read all examples, collate them as PyTorch does, and move them to a device.

    Returns:
        None if an example holds anything but tensors, or if shapes differ between examples.
    """
    leaves: list[torch.Tensor] = []
    spec = None
    for first in range(0, num_examples, _CHUNK):
        count = min(_CHUNK, num_examples - first)
        rows, layout = tree_flatten(default_collate(read(list(range(first, first + count)))))
        if not all(isinstance(row, torch.Tensor) for row in rows):
            return None
        if spec is None:  # the first chunk determines structure, shapes and types
            spec = layout
            leaves = [row.new_empty((num_examples, *row.shape[1:]), device=device) for row in rows]
        parts = [leaf[first : first + count] for leaf in leaves]
        if layout != spec or any(map(_differ, rows, parts)):
            return None
        for part, row in zip(parts, rows, strict=True):
            part.copy_(row)
    return Held(leaves, spec) if spec is not None else None


def _differ(row: torch.Tensor, other: torch.Tensor) -> bool:
    return (row.shape, row.dtype) != (other.shape, other.dtype)
