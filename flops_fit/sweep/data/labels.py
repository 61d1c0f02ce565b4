"""Which labels of a batch count: those that a loss is the mean of, and that D counts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils._pytree import tree_leaves

IGNORED = -100  # `ignore_index` of torch's cross-entropy, and the label that collators pad with
_TARGET_KEYS = ("labels", "label", "targets", "target")


@dataclass(frozen=True)
class LabelRule:
    """Which labels count; by default all do.

    Attributes:
        ignored: Labels of this value do not count; None if the values say nothing.
        mask: Key of a mask in mapping batches that is 0 where a label does not count; "" for none.
        skipped: Leading labels of each sequence that do not count: 1 where a loss compares each
            output with the next label.
        per_row: Whether each row counts once, as where targets are not labels.
    """

    ignored: int | None = None
    mask: str = ""
    skipped: int = 0
    per_row: bool = False

    def counted(self, batch: Any) -> torch.Tensor:
        """Whether each label of a batch counts, in the shape of the targets."""
        target = targets_of(batch)
        if self.per_row:
            return torch.ones(len(tensors_of(batch)[0]), dtype=torch.bool)
        if self.mask:
            counted = batch[self.mask] != 0
        elif self.ignored is not None:
            counted = target != self.ignored
        else:
            counted = torch.ones_like(target, dtype=torch.bool)
        return counted[:, self.skipped :] if self.skipped and counted.ndim > 1 else counted

    def count(self, batch: Any) -> int:
        """Number of labels in a batch that count."""
        return int(self.counted(batch).sum())

    def describe(self) -> str:
        """Which labels do not count, in words."""
        if self.per_row:
            return "each row counts once"
        if self.mask:
            return f"{self.mask} is 0"
        return "all count" if self.ignored is None else f"label {self.ignored} does not count"

    def count_rows(self, batch: Any) -> list[int]:
        """Number of labels that count in each row of a batch."""
        counted = self.counted(batch)
        return counted.reshape(len(counted), -1).sum(1).tolist()


def targets_of(batch: Any) -> Any:
    """The targets of a batch: the second of a pair, or a mapping's labels; None if it has none."""
    if not isinstance(batch, Mapping):
        return batch[1]
    return next((batch[key] for key in _TARGET_KEYS if key in batch), batch.get("input_ids"))


def has_labels(batch: Any) -> bool:
    """Whether the targets of a batch are whole numbers, one or several for each row."""
    target = targets_of(batch)
    return (
        isinstance(target, torch.Tensor)
        and target.ndim > 0
        and target.dtype is not torch.bool
        and not (target.is_floating_point() or target.is_complex())
    )


def num_elements(batch: Any) -> int:
    """Number of labels in a batch, padding included; of inputs, where these are more."""
    return max(leaf.shape[:2].numel() for leaf in tensors_of(batch))


def shapes_of(batch: Any) -> tuple[torch.Size, ...]:
    """The shapes of one row of a batch's tensors."""
    return tuple(leaf.shape[1:] for leaf in tensors_of(batch))


def tensors_of(batch: Any) -> list[torch.Tensor]:
    """The tensors of a batch that have rows."""
    leaves = tree_leaves(dict(batch) if isinstance(batch, Mapping) else batch)
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.ndim]
