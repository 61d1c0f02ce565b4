"""`PowerLaw`: y = l_inf + k C^exponent, for N_opt, D_opt and L_opt against compute."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from flops_fit.laws.distributions import t_quantile
from flops_fit.laws.model.arrays import NAN, Array
from flops_fit.laws.model.parametric_law import scalar_or_array


@dataclass(frozen=True)
class PowerLaw:
    """y = l_inf + k C^exponent.

    Attributes:
        k: Coefficient, in the unit of y at C = 1 FLOP.
        exponent: Exponent of C (negative for the loss).
        r_squared: Share of the variance explained: of ln y, or of y for the loss.
        l_inf: Offset; 0 for N and D.
        exponent_interval: 95 % interval of the exponent; NaN where there are too few points.
        num_budgets: Number of points that the law was fitted to.
        refused: Why there is no law, in which case the numbers are NaN; empty otherwise.
        pivot: ln C in the middle of the points.
        covariance: Covariance of (ln y at the pivot, exponent), and of the offset if there is one,
            flattened row by row; empty where there are too few points.
    """

    k: float
    exponent: float
    r_squared: float
    l_inf: float = 0.0
    exponent_interval: tuple[float, float] = (NAN, NAN)
    num_budgets: int = 0
    refused: str = ""
    pivot: float = NAN
    covariance: tuple[float, ...] = ()

    def __call__(self, C: ArrayLike) -> Any:
        """The value of y at C FLOPs, shape of C."""
        return scalar_or_array(self.l_inf + self.k * np.asarray(C, float) ** self.exponent)

    def interval(self, C: ArrayLike) -> tuple[Array, Array]:
        """95 % interval of y at C FLOPs, by the delta method.

        The interval is symmetric in ln y, or in y where there is an offset.

        Args:
            C: FLOPs, any shape.

        Returns:
            Low and high ends, shape of C each; NaN where there are too few points.
        """
        t = np.log(np.asarray(C, float)) - self.pivot
        if not self.covariance:
            return np.full_like(t, NAN), np.full_like(t, NAN)
        size = int(np.sqrt(len(self.covariance)))
        power = self(C) - self.l_inf
        # Gradients of ln y by (level, exponent), or of y by (level, exponent, offset).
        G = np.stack([np.ones_like(t), t] if size == 2 else [power, power * t, np.ones_like(t)])
        V = np.reshape(self.covariance, (size, size))
        quantile = t_quantile(0.975, self.num_budgets - size)
        half = quantile * np.sqrt(np.einsum("i...,ij,j...->...", G, V, G))
        if size == 2:
            return power * np.exp(-half), power * np.exp(half)
        return self(C) - half, self(C) + half


@dataclass(frozen=True)
class PowerLaws:
    """The three power laws of one approach.

    Attributes:
        n_opt: Parameters of the best model, against C.
        d_opt: Tokens to train it on, against C.
        l_opt: Its loss, against C.
    """

    n_opt: PowerLaw
    d_opt: PowerLaw
    l_opt: PowerLaw


def refused(reason: str, num_budgets: int = 0) -> PowerLaw:
    """A power law of NaN that carries the reason why none could be fitted."""
    return PowerLaw(NAN, NAN, NAN, NAN, num_budgets=num_budgets, refused=reason)
