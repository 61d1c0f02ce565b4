"""`RepetitionLaw`: repeated data is worth less than new data, and so are excess parameters.

The data-constrained law of Muennighoff et al. (2023, section 3.1, equations 5 and 6). With U unique
tokens, R_D = D / U - 1 repetitions, U_N the model size for which U tokens are compute-optimal
(`frontier.warranted`) and R_N = N / U_N - 1,

    D' = U + U R_D* (1 - exp(-R_D / R_D*)),      N' = U_N + U_N R_N* (1 - exp(-R_N / R_N*)),

and L is the law's loss at N' and D'. D' and N' are called effective tokens and parameters, and
1 / R_D* and 1 / R_N* the fading rates: they are zero, not infinite, where nothing fades.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from flops_fit.laws.model import constrained
from flops_fit.laws.model.arrays import FADING, NAN, PARAMS_FADING, Array, columns
from flops_fit.laws.model.frontier import log_flops_per_token, loss_at, slope, warranted
from flops_fit.laws.model.parametric_law import ParametricLaw, scalar_or_array

# R_D* and R_N* as published (Muennighoff et al. 2023, section 3.1).
R_DATA = 15.39
R_PARAMS = 5.31
# Data counts as worn out when one more token is worth less than this share of a new one.
WORN_OUT = 0.05


@dataclass(frozen=True)
class RepetitionLaw:
    """A law in effective parameters and tokens, and how fast repetition loses its value.

    Law vectors given to its methods have shape (S, 6), and use this law's own fading rates; or they
    carry their own rates 1 / R_D* and 1 / R_N* in columns 6 and 7, shape (S, 7) or (S, 8).

    Attributes:
        law: The law of effective parameters and tokens.
        r_data: R_D*.
        r_params: R_N*; infinity where excess parameters count in full.
        residual_std: Residual standard deviation of ln L.
        fading_error: Standard error of 1 / R_D*; None where R_D* was not fitted.
        params_error: Standard error of 1 / R_N*; None where R_N* was not fitted.
    """

    law: ParametricLaw
    r_data: float = R_DATA
    r_params: float = R_PARAMS
    residual_std: float = NAN
    fading_error: float | None = None
    params_error: float | None = None

    def loss(self, N: ArrayLike, D: ArrayLike, unique_tokens: ArrayLike) -> Any:
        """Loss of N parameters trained on D tokens, `unique_tokens` of them unique.

        The arguments broadcast. Returns a float for scalars.
        """
        N, D, U = np.broadcast_arrays(*(np.asarray(v, float) for v in (N, D, unique_tokens)))
        x, y, u = (np.log(part).ravel() for part in (N, D, U))
        return scalar_or_array(self.losses(self.law.vector[None], x, y, u)[0].reshape(N.shape))

    def optimum(self, C: float, unique_tokens: float) -> tuple[float, float, float]:
        """The best N, D and loss for C FLOPs with a cap on unique tokens."""
        x, y, loss = self.capped(self.law.vector[None], np.array([C]), unique_tokens)
        return float(np.exp(x[0, 0])), float(np.exp(y[0, 0])), float(loss[0, 0])

    def capped(self, laws: Array, C: Array, unique_tokens: ArrayLike) -> constrained.Path:
        """The best model of every law at every budget, with a cap on unique tokens.

        It solves the first-order condition alpha A N'^-alpha e_N = beta B D'^-beta e_D s(N), where
        e_N = d ln N' / d ln N and e_D = d ln D' / d ln D. It compares logarithms: the losses on
        worn-out data differ by less than a float resolves.

        Args:
            laws: Law vectors, shape (S, 6), (S, 7) or (S, 8).
            C: Budgets in FLOPs, shape (k,).
            unique_tokens: One number, or one per budget, shape (k,).

        Returns:
            ln N, ln D and loss, shape (S, k) each.
        """
        cost, log_U = self.law.cost, np.log(np.asarray(unique_tokens, float))
        x_free, y_free, loss_free = constrained.optimum(laws, C, cost)
        unique = np.minimum(y_free, log_U)
        most = warranted(laws, unique, cost)
        _, log_A, log_B, alpha, beta, _ = columns(laws)
        fading, params_fading = self._fading(laws)
        log_C = np.log(C)

        def effective(x: Array) -> tuple[Array, Array, Array, Array]:
            """Logarithms of N', e_N, D' and e_D at ln N = x, if all of C is spent."""
            y = log_C - log_flops_per_token(x, cost)
            params = log_effective(x, np.minimum(x, most), params_fading)
            return *params, *log_effective(y, np.minimum(y, unique), fading)

        def marginal_gain(x: Array) -> Array:
            """The log of the gain by a larger N, less that of the loss by the tokens it costs."""
            N, e_N, D, e_D = effective(x)
            gain = np.log(alpha) + log_A - alpha * N + e_N
            return gain - (np.log(beta) + log_B - beta * D + e_D) - np.log(slope(x, cost))

        low = np.full_like(y_free, constrained.SMALLEST)
        x = constrained.root(marginal_gain, low, log_C + 0 * y_free)
        y = log_C - log_flops_per_token(x, cost)
        N, _, D, _ = effective(x)
        # Where the cap does not bind, the answer is exactly the unconstrained one.
        enough = log_U >= y_free
        loss = np.where(enough, loss_free, loss_at(laws, N, D))
        return np.where(enough, x_free, x), np.where(enough, y_free, y), loss

    def losses(self, laws: Array, x: Array, y: Array, log_U: Array) -> Array:
        """Loss of every law at x = ln N, y = ln D and the logarithm of the unique tokens.

        Args:
            laws: Law vectors, shape (S, 6), (S, 7) or (S, 8).
            x: ln N, shape (k,) or (S, k).
            y: ln D, shape (k,) or (S, k).
            log_U: Logarithm of the unique tokens, shape (k,) or (S, k).

        Returns:
            Shape (S, k).
        """
        return loss_at(laws, *self._effective(laws, x, y, log_U))

    def effective(self, x: Array, y: Array, log_U: Array) -> tuple[Array, Array]:
        """Logarithms of N' and D', shape (k,) each; arguments as for `losses`."""
        N, D = np.broadcast_arrays(*self._effective(self.law.vector[None], x, y, log_U))
        return N.ravel(), D.ravel()

    def _effective(self, laws: Array, x: Array, y: Array, log_U: Array) -> tuple[Array, Array]:
        """Logarithms of N' and D', shape (S, k) each."""
        fading, params_fading = self._fading(laws)
        unique = np.minimum(y, log_U)
        most = warranted(laws, unique, self.law.cost)
        N, _ = log_effective(x, np.minimum(x, most), params_fading)
        D, _ = log_effective(y, unique, fading)
        return N, D

    def _fading(self, laws: Array) -> tuple[Array | float, Array | float]:
        """1 / R_D* and 1 / R_N*: from the law vectors where they carry them, else this law's."""
        held = 1 / self.r_data, 1 / self.r_params
        fading, params_fading = (
            laws[:, j : j + 1] if laws.shape[1] > j else rate
            for j, rate in zip((FADING, PARAMS_FADING), held, strict=True)
        )
        return fading, params_fading


def log_effective(total: Array, unique: Array, fading: Array | float) -> tuple[Array, Array]:
    """The effective amount of data or parameters, and how it grows with the amount.

    Args:
        total: Logarithm of the amount, D or N.
        unique: Logarithm of the amount that has full value, U or U_N; at most `total`.
        fading: 1 / R_D* or 1 / R_N*.

    Returns:
        ln D' (or ln N'), and the logarithm of the elasticity d ln D' / d ln D, which is zero for
        new data.
    """
    rate = np.where(np.abs(fading) < 1e-12, 1e-12, fading)
    repeats = np.expm1(np.maximum(total - unique, 0.0))
    with np.errstate(over="ignore"):
        effective = np.asarray(unique + np.log1p(-np.expm1(-repeats * rate) / rate))
        return effective, np.asarray(total - effective - repeats * rate)


def effective_tokens(D: ArrayLike, unique_tokens: ArrayLike, r_data: float = R_DATA) -> Array:
    """D' of D tokens, `unique_tokens` of them unique; NaN in `unique_tokens` means all are."""
    y = np.log(np.asarray(D, float))
    unique = np.minimum(y, np.log(np.asarray(unique_tokens, float)))
    return np.exp(log_effective(y, np.where(np.isnan(unique), y, unique), 1 / r_data)[0])
