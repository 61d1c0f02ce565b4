"""flops_fit.laws.model.repetition_law."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from flops_fit.laws.model import constrained
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.frontier import log_flops_per_token, loss_at, slope, warranted
from flops_fit.laws.model.parametric_law import ParametricLaw

R_DATA, R_PARAMS = 15.39, 5.31
WORN_OUT = 0.05  # one more token is worth so little of a new one


@dataclass(frozen=True)
class RepetitionLaw:
    """A law and how fast repetition loses its worth.

    Attributes:
        law: The law on effective parameters and tokens.
        r_data: R_D*.
        r_params: R_N*; infinity where excess parameters are taken at full worth.
        residual_std: Of ln L.
        fading_error: Standard error of 1 / R_D*; None where it was given.
        params_error: Standard error of 1 / R_N*; None where it was given.
    """

    law: ParametricLaw
    r_data: float = R_DATA
    r_params: float = R_PARAMS
    residual_std: float = float("nan")
    fading_error: float | None = None
    params_error: float | None = None

    def loss(self, N: ArrayLike, D: ArrayLike, unique_tokens: ArrayLike) -> Any:
        """Loss of N parameters on D tokens, of which so many are unique."""
        N, D, U = np.broadcast_arrays(*(np.asarray(v, float) for v in (N, D, unique_tokens)))
        x, y = (np.log(part).ravel() for part in (N, D))
        out = self.losses(self.law.vector[None], x, y, np.log(U).ravel())[0].reshape(N.shape)
        return float(out) if out.ndim == 0 else out

    def optimum(self, C: float, unique_tokens: float) -> tuple[float, float, float]:
        """Best N, D and loss for C FLOPs under a cap of unique tokens."""
        x, y, loss = self.capped(self.law.vector[None], np.array([C]), unique_tokens)
        return float(np.exp(x[0, 0])), float(np.exp(y[0, 0])), float(loss[0, 0])

    def capped(self, laws: Array, C: Array, unique_tokens: ArrayLike) -> constrained.Path:
        """Ln N, ln D and loss of the best model under the cap, as `predict.optimum` gives them.

        The first-order condition alpha A N'^-alpha e_N = beta B D'^-beta e_D s(N), where e are the
        elasticities d ln N' / d ln N and d ln D' / d ln D: their logarithms tell apart what the
        losses of worn-out data no longer do.

        Args:
            laws: Laws as rows, shape (S, 5), or with their own rates of fading.
            C: Budgets in FLOPs, shape (k,).
            unique_tokens: One number, or one a budget.
        """
        cost, log_U = self.law.cost, np.log(np.asarray(unique_tokens, float))
        x_free, y_free, loss_free = constrained.optimum(laws, C, cost)
        unique = np.minimum(y_free, log_U)
        most = warranted(laws, unique, cost)
        _, log_A, log_B, alpha, beta = (laws[:, j : j + 1] for j in range(5))
        fading, params_fading = self._fading(laws)
        log_C = np.log(C)

        def worth(x: Array) -> tuple[Array, Array, Array, Array]:
            y = log_C - log_flops_per_token(x, cost)
            own = log_effective(x, np.minimum(x, most), params_fading)
            return *own, *log_effective(y, np.minimum(y, unique), fading)

        def spare(x: Array) -> Array:
            N, e_N, D, e_D = worth(x)
            gain = np.log(alpha) + log_A - alpha * N + e_N
            return gain - (np.log(beta) + log_B - beta * D + e_D) - np.log(slope(x, cost))

        x = constrained.root(spare, np.full_like(y_free, constrained.SMALLEST), log_C + 0 * y_free)
        y = log_C - log_flops_per_token(x, cost)
        enough = log_U >= y_free
        N, _, D, _ = worth(x)
        loss = np.where(enough, loss_free, loss_at(laws, N, D))
        return np.where(enough, x_free, x), np.where(enough, y_free, y), loss

    def losses(self, laws: Array, x: Array, y: Array, log_U: Array) -> Array:
        """Loss of every law at x = ln N, y = ln D and ln of the unique tokens, shape (S, k)."""
        return loss_at(laws, *self._effective(laws, x, y, log_U))

    def _effective(self, laws: Array, x: Array, y: Array, log_U: Array) -> tuple[Array, Array]:
        """Ln N' and ln D'."""
        fading, params_fading = self._fading(laws)
        unique = np.minimum(y, log_U)
        most = warranted(laws, unique, self.law.cost)
        N, _ = log_effective(x, np.minimum(x, most), params_fading)
        D, _ = log_effective(y, unique, fading)
        return N, D

    def _fading(self, laws: Array) -> tuple[Array | float, Array | float]:
        """1 / R_D* and 1 / R_N*: those that laws bring, else this law's own."""
        fading = laws[:, 5:6] if laws.shape[1] > 5 else 1 / self.r_data
        return fading, laws[:, 6:7] if laws.shape[1] > 6 else 1 / self.r_params

    def effective_params(self, N: Array, D: Array, unique_tokens: Array) -> Array:
        """N' of N parameters trained on D tokens, of which so many are unique, shape (n,)."""
        x, y, u = (np.log(part) for part in (N, D, unique_tokens))
        return np.exp(self._effective(self.law.vector[None], x, y, u)[0][0])


def log_effective(total: Array, unique: Array, fading: Array | float) -> tuple[Array, Array]:
    """What `total` is worth when only `unique` of it is new, and the elasticity of that worth.

    All in logarithms; the elasticity is d ln worth / d ln total, zero (in logarithms) for new data.
    """
    rate = np.where(np.abs(fading) < 1e-12, 1e-12, fading)
    repeats = np.expm1(np.maximum(total - unique, 0.0))
    with np.errstate(over="ignore"):
        worth = np.asarray(unique + np.log1p(-np.expm1(-repeats * rate) / rate))
        return worth, np.asarray(total - worth - repeats * rate)


def effective_tokens(D: ArrayLike, unique_tokens: ArrayLike, r_data: float = R_DATA) -> Array:
    """D' of D tokens of which so many are unique; NaN in `unique_tokens` means all are."""
    y = np.log(np.asarray(D, float))
    unique = np.minimum(y, np.log(np.asarray(unique_tokens, float)))
    return np.exp(log_effective(y, np.where(np.isnan(unique), y, unique), 1 / r_data)[0])
