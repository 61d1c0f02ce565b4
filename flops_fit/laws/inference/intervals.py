"""`Spread`: the uncertainty of one fit, and intervals of any quantity of the law.

The interval of a quantity is the widest of several methods (see `bootstrap` for how they are made):
the delta method with Student's t, the percentiles of a wild bootstrap, and, where runs share
errors, a bootstrap by cluster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from flops_fit.laws.distributions import normal_quantile, t_quantile
from flops_fit.laws.fitting.parametric import Form
from flops_fit.laws.model.arrays import GAMMA, NUM_PARAMETERS, Array

# Coverage of all reported intervals.
LEVEL = 0.95
NORMAL = float(normal_quantile(0.5 + LEVEL / 2))  # half-width in standard errors that are known
# Default step of finite differences, in standard errors.
STEP = 1e-2
# The wild bootstrap replaces the delta interval only if it is at least 25 % wider. HC3 and the
# scatter of percentiles make it a tenth wider on sound data; always taking the wider of the two
# would cover 97 to 99 % instead of 95 % (simulated).
HANDICAP = {"wild": 1.25}

# Takes law vectors like `Spread.centre`, shape (S, p), and returns k quantities, shape (S, k).
Quantity = Callable[[Array], Array]
Method = Literal["delta", "wild", "cluster", "pairs"]


@dataclass(frozen=True)
class Spread:
    """The uncertainty of one fit.

    Attributes:
        form: The fitted form.
        centre: The fitted law vector (E, ln A, ln B, alpha, beta, gamma), shape (6,). If R_D*, or
            R_D* and R_N*, were fitted too, 1 / R_D* and 1 / R_N* follow, shape (7,) or (8,).
        covariance: Covariance of `centre` by the delta method, shape (p, p).
        dof: Degrees of freedom, n - p.
        residual_std: Residual standard deviation s of ln L.
        draws: Bootstrap law vectors by method ("wild", "cluster", "pairs"), shape (num_draws, p).
        num_clusters: Number of clusters behind the "cluster" draws.
    """

    form: Form
    centre: Array
    covariance: Array
    dof: int
    residual_std: float
    draws: dict[str, Array] = field(default_factory=dict)
    num_clusters: int = 0

    def interval(
        self,
        quantity: Quantity,
        *,
        method: Method | None = None,
        step: float = STEP,
    ) -> tuple[Array, Array]:
        """Interval of a quantity of the law.

        Args:
            quantity: Takes law vectors like `centre`, shape (S, p), and returns shape (S, k).
            method: One method; by default the widest of all, for each quantity separately.
            step: Step of the finite differences, in standard errors. With 1 they average over a
                kink of the quantity.

        Returns:
            Low and high ends, shape (k,) each.
        """
        if method == "delta":
            return self._delta(quantity, step)
        if method is not None:
            return self._bootstrap(method, quantity)
        ends = {name: self._bootstrap(name, quantity) for name in self.draws}
        # A Huber fit has no delta method: its covariance is that of the "pairs" draws.
        if "pairs" not in self.draws:
            ends["delta"] = self._delta(quantity, step)
        return _widest(list(ends.values()), [HANDICAP.get(name, 1.0) for name in ends])

    def standard_error(self, quantity: Quantity) -> Array:
        """Standard error of a quantity, shape (k,).

        It is that of the delta method, unless a bootstrap's is larger. The wild bootstrap's is half
        its interval over Student's t, and counts if it is more than twice as large. At a bound, as
        with E at zero, the delta method sees a small part of the range that the draws cover.
        """
        errors = self._standard_error(quantity)
        if "wild" in self.draws:
            low, high = self._bootstrap("wild", quantity)
            wild = (high - low) / 2 / _t_quantile(self.dof)
            errors = np.where(wild > 2 * errors, wild, errors)
        if "cluster" in self.draws:
            errors = np.maximum(errors, quantity(self.draws["cluster"]).std(axis=0))
        return errors

    def _standard_error(self, quantity: Quantity, step: float = STEP) -> Array:
        """Standard error by the delta method, shape (k,)."""
        G = _differences(quantity, self.centre, self.covariance, step)
        return np.sqrt(np.maximum((G @ G.T).diagonal(), 0.0))

    def _bootstrap(self, method: str, quantity: Quantity) -> tuple[Array, Array]:
        """Percentiles of the draws; for clusters, Student's t times their standard deviation.

        The clusters are too few for percentiles.
        """
        values = quantity(self.draws[method])
        if method != "cluster":
            return _percentiles(values)
        middle = quantity(self.centre[None])[0]
        quantile = _t_quantile(self.num_clusters - 1)
        return middle - quantile * values.std(axis=0), middle + quantile * values.std(axis=0)

    def _delta(self, quantity: Quantity, step: float) -> tuple[Array, Array]:
        middle = quantity(self.centre[None])[0]
        half = _t_quantile(self.dof) * self._standard_error(quantity, step)
        return middle - half, middle + half


def hull(
    spreads: tuple[Spread, ...], quantity: Quantity, step: float = STEP
) -> tuple[Array, Array]:
    """The smallest interval that contains the intervals of all spreads, shape (k,) each end.

    It contains the value too: percentiles of draws that are skewed may leave it out.
    """
    ends = [spread.interval(quantity, step=step) for spread in spreads]
    value = quantity(spreads[0].centre[None])[0]
    low, high = np.stack([value, *(e[0] for e in ends)]), np.stack([value, *(e[1] for e in ends)])
    return low.min(axis=0), high.max(axis=0)


def log_parameters(laws: Array) -> Array:
    """E, ln A, ln B, alpha, beta, gamma and a = beta / (alpha + beta) of each law, shape (S, 7)."""
    alpha, beta = laws[:, 3:4], laws[:, 4:5]
    return np.hstack([laws[:, :NUM_PARAMETERS], beta / (alpha + beta)])


def _t_quantile(dof: int) -> float:
    """Half-width of an interval in standard errors, by Student's t."""
    return t_quantile(0.5 + LEVEL / 2, max(dof, 1))


def _differences(quantity: Quantity, centre: Array, covariance: Array, step: float) -> Array:
    """Derivatives of the quantity along the principal axes of the covariance, shape (k, p).

    The axes are scaled to one standard error, so that the squares of the derivatives add up to the
    variance of the quantity.
    """
    size = np.sqrt(np.maximum(covariance.diagonal(), 1e-300))
    values, axes = np.linalg.eigh(covariance / np.outer(size, size))
    steps = (axes * np.sqrt(np.maximum(values, 0.0))).T * size
    h = _safe_step(centre, steps, step)
    high, low = quantity(centre + h * steps), quantity(centre - h * steps)
    return ((high - low) / (2 * h)).T


def _safe_step(centre: Array, steps: Array, step: float) -> float:
    """The largest step up to `step` that moves each exponent by at most a tenth of itself."""
    reach = np.abs(steps[:, 3 : GAMMA + 1]).max(axis=0) / centre[3 : GAMMA + 1]
    return float(min(step, 0.1 / max(reach.max(), 1e-300)))


def _percentiles(values: Array) -> tuple[Array, Array]:
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(values, [tail, 100 - tail], axis=0)
    return low, high


def _widest(ends: list[tuple[Array, Array]], handicaps: list[float]) -> tuple[Array, Array]:
    """For each quantity the widest interval, with widths divided by the handicaps."""
    low, high = np.stack([e[0] for e in ends]), np.stack([e[1] for e in ends])
    pick = ((high - low) / np.array(handicaps)[:, None]).argmax(axis=0)
    columns = np.arange(low.shape[1])
    return low[pick, columns], high[pick, columns]
