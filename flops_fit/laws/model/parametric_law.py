"""`ParametricLaw`: L(N, D) = E + (A / N^alpha + B / D^beta)^gamma.

With gamma = 1 it is equation 2 of Hoffmann et al. (2022). With gamma below one it bends: the loss
follows the larger of its two terms more closely than their sum does.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from flops_fit.errors import ArgumentError
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.cost import CostCurve, FlopsPerToken
from flops_fit.laws.model.frontier import frontier, loss_at


@dataclass(frozen=True)
class ParametricLaw:
    """L(N, D) = E + (A / N^alpha + B / D^beta)^gamma.

    Attributes:
        E: Irreducible loss, in the unit of the loss.
        A: Size coefficient.
        B: Data coefficient.
        alpha: Size exponent.
        beta: Data exponent.
        flops_per_param_token: kappa in C = kappa N D, FLOPs per parameter and token.
        curve: Measured FLOPs per token, used instead of kappa N where given.
        gamma: Exponent of the sum of the two terms. The best N at a given C does not depend on it.
    """

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    flops_per_param_token: float = 6.0
    curve: CostCurve | None = field(default=None, repr=False)
    gamma: float = 1.0

    @property
    def a(self) -> float:
        """Exponent of N_opt in C, where f(N) is proportional to N: beta / (alpha + beta)."""
        return self.beta / (self.alpha + self.beta)

    @property
    def b(self) -> float:
        """Exponent of D_opt in C, where f(N) is proportional to N: alpha / (alpha + beta)."""
        return self.alpha / (self.alpha + self.beta)

    @property
    def cost(self) -> FlopsPerToken:
        """FLOPs per token."""
        return FlopsPerToken(self.flops_per_param_token, self.curve)

    @property
    def vector(self) -> Array:
        """(E, ln A, ln B, alpha, beta, gamma), shape (6,)."""
        log_A, log_B = np.log(self.A), np.log(self.B)
        return np.array([self.E, log_A, log_B, self.alpha, self.beta, self.gamma])

    def loss(self, N: ArrayLike, D: ArrayLike) -> Any:
        """Loss of N parameters trained on D tokens; arrays broadcast.

        Returns:
            A float for scalars, else an array of the broadcast shape.
        """
        x, y = np.broadcast_arrays(np.log(np.asarray(N, float)), np.log(np.asarray(D, float)))
        loss = loss_at(self.vector[None], x.ravel(), y.ravel())[0]
        return scalar_or_array(loss.reshape(x.shape))

    def n_opt(self, C: ArrayLike) -> Any:
        """Parameters of the best model for C FLOPs, shape of C."""
        return scalar_or_array(np.exp(self._frontier(C)[0]))

    def d_opt(self, C: ArrayLike) -> Any:
        """Tokens on which to train the best model for C FLOPs, shape of C."""
        return scalar_or_array(np.exp(self._frontier(C)[1]))

    def l_opt(self, C: ArrayLike) -> Any:
        """Loss of the best model for C FLOPs, shape of C."""
        return scalar_or_array(self._frontier(C)[2])

    def _frontier(self, C: ArrayLike) -> tuple[Array, Array, Array]:
        """Arrays of ln N_opt, ln D_opt and L_opt, shape of C each."""
        budgets = np.asarray(C, float)
        if not (np.isfinite(budgets) & (budgets > 0)).all():
            raise ArgumentError(f"expected budgets in FLOPs, positive and finite; got {C!r}")
        found = frontier(self.vector[None], budgets.ravel(), self.cost)
        x, y, loss = (part[0].reshape(budgets.shape) for part in found)
        return x, y, loss


def law_from_vector(vector: Array, cost: FlopsPerToken) -> ParametricLaw:
    """A law from its vector (E, ln A, ln B, alpha, beta, gamma), shape (6,)."""
    E, log_A, log_B, alpha, beta, gamma = (float(value) for value in vector)
    A, B = float(np.exp(log_A)), float(np.exp(log_B))
    return ParametricLaw(E, A, B, alpha, beta, cost.flops_per_param_token, cost.curve, gamma)


def scalar_or_array(value: Array) -> Any:
    """A float for an array without dimensions, else the array itself."""
    return float(value) if np.ndim(value) == 0 else value
