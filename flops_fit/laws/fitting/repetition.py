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

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

from flops_fit.errors import FitError
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.cost import FlopsPerToken
from flops_fit.laws.model.parametric_law import ParametricLaw, law_of
from flops_fit.laws.model.repetition_law import R_DATA, R_PARAMS, RepetitionLaw

TO_SIGMA = 1.4826
LEAST_EPOCHS = 2.0
LOW = np.array([-30.0, -60, -60, 0.01, 0.01, np.log(0.05), np.log(0.05)])
HIGH = np.array([10.0, 60, 60, 3, 3, np.log(1e4), np.log(1e4)])


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
    cost: FlopsPerToken

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
        q = np.concatenate([law.law.vector, np.log([law.r_data, law.r_params])])
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
