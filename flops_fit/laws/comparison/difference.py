"""The difference of the loss of two sweeps at equal compute, with its 95 % interval.

Each sweep trains its own best model. The interval holds everything that those of both losses hold:
parameters, misfit and recipe. Where runs are paired (`pairs`), what both sweeps share cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from flops_fit.errors import FitError
from flops_fit.laws.comparison.pairs import Pairs
from flops_fit.laws.findings import Findings
from flops_fit.laws.inference.intervals import NORMAL
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.predict.intervals import PART, predict_intervals


@dataclass(frozen=True)
class Difference:
    """Losses of two sweeps at k budgets, shape (k,) each.

    Attributes:
        C: Budgets in FLOPs.
        first: The loss of the first sweep.
        value: The loss of the second less that of the first.
        low: Low end of the 95 % interval.
        high: High end.
        fixed: Half-width of what more runs of the same sweeps would not narrow.
    """

    C: Array
    first: Array
    value: Array
    low: Array
    high: Array
    fixed: Array

    @property
    def told(self) -> np.ndarray:
        """Whether the interval leaves zero out."""
        return np.asarray((self.low > 0) | (self.high < 0))

    @property
    def probability_lower(self) -> Array:
        """The probability that the loss of the second sweep is lower."""
        half = np.where(self.value < 0, self.high - self.value, self.value - self.low)
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.where(half > 0, -self.value / half, -np.sign(self.value) * np.inf)
        return np.asarray(stats.norm.cdf(NORMAL * z))


def difference_at(
    first: Findings,
    second: Findings,
    C: Array,
    pairs: Pairs | None,
    bytes_per_token: tuple[float, float] = (1.0, 1.0),
) -> Difference:
    """Compare the losses of two sweeps at equal compute.

    Args:
        first: The laws of the first sweep.
        second: Those of the second.
        C: Budgets in FLOPs, shape (k,).
        pairs: The runs that share their randomness; None where there are none.
        bytes_per_token: What the losses of either are divided by.

    Raises:
        FitError: One of them has no law.
    """
    frames = [
        _predicted(findings, C, per)
        for findings, per in zip((first, second), bytes_per_token, strict=True)
    ]
    loss, other = (frame["loss"].to_numpy(float) for frame in frames)
    recipe = np.hypot(*(_part(frame, "recipe") for frame in frames))
    if pairs is None:
        down, up = (_halves(frame) for frame in frames)
        low, high = np.hypot(down[1], up[0]), np.hypot(down[0], up[1])
        value = other - loss
        fixed = np.hypot(recipe, np.hypot(*(_part(frame, "misfit") for frame in frames)))
        return Difference(C, loss, value, value - low, value + high, fixed)
    log_ratio, half = pairs.differences(_logs(frames, "num_params"), _logs(frames, "num_tokens"))
    log_ratio = log_ratio - np.log(bytes_per_token[1] / bytes_per_token[0])
    value, lowest, highest = (loss * np.expm1(log_ratio + more) for more in (0.0, -half, half))
    low, high = np.hypot(value - lowest, recipe), np.hypot(highest - value, recipe)
    return Difference(C, loss, value, value - low, value + high, recipe)


def _logs(frames: Sequence[pd.DataFrame], name: str) -> tuple[Array, Array]:
    first, second = (np.log(frame[name].to_numpy(float)) for frame in frames)
    return first, second


def _predicted(findings: Findings, C: Array, per: float) -> pd.DataFrame:
    """The predictions at some budgets, with losses divided by a number."""
    if findings.law is None:
        name = findings.meta.get("name", "one of them")
        reasons = [check.message for check in findings.checks if check.severity == "refuse"]
        raise FitError(
            f"no comparison: {name} has no law of the loss. {' '.join(reasons)}", findings.checks
        )
    frame = predict_intervals(findings, C)
    losses = [name for name in map(str, frame) if name.removeprefix(PART).startswith("loss")]
    return frame.assign(**{name: frame[name] / per for name in losses})


def _halves(frame: pd.DataFrame) -> tuple[Array, Array]:
    """How far the interval of the loss reaches down and up; infinite where it is not known."""
    loss = frame["loss"].to_numpy(float)
    low, high = (frame[f"loss_{end}"].to_numpy(float) for end in ("low", "high"))
    return np.where(np.isinf(high), np.inf, loss - low), high - loss


def _part(frame: pd.DataFrame, name: str) -> Array:
    """A part of the half-width of the loss; zero where there is none."""
    column = f"{PART}loss_{name}"
    values = frame[column].to_numpy(float) if column in frame else np.zeros(len(frame))
    return np.nan_to_num(values)
