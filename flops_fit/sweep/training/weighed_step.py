"""Steps on data whose examples hold different numbers of labels.

The loss of a step is the mean over all its labels, whatever parts its batch is divided into, and
however many ranks there are. Each part's mean is weighted by its number of labels, and loss and
gradients are divided by their total once it is known. What was trained on is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import send_to_device

from flops_fit.runtime import distributed
from flops_fit.sweep.data.labels import LabelRule, num_elements
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.prepared_model import PreparedModel


@dataclass
class Counted:
    """What a trial was trained on so far; all 0 where it is not counted.

    Attributes:
        labels: Labels that count.
        elements: Labels in all, with padding.
        empty_steps: Steps without any label that counts, since the last point of the curve.
    """

    labels: int = 0
    elements: int = 0
    empty_steps: int = 0

    def add(self, rule: LabelRule, batches: Iterable[Any]) -> None:
        """Count the labels of some batches."""
        for batch in batches:
            self.labels += rule.count(batch)
            self.elements += num_elements(batch)

    def state(self) -> list[int]:
        """Its content for a checkpoint: the sums over all ranks."""
        return [self.labels, self.elements, self.empty_steps]

    @classmethod
    def restored(cls, state: Sequence[int]) -> Counted:
        """What `state` returned; the sums are rank 0's alone."""
        counted = cls(*state)
        if distributed.rank():
            counted.labels = counted.elements = 0
        return counted

    def gather(self) -> None:
        """Sum the counts of all ranks on rank 0; the others start again from 0."""
        own = self.labels, self.elements
        sums = [sum(values) for values in zip(*distributed.gather(own), strict=True)]
        self.labels, self.elements = sums if distributed.rank() == 0 else (0, 0)


def weighed_backward(
    task: Task, prepared: PreparedModel, batches: Sequence[Any], reference: float
) -> tuple[torch.Tensor, Any]:
    """The backward pass of this rank's parts of a step.

    Args:
        task: Model and loss.
        prepared: The model; gradients are left on its parameters.
        batches: The parts.
        reference: Expected weight of the step, which keeps the gradients near their size.

    Returns:
        The sum of the losses times their weight over `reference`, and the sum of the weights.
    """
    device = prepared.accelerator.device
    loss_sum, weight_sum = torch.zeros((), device=device), 0
    for batch in batches:
        if not task.weighting.weight(batch):  # the mean over no label is NaN
            continue
        loss, weight = task.weighed_loss(
            prepared.model, send_to_device(batch, device, non_blocking=True)
        )
        loss = loss * (weight / reference)
        prepared.backward(loss)
        loss_sum = loss_sum + loss.detach()
        weight_sum = weight_sum + weight
    return loss_sum, weight_sum


def divide_by_weight(
    prepared: PreparedModel, loss: torch.Tensor, weight: Any, reference: float
) -> tuple[torch.Tensor, float]:
    """Make a step's loss and gradients those of the mean over all labels of all ranks.

    Args:
        prepared: Whose parameters hold the gradients, summed over the ranks.
        loss: The loss of `weighed_backward`, summed over the ranks.
        weight: The weight of this rank's parts.
        reference: As of `weighed_backward`.

    Returns:
        The mean loss, 0 if no label counts; and the weight of all ranks.
    """
    total = sum(distributed.gather(float(weight)))
    if not total:
        return loss, total
    grads = [p.grad for p in prepared.parameters if p.grad is not None]
    if grads:
        torch._foreach_mul_(grads, reference / total)
    return loss * (reference / total), total
