"""A device with memory that several trials share, as threads of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch

from flops_fit.records import Trial
from flops_fit.sweep.devices.device import Device


class FakeDevice:
    """A device, and a trainer whose trials hold memory of it.

    Attributes:
        uses: Bytes that a trial really holds.
        beside: Bytes that all processes hold beside their trials.
        most: Most trials that trained at one moment.
        failed: Trials that ran out of memory, in turn.
        trained: Trials that ended, in turn.
        meeting: Where trials meet while they train; None if they do not.
    """

    def __init__(
        self, memory_bytes: float, uses: Callable[[Trial], float], beside: float = 0.0
    ) -> None:
        self.device = Device("fake", memory_bytes, self._set_limit)
        self.uses = uses
        self.beside = beside
        self.most = 0
        self.failed: list[Trial] = []
        self.trained: list[Trial] = []
        self.meeting: threading.Barrier | None = None
        self._used: dict[int, float] = {}
        self._limits: dict[int, float] = {}
        self._lock = threading.Lock()

    def _set_limit(self, share: float) -> None:
        self._limits[threading.get_ident()] = share * self.device.memory_bytes

    def train(self, trial: Trial) -> None:
        """Hold the memory of a trial for a moment; fails as torch does if there is too little."""
        here, uses = threading.get_ident(), self.uses(trial)
        with self._lock:
            full = self.beside + sum(self._used.values()) + uses > self.device.memory_bytes
            if full or uses > self._limits[here]:
                self.failed.append(trial)
                raise torch.OutOfMemoryError("CUDA out of memory")
            self._used[here] = uses
            self.most = max(self.most, len(self._used))
        if self.meeting is not None:
            self.meeting.wait(60)
        with self._lock:
            del self._used[here]
            self.trained.append(trial)
