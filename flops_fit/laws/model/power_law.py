"""flops_fit.laws.model.power_law."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from flops_fit.laws.model.arrays import Array

NAN = float("nan")
NO_INTERVAL = (NAN, NAN)


@dataclass(frozen=True)
class PowerLaw:
    """y = l_inf + k C^exponent.

    Attributes:
        k: Coefficient, in the unit of y at C = 1 FLOP.
        exponent: Exponent of C (negative for the loss).
        r_squared: Share of the variance explained: of ln y, or of y for the loss.
        l_inf: Offset; 0 for N and D.
        k_interval: 95 % interval of k.
        exponent_interval: 95 % interval of the exponent.
        l_inf_interval: 95 % interval of the offset.
        num_budgets: Points it rests on.
        refused: Why there is no law, where the numbers are NaN; empty otherwise.
        pivot: ln C in the middle of the points.
        covariance: Of (ln y at the pivot, exponent), and of the offset where there is one, row by
            row; empty where there are too few points to tell.
    """

    k: float
    exponent: float
    r_squared: float
    l_inf: float = 0.0
    k_interval: tuple[float, float] = NO_INTERVAL
    exponent_interval: tuple[float, float] = NO_INTERVAL
    l_inf_interval: tuple[float, float] = NO_INTERVAL
    num_budgets: int = 0
    refused: str = ""
    pivot: float = NAN
    covariance: tuple[float, ...] = ()

    def __call__(self, C: ArrayLike) -> Any:
        """Y at C FLOPs."""
        y = self.l_inf + self.k * np.asarray(C, float) ** self.exponent
        return float(y) if np.ndim(y) == 0 else y

    def interval(self, C: ArrayLike) -> tuple[Array, Array]:
        """95 % interval of y at C FLOPs, shape of C each; NaN where there are too few points.

        By the delta method: of ln y, or of y where there is an offset.
        """
        t = np.log(np.asarray(C, float)) - self.pivot
        if not self.covariance:
            return np.full_like(t, NAN), np.full_like(t, NAN)
        size = int(np.sqrt(len(self.covariance)))
        grown = self(C) - self.l_inf
        G = np.stack([np.ones_like(t), t] if size == 2 else [grown, grown * t, np.ones_like(t)])
        V = np.reshape(self.covariance, (size, size))
        reach = stats.t.ppf(0.975, self.num_budgets - size)
        half = reach * np.sqrt(np.einsum("i...,ij,j...->...", G, V, G))
        if size == 2:
            return grown * np.exp(-half), grown * np.exp(half)
        return self(C) - half, self(C) + half


@dataclass(frozen=True)
class PowerLaws:
    """The three power laws of one approach.

    Attributes:
        n_opt: Parameters.
        d_opt: Tokens.
        l_opt: Loss.
    """

    n_opt: PowerLaw
    d_opt: PowerLaw
    l_opt: PowerLaw


def refused(reason: str, num_budgets: int = 0) -> PowerLaw:
    """No law, and why."""
    return PowerLaw(NAN, NAN, NAN, NAN, num_budgets=num_budgets, refused=reason)
