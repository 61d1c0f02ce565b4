"""The fit of the data-constrained law of Muennighoff et al. (2023, section 3.1).

The law and its constants R_D* and R_N* are in `model.repetition_law`. Both constants can be fitted
if enough runs repeat their data. Their uncertainty is that of the fading rates 1 / R_D* and
1 / R_N*, which are zero, not infinite, where nothing fades.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize

from flops_fit.errors import FitError
from flops_fit.laws.fitting.residuals import LOWER, UPPER
from flops_fit.laws.model.arrays import FADING, GAMMA, MAD_TO_STD, NUM_PARAMETERS, Array
from flops_fit.laws.model.cost import FlopsPerToken
from flops_fit.laws.model.parametric_law import ParametricLaw, law_from_vector
from flops_fit.laws.model.repetition_law import R_DATA, R_PARAMS, RepetitionLaw
from flops_fit.laws.runs.points import Points

# R_D* can only be fitted if a run makes more passes over its data than this.
LEAST_EPOCHS = 2.0
# Bounds of (ln E, a, b, q, s, gamma, ln R_D*, ln R_N*).
LOW = np.array([-30.0, -60, -60, *LOWER[3:], np.log(0.05), np.log(0.05)])
HIGH = np.array([10.0, 60, 60, *UPPER[3:], np.log(1e4), np.log(1e4)])


def fit_repetition(
    points: Points,
    start: ParametricLaw,
    *,
    r_params: float | None = None,
    delta: float | None = None,
    bent: bool = False,
) -> RepetitionLaw:
    """Fit the data-constrained law to ln L.

    Args:
        points: The runs with their unique tokens; losses must be positive.
        start: The law at which the search starts.
        r_params: R_N*; None to fit it. With infinity excess parameters count in full.
        delta: Huber's threshold; None for least squares.
        bent: Fit gamma too; otherwise it stays as in `start`.

    Raises:
        FitError: No run sees its data twice, or the fit does not converge.

    References:
        Muennighoff et al. 2023, section 3.1 and appendix A.
    """
    search = Search.of(points, start, r_params, bent=bent)
    if not (search.y - search.u > np.log(LEAST_EPOCHS)).any():
        raise FitError("no run sees its data twice: R_D* cannot be fitted")

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
    """The fit as a search over (ln E, a, b, q, s, gamma, ln R_D*, ln R_N*).

    a and b are gamma ln A and gamma ln B at the centre of the runs, q = gamma alpha and
    s = gamma beta, which makes them nearly independent of each other (see `residuals`). A point
    holds the free ones of the eight parameters.

    Attributes:
        x: ln N, shape (n,).
        y: ln D, shape (n,).
        t: ln L, shape (n,).
        u: The logarithm of the unique tokens, shape (n,).
        start: The start, shape (8,); parameters that are not free stay there.
        free: Mask of the free parameters, shape (8,).
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
        points: Points,
        law: ParametricLaw,
        r_params: float | None = None,
        *,
        bent: bool = False,
    ) -> Search:
        """A search that starts at a law.

        Args:
            points: The runs with their unique tokens.
            law: The law to start at.
            r_params: R_N*, which is then held; None to fit it, starting at the published value, as
                R_D* does.
            bent: Whether gamma is free.
        """
        columns = (points.N, points.D, points.loss, points.unique_tokens)
        x, y, t, u = (np.log(column) for column in columns)
        free = np.array([True] * 5 + [bent, True, r_params is None])
        all_free = cls(x, y, t, u, np.zeros(8), np.full(8, True), law.cost)
        start = all_free.point(RepetitionLaw(law, R_DATA, r_params or R_PARAMS))
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
        """Law vectors (E, ln A, ln B, alpha, beta, gamma, 1 / R_D*, 1 / R_N*), shape (S, 8).

        Args:
            points: Free parameters, shape (S, free).
        """
        point = np.tile(self.start, (len(points), 1))
        point[:, self.free] = np.clip(points, self.low, self.high)
        e, a, b, q, s, gamma, r_data, r_params = point.T
        terms = a + q * self.x.mean(), b + s * self.y.mean(), q, s
        rates = np.exp(-r_data), np.exp(-r_params)
        return np.stack([np.exp(e), *(part / gamma for part in terms), gamma, *rates], axis=1)

    def misfit(self, points: Array) -> Array:
        """Residuals ln(law / L) of points of shape (S, free), shape (S, n)."""
        laws = self.laws(points)
        # `losses` takes only the cost from the law itself: `laws` carries all eight parameters.
        law = RepetitionLaw(law_from_vector(laws[0, :NUM_PARAMETERS], self.cost))
        return np.log(law.losses(laws, self.x, self.y, self.u)) - self.t

    def point(self, law: RepetitionLaw) -> Array:
        """The free parameters of a law, shape (free,)."""
        point = np.concatenate([law.law.vector, np.log([law.r_data, law.r_params])])
        point[0] = np.log(max(point[0], 1e-6))
        point[1:3] -= point[3:5] * [self.x.mean(), self.y.mean()]
        point[1:5] *= point[GAMMA]
        return point[self.free]

    def law(self, point: Array) -> RepetitionLaw:
        """The law with these free parameters, shape (free,)."""
        vector = self.laws(point[None])[0]
        constants = (float(1 / rate) if rate > 0 else np.inf for rate in vector[FADING:])
        return RepetitionLaw(law_from_vector(vector[:NUM_PARAMETERS], self.cost), *constants)

    def jacobian(self, point: Array) -> Array:
        """Derivatives of the residuals by the free parameters, shape (n, free)."""
        steps = 1e-5 * np.eye(len(point))
        return ((self.misfit(point + steps) - self.misfit(point - steps)) / 2e-5).T


def _with_errors(search: Search, point: Array, *, robust: bool) -> RepetitionLaw:
    """The law at a point, with the standard errors of its fading rates by the linearised fit."""
    law, r, J = search.law(point), search.misfit(point[None])[0], search.jacobian(point)
    dof = max(len(r) - len(point), 1)
    std = float(np.median(np.abs(r)) * MAD_TO_STD if robust else np.sqrt(r @ r / dof))
    lengths = np.linalg.norm(J, axis=0) + 1e-300
    errors = np.full(8, np.nan)
    with np.errstate(over="ignore", invalid="ignore"):  # of a constant that the runs do not show
        inverse = np.linalg.pinv(J / lengths, rcond=1e-12) / lengths[:, None]
        errors[search.free] = std * np.linalg.norm(inverse, axis=1)
    # d(1 / R) = d(ln R) / R; a constant that was not fitted has no error.
    rates = zip(errors[FADING:] / [law.r_data, law.r_params], search.free[FADING:], strict=True)
    fading, params = (float(error) if fitted else None for error, fitted in rates)
    return replace(law, residual_std=std, fading_error=fading, params_error=params)
