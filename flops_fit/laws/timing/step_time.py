"""`StepTime`: seconds of a training step, t = overhead + rate W^power, for a step of W FLOPs.

Small steps are bound by their overhead (launching kernels, loading data), large ones by arithmetic.
With power 1 the device computes at a constant speed; below 1 it grows with the size, because larger
matrices use a device better.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from flops_fit.laws.model.arrays import Array


@dataclass(frozen=True)
class StepTime:
    """The time of a training step.

    Attributes:
        overhead: Seconds.
        log_rate: ln of the seconds of a step of `reference` FLOPs, beyond the overhead.
        power: Exponent of W.
        reference: FLOPs; the geometric mean of the steps measured.
        largest: FLOPs of the largest step measured.
        smallest: FLOPs of the smallest step measured.
        scatter: Standard deviation of ln t of the steps measured.
        draws: (overhead, log_rate, power) drawn from their distribution, shape (S, 3).
        num_measured: Number of measurements behind it.
    """

    overhead: float | Array
    log_rate: float | Array
    power: float | Array
    reference: float
    smallest: float
    largest: float
    scatter: float
    draws: Array
    num_measured: int = 0

    def seconds(self, W: ArrayLike) -> Array:
        """Seconds of steps of W FLOPs, shape of W."""
        work = np.log(np.asarray(W, float) / self.reference)
        return np.asarray(self.overhead + np.exp(self.log_rate + self.power * work))

    def drawn_seconds(self, W: ArrayLike) -> Array:
        """The same by every draw, shape (S, k)."""
        overhead, log_rate, power = self.draws.T[:, :, None]
        work = np.log(np.asarray(W, float) / self.reference)
        return np.asarray(overhead + np.exp(log_rate + power * work))

    def drawn(self, most: int) -> StepTime:
        """Several draws at once, one a row: its parameters have shape (S, 1)."""
        overhead, log_rate, power = self.draws[:most].T[:, :, None]
        return replace(self, overhead=overhead, log_rate=log_rate, power=power)

    def log_error(self, W: ArrayLike) -> Array:
        """Standard error of ln t for steps of W FLOPs, with the scatter of a single size."""
        errors = np.log(self.drawn_seconds(W)) - np.log(self.seconds(W))
        return np.asarray(np.sqrt((errors**2).mean(axis=0) + self.scatter**2))

    def slope(self, W: ArrayLike) -> Array:
        """The derivative d ln t / d ln W, shape of W."""
        t = self.seconds(W)
        return np.asarray(self.power * (t - self.overhead) / t)

    def slowed(self, log_factor: float) -> StepTime:
        """The same for steps that take exp(log_factor) times as long."""
        factor = float(np.exp(log_factor))
        draws = self.draws * np.array([factor, 1.0, 1.0]) + np.array([0.0, log_factor, 0.0])
        return replace(
            self, overhead=self.overhead * factor, log_rate=self.log_rate + log_factor, draws=draws
        )
