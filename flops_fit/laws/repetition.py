"""Repeated data is worth less than new: the data-constrained law.

Muennighoff et al. (2023, section 3.1, equations 5 and 6). With U unique tokens, R_D = D / U - 1
repetitions and U_N the parameters that U tokens would warrant at the price they have (so that what
is best on new data has none in excess), R_N = N / U_N - 1,

    D' = U + U R_D* (1 - exp(-R_D / R_D*)),      N' = U_N + U_N R_N* (1 - exp(-R_N / R_N*)),

and L = E + A / N'^alpha + B / D'^beta. Their R_D* = 15.39 and R_N* = 5.31 are the defaults; both
can be fitted where runs repeat enough. The uncertainty of either is kept as that of the rate of
fading 1 / R*, which is zero, not infinite, where nothing fades. Laws that bring their own rates
carry them as columns 5 (1 / R_D*) and 6 (1 / R_N*).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

from flops_fit.errors import FitError
from flops_fit.laws import predict
from flops_fit.laws.cost import Cost
from flops_fit.laws.frontier import log_flops_per_token, loss_at, slope, warranted
from flops_fit.laws.parametric import ParametricLaw, law_of
from flops_fit.laws.solver import Array

R_DATA, R_PARAMS = 15.39, 5.31
WORN_OUT = 0.05  # one more token is worth so little of a new one
TO_SIGMA = 1.4826
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
        out = self.losses(self.law.row, x, y, np.log(U).ravel())[0].reshape(N.shape)
        return float(out) if out.ndim == 0 else out

    def optimum(self, C: float, unique_tokens: float) -> tuple[float, float, float]:
        """Best N, D and loss for C FLOPs under a cap of unique tokens."""
        x, y, loss = self.capped(self.law.row, np.array([C]), unique_tokens)
        return float(np.exp(x[0, 0])), float(np.exp(y[0, 0])), float(loss[0, 0])

    def capped(self, laws: Array, C: Array, unique_tokens: ArrayLike) -> predict.Path:
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
        x_free, y_free, loss_free = predict.optimum(laws, C, cost)
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

        x = predict.root(spare, np.full_like(y_free, predict.SMALLEST), log_C + 0 * y_free)
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
        return np.exp(self._effective(self.law.row, x, y, u)[0][0])


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
    search = Search.of(N, D, loss, unique_tokens, start, r_data, r_params)
    if r_data is None and not (search.y - search.u > np.log(LEAST_EPOCHS)).any():
        raise FitError("no run sees its data twice: R_D* cannot be fitted; give r_data")

    def misfit(point: Array) -> Array:
        return search.misfit(point[None])[0]

    found = optimize.least_squares(
        misfit,
        np.clip(search.start[search.free], search.low + 1e-6, search.high - 1e-6),
        jac=search.jacobian,
        bounds=(search.low, search.high),
        loss="linear" if delta is None else "huber",
        f_scale=delta or 1.0,
        x_scale="jac",
        max_nfev=400,
        xtol=1e-14,
        ftol=1e-14,
        gtol=1e-14,
    )
    if not np.isfinite(found.cost):
        raise FitError("the data-constrained fit found no finite law")
    return _with_errors(search, found.x, robust=delta is not None)


@dataclass(frozen=True)
class Search:
    """The fit as a search over (ln E, ln A, ln B, alpha, beta, ln R_D*, ln R_N*).

    A and B are taken at the middle of the runs, so that no parameter is tied to another.

    Attributes:
        x: ln N, shape (n,).
        y: ln D, shape (n,).
        t: ln L, shape (n,).
        u: ln of the unique tokens, shape (n,).
        start: Where to start, shape (7,); parameters that are not free stay there.
        free: Which of the seven are free, shape (7,).
        cost: FLOPs per token.
    """

    x: Array
    y: Array
    t: Array
    u: Array
    start: Array
    free: np.ndarray
    cost: Cost

    @classmethod
    def of(
        cls,
        N: ArrayLike,
        D: ArrayLike,
        loss: ArrayLike,
        unique_tokens: ArrayLike,
        law: ParametricLaw,
        r_data: float | None = None,
        r_params: float | None = None,
    ) -> Search:
        """From a law; constants that are given are held, others start as published."""
        x, y, t, u = (np.log(np.asarray(v, float)) for v in (N, D, loss, unique_tokens))
        free = np.array([True] * 5 + [r_data is None, r_params is None])
        all_free = cls(x, y, t, u, np.zeros(7), np.full(7, True), law.cost)
        start = all_free.point(RepetitionLaw(law, r_data or R_DATA, r_params or R_PARAMS))
        return replace(all_free, start=start, free=free)

    @property
    def low(self) -> Array:
        """Lower bounds of the free parameters."""
        return LOW[self.free]

    @property
    def high(self) -> Array:
        """Upper bounds of the free parameters."""
        return HIGH[self.free]

    def laws(self, points: Array) -> Array:
        """Rows (E, ln A, ln B, alpha, beta, 1 / R_D*, 1 / R_N*) of points, shape (S, free)."""
        q = np.tile(self.start, (len(points), 1))
        q[:, self.free] = np.clip(points, self.low, self.high)
        e, a, b, alpha, beta, r_data, r_params = q.T
        log_A, log_B = a + alpha * self.x.mean(), b + beta * self.y.mean()
        rates = np.exp(-r_data), np.exp(-r_params)
        return np.stack([np.exp(e), log_A, log_B, alpha, beta, *rates], axis=1)

    def misfit(self, points: Array) -> Array:
        """Ln of law over loss, a row a point, shape (S, n)."""
        laws = self.laws(points)
        any_law = RepetitionLaw(law_of(laws[0, :5], self.cost))
        return np.log(any_law.losses(laws, self.x, self.y, self.u)) - self.t

    def point(self, law: RepetitionLaw) -> Array:
        """The point of a law, shape (free,)."""
        q = np.concatenate([law.law.row[0], np.log([law.r_data, law.r_params])])
        q[0] = np.log(max(q[0], 1e-6))
        q[1:3] -= q[3:5] * [self.x.mean(), self.y.mean()]
        return q[self.free]

    def law(self, point: Array) -> RepetitionLaw:
        """The law of one point, shape (free,)."""
        row = self.laws(point[None])[0]
        constants = (float(1 / rate) if rate > 0 else np.inf for rate in row[5:])
        return RepetitionLaw(law_of(row[:5], self.cost), *constants)

    def jacobian(self, point: Array) -> Array:
        """Derivatives of the misfit by the free parameters, shape (n, free)."""
        steps = 1e-5 * np.eye(len(point))
        return ((self.misfit(point + steps) - self.misfit(point - steps)) / 2e-5).T


def _with_errors(search: Search, point: Array, *, robust: bool) -> RepetitionLaw:
    """The law, its residuals, and the standard errors of the rates by the linearised fit."""
    law, r, J = search.law(point), search.misfit(point[None])[0], search.jacobian(point)
    dof = max(len(r) - len(point), 1)
    std = float(np.median(np.abs(r)) * TO_SIGMA if robust else np.sqrt(r @ r / dof))
    lengths = np.linalg.norm(J, axis=0) + 1e-300
    inverse = np.linalg.pinv(J / lengths, rcond=1e-12) / lengths[:, None]
    errors = np.full(7, np.nan)
    errors[search.free] = std * np.linalg.norm(inverse, axis=1)
    given = ~search.free[5:]
    rates = zip(errors[5:] / [law.r_data, law.r_params], given, strict=True)
    fading, params = (None if held else float(error) for error, held in rates)
    return replace(law, residual_std=std, fading_error=fading, params_error=params)
