"""flops_fit.laws.model.parametric_law."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from flops_fit.errors import ArgumentError
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.cost import CostCurve, FlopsPerToken
from flops_fit.laws.model.frontier import frontier, loss_at


@dataclass(frozen=True)
class ParametricLaw:
    """L(N, D) = E + A / N^alpha + B / D^beta.

    Attributes:
        E: Irreducible loss, in the unit of the loss.
        A: Size coefficient.
        B: Data coefficient.
        alpha: Size exponent.
        beta: Data exponent.
        flops_per_param_token: kappa in C = kappa N D, FLOPs per parameter and token.
        curve: Measured FLOPs per token, used instead of kappa N where given.
    """

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    flops_per_param_token: float = 6.0
    curve: CostCurve | None = None

    @property
    def a(self) -> float:
        """Exponent of N_opt in C (where f(N) is proportional to N): beta / (alpha + beta)."""
        return self.beta / (self.alpha + self.beta)

    @property
    def b(self) -> float:
        """Exponent of D_opt in C (where f(N) is proportional to N): alpha / (alpha + beta)."""
        return self.alpha / (self.alpha + self.beta)

    @property
    def cost(self) -> FlopsPerToken:
        """FLOPs per token, as `frontier` takes it."""
        return FlopsPerToken(self.flops_per_param_token, self.curve)

    @property
    def vector(self) -> Array:
        """(E, ln A, ln B, alpha, beta), shape (5,)."""
        return np.array([self.E, np.log(self.A), np.log(self.B), self.alpha, self.beta])

    def loss(self, N: ArrayLike, D: ArrayLike) -> Any:
        """Loss at N parameters and D tokens; arrays broadcast."""
        x, y = np.broadcast_arrays(np.log(np.asarray(N, float)), np.log(np.asarray(D, float)))
        return _plain(loss_at(self.vector[None], x.ravel(), y.ravel())[0].reshape(x.shape))

    def n_opt(self, C: ArrayLike) -> Any:
        """Parameters of the best model for C FLOPs."""
        return _plain(np.exp(self._frontier(C)[0]))

    def d_opt(self, C: ArrayLike) -> Any:
        """Tokens to train the best model on, for C FLOPs."""
        return _plain(np.exp(self._frontier(C)[1]))

    def l_opt(self, C: ArrayLike) -> Any:
        """Loss of the best model for C FLOPs."""
        return _plain(self._frontier(C)[2])

    def _frontier(self, C: ArrayLike) -> tuple[Array, Array, Array]:
        budgets = np.asarray(C, float)
        if not (np.isfinite(budgets) & (budgets > 0)).all():
            raise ArgumentError(f"expected budgets in FLOPs, positive and finite; got {C!r}")
        found = frontier(self.vector[None], budgets.ravel(), self.cost)
        x, y, loss = (part[0].reshape(budgets.shape) for part in found)
        return x, y, loss


def law_of(row: Array, cost: FlopsPerToken) -> ParametricLaw:
    """A law from one row (E, ln A, ln B, alpha, beta)."""
    E, log_A, log_B, alpha, beta = (float(value) for value in row)
    A, B = float(np.exp(log_A)), float(np.exp(log_B))
    return ParametricLaw(E, A, B, alpha, beta, cost.flops_per_param_token, cost.curve)


def _plain(value: Array) -> Any:
    """A float for a scalar, the array otherwise."""
    return float(value) if np.ndim(value) == 0 else value
