"""What workers say while they train; apart from what is made of it, which they need not import."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Event:
    """What a worker says: how far a trial is, or how it ended.

    Attributes:
        trial_id: Whose.
        label: The trial in words.
        flops: FLOPs spent on it so far.
        loss: Training loss so far, or the held-out loss at the end.
        state: "running", "resumed", or the state it ended in.
        tokens_per_second: Units of D trained on a second.
    """

    trial_id: str
    label: str
    flops: float
    loss: float
    state: str = "running"
    tokens_per_second: float = math.nan


Listener = Callable[[Event], None]
