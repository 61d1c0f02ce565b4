"""A trial's training curve, reported point by point."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from flops_fit.errors import DivergedError


@dataclass(frozen=True)
class Point:
    """A point on a training curve.

    Attributes:
        num_tokens: Units of D seen so far.
        flops: FLOPs spent so far.
        train_loss: Mean training loss since the last point.
        learning_rate: Of the last step.
        tokens_per_second: Mean since the trial began.
    """

    num_tokens: int
    flops: float
    train_loss: float
    learning_rate: float
    tokens_per_second: float


Report = Callable[[Point], None]


def diverged(loss: float, step: int) -> DivergedError:
    """The error of a training loss that is not finite."""
    return DivergedError(f"the training loss is {loss} at step {step}", step)
