"""flops_fit.laws.inference.intervals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from scipy import stats

from flops_fit.laws.fitting.parametric import (
    Form,
)
from flops_fit.laws.model.arrays import Array

LEVEL = 0.95
STEP = 1e-2
HANDICAP = {"wild": 1.25}
Quantity = Callable[[Array], Array]
Method = Literal["delta", "wild", "cluster", "pairs"]


@dataclass(frozen=True)
class Spread:
    """How uncertain one fit is.

    Attributes:
        form: The fitted form.
        centre: (E, ln A, ln B, alpha, beta), shape (5,); then 1 / R_D* and 1 / R_N*, where those
            were fitted, shape (6,) or (7,).
        covariance: Of those, by the delta method.
        dof: Degrees of freedom, n - p.
        residual_std: s, of ln L.
        draws: Bootstrap laws by method ("wild", "cluster"), rows like `centre`.
        num_clusters: Clusters behind the "cluster" draws.
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
        level: float = LEVEL,
        method: Method | None = None,
        step: float = STEP,
    ) -> tuple[Array, Array]:
        """Interval of a quantity of the law.

        Args:
            quantity: Takes rows like `centre`, gives (S, k).
            level: Coverage.
            method: One method; default the wider of all, for each quantity.
            step: Of the finite differences, standard errors; 1 looks over a kink in the quantity.

        Returns:
            Lower and upper ends, shape (k,) each.
        """
        if method == "delta":
            return self._delta(quantity, level, step)
        if method is not None:
            return self._bootstrap(method, quantity, level)
        ends = {name: self._bootstrap(name, quantity, level) for name in self.draws}
        if "pairs" not in self.draws:
            ends["delta"] = self._delta(quantity, level, step)
        return _widest(list(ends.values()), [HANDICAP.get(name, 1.0) for name in ends])

    def standard_error(self, quantity: Quantity) -> Array:
        """Standard error, shape (k,): by the delta method, or by a bootstrap where that is more.

        Of wild draws it is half their interval over Student's t, where that is over twice as much:
        at a bound, as with E at zero, the delta method sees a small part of what the draws reach.
        """
        errors = self._standard_error(quantity)
        if "wild" in self.draws:
            low, high = self._bootstrap("wild", quantity, LEVEL)
            wild = (high - low) / 2 / stats.t.ppf(0.5 + LEVEL / 2, max(self.dof, 1))
            errors = np.where(wild > 2 * errors, wild, errors)
        if "cluster" in self.draws:
            errors = np.maximum(errors, quantity(self.draws["cluster"]).std(axis=0))
        return errors

    def _standard_error(self, quantity: Quantity, step: float = STEP) -> Array:
        G = _differences(quantity, self.centre, self.covariance, step)
        return np.sqrt(np.maximum((G @ G.T).diagonal(), 0.0))

    def _bootstrap(self, method: str, quantity: Quantity, level: float) -> tuple[Array, Array]:
        """Percentiles; of a handful of clusters, Student's t on the spread of the draws."""
        values = quantity(self.draws[method])
        if method != "cluster":
            return _percentiles(values, level)
        middle = quantity(self.centre[None])[0]
        reach = float(stats.t.ppf(0.5 + level / 2, max(self.num_clusters - 1, 1)))
        return middle - reach * values.std(axis=0), middle + reach * values.std(axis=0)

    def _delta(self, quantity: Quantity, level: float, step: float) -> tuple[Array, Array]:
        middle = quantity(self.centre[None])[0]
        reach = float(stats.t.ppf(0.5 + level / 2, max(self.dof, 1)))
        half = reach * self._standard_error(quantity, step)
        return middle - half, middle + half


def log_parameters(laws: Array) -> Array:
    """E, ln A, ln B, alpha, beta and a = beta / (alpha + beta) of each law, shape (S, 6)."""
    a = laws[:, 4:5] / (laws[:, 3:4] + laws[:, 4:5])
    return np.hstack([laws[:, :5], a])


def _differences(quantity: Quantity, centre: Array, covariance: Array, step: float) -> Array:
    """Derivatives of the quantity along the principal axes of the covariance, shape (k, 5)."""
    size = np.sqrt(np.maximum(covariance.diagonal(), 1e-300))
    values, axes = np.linalg.eigh(covariance / np.outer(size, size))
    steps = (axes * np.sqrt(np.maximum(values, 0.0))).T * size
    h = _safe_step(centre, steps, step)
    high, low = quantity(centre + h * steps), quantity(centre - h * steps)
    return ((high - low) / (2 * h)).T


def _safe_step(centre: Array, steps: Array, step: float) -> float:
    """At most this share of one standard deviation, and both exponents stay positive."""
    reach = np.abs(steps[:, 3:5]).max(axis=0) / centre[3:5]
    return float(min(step, 0.1 / max(reach.max(), 1e-300)))


def _percentiles(values: Array, level: float) -> tuple[Array, Array]:
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(values, [tail, 100 - tail], axis=0)
    return low, high


def _widest(ends: list[tuple[Array, Array]], handicaps: list[float]) -> tuple[Array, Array]:
    """For each quantity the interval that is widest, its width over its handicap."""
    low, high = np.stack([e[0] for e in ends]), np.stack([e[1] for e in ends])
    pick = ((high - low) / np.array(handicaps)[:, None]).argmax(axis=0)
    columns = np.arange(low.shape[1])
    return low[pick, columns], high[pick, columns]


def hull(
    spreads: tuple[Spread, ...], quantity: Quantity, step: float = STEP
) -> tuple[Array, Array]:
    """The interval that holds those of all spreads."""
    ends = [spread.interval(quantity, step=step) for spread in spreads]
    low, high = np.stack([e[0] for e in ends]), np.stack([e[1] for e in ends])
    return low.min(axis=0), high.max(axis=0)
