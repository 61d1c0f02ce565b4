"""`Weighting`: what a batch's loss weighs in the mean over several batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from flops_fit.sweep.data.labels import LabelRule
from flops_fit.sweep.data.source import count_examples


@dataclass(frozen=True)
class Weighting:
    """What a batch's loss weighs in the mean over several batches.

    Attributes:
        by: "rows" if the loss is a mean over rows, "labels" if it is one over the labels that
            count, "returned" if it returns its sum and its count.
        rule: Which labels count; None if all rows hold equally many.
        fixed_batch: Whether the loss depends on the batch in another way too, so that held-out
            examples are evaluated in batches of one size for all trials.
    """

    by: Literal["rows", "labels", "returned"] = "rows"
    rule: LabelRule | None = None
    fixed_batch: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether every row weighs the same, in every batch."""
        return self.by == "rows" and self.rule is None

    def weight(self, batch: Any) -> int:
        """Of a batch's mean loss; 0 if it is a mean over labels, and none counts."""
        if self.rule is None or self.by == "rows":
            return count_examples(batch)
        return self.rule.count(batch)


def split_loss(value: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A loss as its mean and, if it was returned as `(sum, count)`, the count."""
    if not isinstance(value, tuple):
        return value, None
    total, count = value
    count = torch.as_tensor(count, device=total.device).detach()
    return total / count.clamp(min=1), count
