"""Repeated data is worth less than new: the data-constrained law.

Muennighoff et al. (2023, section 3.1, equations 5 and 6). With U unique tokens, R_D = D / U - 1
repetitions and U_N the parameters that U tokens would warrant, R_N = N / U_N - 1,

    D' = U + U R_D* (1 - exp(-R_D / R_D*)),      N' = U_N + U_N R_N* (1 - exp(-R_N / R_N*)),

and L = E + A / N'^alpha + B / D'^beta. Their R_D* = 15.39 and R_N* = 5.31 are the defaults; both
can be fitted where runs repeat enough. The uncertainty of R_D* is kept as that of the rate of
fading 1 / R_D*, which is zero, not infinite, where nothing fades.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

from flops_fit.errors import FitError
from flops_fit.laws.cost import Cost
from flops_fit.laws.frontier import log_flops_per_token, loss_at
from flops_fit.laws.parametric import ParametricLaw, law_of
from flops_fit.laws.solver import Array

R_DATA, R_PARAMS = 15.39, 5.31
GRID = 600
LEAST_EPOCHS = 2.0
LOW = np.array([-30.0, -60, -60, 0.01, 0.01, np.log(0.05), np.log(0.05)])
HIGH = np.array([10.0, 60, 60, 3, 3, np.log(1e4), np.log(1e4)])


@dataclass(frozen=True)
class RepetitionLaw:
    """A law and how fast repetition loses its worth.

    Attributes:
        law: The law on effective parameters and tokens.
        r_data: R_D*.
        r_params: R_N*; infinity where excess parameters are taken at full worth.
        residual_std: Of ln L.
        fading_error: Standard error of 1 / R_D*; None where it was given.
    """

    law: ParametricLaw
    r_data: float = R_DATA
    r_params: float = R_PARAMS
    residual_std: float = float("nan")
    fading_error: float | None = None

    def loss(self, N: ArrayLike, D: ArrayLike, unique_tokens: ArrayLike) -> Any:
        """Loss of N parameters on D tokens, of which so many are unique."""
        N, D, U = np.broadcast_arrays(*(np.asarray(v, float) for v in (N, D, unique_tokens)))
        x, y = (np.log(part).ravel() for part in (N, D))
        out = self._loss(self.law.row, x, y, np.log(U).ravel())[0].reshape(N.shape)
        return float(out) if out.ndim == 0 else out

    def optimum(self, C: float, unique_tokens: float) -> tuple[float, float, float]:
        """Best N, D and loss for C FLOPs under a cap of unique tokens."""
        x, y, loss = self.capped(self.law.row, np.array([C]), self.law.cost, unique_tokens)
        return float(np.exp(x[0, 0])), float(np.exp(y[0, 0])), float(loss[0, 0])

    def capped(
        self, laws: Array, C: Array, cost: Cost, unique_tokens: float
    ) -> tuple[Array, Array, Array]:
        """Ln N, ln D and loss of the best model under the cap, as `predict.optimum` gives them."""
        ends = [self._capped_one(laws, float(c), cost, unique_tokens) for c in C]
        x, y, loss = (np.stack([end[i] for end in ends], axis=1) for i in range(3))
        return x, y, loss

    def _capped_one(
        self, laws: Array, C: float, cost: Cost, unique_tokens: float
    ) -> tuple[Array, Array, Array]:
        """The best point of a grid over ln N, then of a finer one around it, for each law."""
        low = np.zeros(len(laws))
        high = np.full(len(laws), np.log(C))
        log_U = np.array(np.log(unique_tokens))
        for _ in range(3):
            x = low[:, None] + (high - low)[:, None] * np.linspace(0, 1, GRID)
            y = np.log(C) - log_flops_per_token(x, cost)
            loss = self._loss(laws, x, y, log_U)
            best = np.argmin(loss, axis=1)
            step = (high - low) / (GRID - 1)
            middle = x[np.arange(len(laws)), best]
            low, high = middle - 2 * step, middle + 2 * step
        rows = np.arange(len(laws))
        return x[rows, best], y[rows, best], loss[rows, best]

    def _loss(self, laws: Array, x: Array, y: Array, log_U: Array) -> Array:
        return loss_at(laws, *self._effective(laws, x, y, log_U))

    def _effective(self, laws: Array, x: Array, y: Array, log_U: Array) -> tuple[Array, Array]:
        """Ln N' and ln D'. Laws bring their own 1 / R_D*, where it was fitted, as column 5."""
        fading = laws[:, 5:6] if laws.shape[1] > 5 else 1 / self.r_data
        unique = np.minimum(y, log_U)
        y_effective = log_effective(y, unique, fading)
        _, log_A, log_B, alpha, beta = (laws[:, j : j + 1] for j in range(5))
        warranted = (np.log(alpha) + log_A - np.log(beta) - log_B + beta * unique) / alpha
        return log_effective(x, np.minimum(x, warranted), 1 / self.r_params), y_effective


def log_effective(total: Array, unique: Array, fading: Array | float) -> Array:
    """Ln of what `total` is worth when only `unique` of it is new (all in logarithms)."""
    r = 1 / np.where(np.abs(fading) < 1e-12, 1e-12, fading)
    repeats = np.expm1(np.maximum(total - unique, 0.0))
    with np.errstate(over="ignore"):
        return np.asarray(unique + np.log1p(-r * np.expm1(-repeats / r)))


def effective_tokens(D: ArrayLike, unique_tokens: ArrayLike, r_data: float = R_DATA) -> Array:
    """D' of D tokens of which so many are unique; NaN in `unique_tokens` means all are."""
    y = np.log(np.asarray(D, float))
    unique = np.minimum(y, np.log(np.asarray(unique_tokens, float)))
    return np.exp(log_effective(y, np.where(np.isnan(unique), y, unique), 1 / r_data))


def fit_repetition(
    N: ArrayLike,
    D: ArrayLike,
    loss: ArrayLike,
    unique_tokens: ArrayLike,
    start: ParametricLaw,
    *,
    r_data: float | None = None,
    r_params: float | None = None,
    delta: float | None = None,
) -> RepetitionLaw:
    """Fit the data-constrained law to ln L.

    Args:
        N: Parameters of each run, shape (n,).
        D: Tokens seen, shape (n,).
        loss: Loss, positive, shape (n,).
        unique_tokens: Unique tokens among them, shape (n,).
        start: A law to start from, as `fit` finds it.
        r_data: R_D*, or None to fit it.
        r_params: R_N*, or None to fit it; infinity takes all parameters at full worth.
        delta: Huber's threshold; None for least squares.

    Raises:
        FitError: R_D* is to be fitted and no run sees its data twice, or the fit does not converge.

    References:
        Muennighoff et al. 2023, section 3.1 and appendix A.
    """
    x, y, t, u = (np.log(np.asarray(v, float)) for v in (N, D, loss, unique_tokens))
    if r_data is None and not (y - u > np.log(LEAST_EPOCHS)).any():
        raise FitError("no run sees its data twice: R_D* cannot be fitted; give r_data")
    free = np.array([True] * 5 + [r_data is None, r_params is None])
    middle = np.array([x.mean(), y.mean()])
    first = _to_search(start, r_data or R_DATA, r_params or R_PARAMS, middle)

    def law_at(p: Array) -> RepetitionLaw:
        q = first.copy()
        q[free] = p
        return _from_search(q, middle, start.cost)

    def misfit(p: Array) -> Array:
        law = law_at(p)
        return np.asarray(np.log(law._loss(law.law.row, x, y, u)[0]) - t)

    found = _search(misfit, first[free], LOW[free], HIGH[free], delta)
    return _with_errors(law_at(found.x), found, free, len(t))


def _to_search(start: ParametricLaw, r_data: float, r_params: float, middle: Array) -> Array:
    """(ln E, ln A, ln B, alpha, beta, ln R_D*, ln R_N*), A and B at the middle of the runs."""
    q = np.concatenate([start.row[0], np.log([r_data, r_params])])
    q[0] = np.log(max(q[0], 1e-6))
    q[1:3] -= q[3:5] * middle
    return q


def _from_search(q: Array, middle: Array, cost: Cost) -> RepetitionLaw:
    row = q[:5].copy()
    row[0] = np.exp(q[0])
    row[1:3] += q[3:5] * middle
    return RepetitionLaw(law_of(row, cost), float(np.exp(q[5])), float(np.exp(q[6])))


def _search(
    misfit: Callable[[Array], Array], first: Array, low: Array, high: Array, delta: float | None
) -> optimize.OptimizeResult:
    found = optimize.least_squares(
        misfit,
        np.clip(first, low + 1e-6, high - 1e-6),
        bounds=(low, high),
        loss="linear" if delta is None else "huber",
        f_scale=delta or 1.0,
        x_scale="jac",
        max_nfev=2000,
        xtol=1e-14,
        ftol=1e-14,
        gtol=1e-14,
    )
    if not np.isfinite(found.cost):
        raise FitError("the data-constrained fit found no finite law")
    return found


def _with_errors(
    law: RepetitionLaw, found: optimize.OptimizeResult, free: Array, n: int
) -> RepetitionLaw:
    """The law with its residuals and the standard error of 1 / R_D*, by the linearised fit."""
    std = float(np.sqrt((found.fun @ found.fun) / max(n - int(free.sum()), 1)))
    if not free[5]:
        return replace(law, residual_std=std)
    lengths = np.linalg.norm(found.jac, axis=0) + 1e-300
    inverse = np.linalg.pinv(found.jac / lengths, rcond=1e-12)[5] / lengths[5]
    error = std * float(np.linalg.norm(inverse)) / law.r_data
    return replace(law, residual_std=std, fading_error=error)
