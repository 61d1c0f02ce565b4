"""What a token costs: f(N), training FLOPs per token as a function of the number of parameters.

C = f(N) D. Where f(N) = kappa N (6 N D: Kaplan et al. 2020, section 2.1) the optimum has a closed
form; elsewhere f is a monotone interpolation of what was measured, in log-log, continued beyond the
measured sizes by its end slopes. `CostCurve.extrapolates` says where that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import CubicHermiteSpline, PchipInterpolator, PPoly

from flops_fit.laws.model.arrays import Array

PROPORTIONAL_WITHIN = 0.01
MOST_KNOTS = 64
LEAST_SLOPE = 0.05
FAR = 200.0
GRID = 1500


@dataclass(frozen=True)
class CostCurve:
    """FLOPs per token at measured sizes, interpolated between them.

    Attributes:
        log_params: ln N of the knots, increasing.
        log_flops_per_token: ln f(N) at the knots.
    """

    log_params: tuple[float, ...]
    log_flops_per_token: tuple[float, ...]

    def flops_per_token(self, N: ArrayLike) -> Array:
        """f(N) in FLOPs per token, shape of N."""
        return np.exp(self.log_cost(np.log(np.asarray(N, float))))

    def extrapolates(self, N: ArrayLike) -> np.ndarray:
        """Whether each N lies beyond the measured sizes (by more than 1 %)."""
        x = np.log(np.asarray(N, float))
        return (x < self.log_params[0] - 0.01) | (x > self.log_params[-1] + 0.01)

    def log_cost(self, x: ArrayLike) -> Array:
        """Ln f at x = ln N."""
        x = np.asarray(x, float)
        low, high = self.log_params[0], self.log_params[-1]
        inside = np.clip(x, low, high)
        ends = self._end_slopes
        inner = self._spline(inside) if self._spline else np.full(x.shape, self._level)
        return inner + ends[0] * np.minimum(x - low, 0) + ends[1] * np.maximum(x - high, 0)

    def slope(self, x: ArrayLike) -> Array:
        """D ln f / d ln N at x = ln N."""
        x = np.asarray(x, float)
        ends = self._end_slopes
        if self._steepness is None:
            return np.full(x.shape, ends[0])
        inner = self._steepness(np.clip(x, self.log_params[0], self.log_params[-1]))
        inner = np.where(x <= self.log_params[0], ends[0], inner)
        inner = np.where(x >= self.log_params[-1], ends[1], inner)
        return np.maximum(inner, LEAST_SLOPE)

    @cached_property
    def grid(self) -> tuple[Array, Array, Array]:
        """(x, ln f, slope) on a fine grid, with one point far out on either side."""
        low, high = self.log_params[0], self.log_params[-1]
        x = np.concatenate([[low - FAR], np.linspace(low, high, GRID), [high + FAR]])
        return x, self.log_cost(x), self.slope(x)

    @cached_property
    def _end_slopes(self) -> tuple[float, float]:
        x, f = np.array(self.log_params), np.array(self.log_flops_per_token)
        if len(x) == 1:
            return 1.0, 1.0
        k = max(2, len(x) // 3)
        low, high = np.polyfit(x[:k], f[:k], 1)[0], np.polyfit(x[-k:], f[-k:], 1)[0]
        return float(max(low, LEAST_SLOPE)), float(max(high, LEAST_SLOPE))

    @cached_property
    def _spline(self) -> CubicHermiteSpline | None:
        x, f = np.array(self.log_params), np.array(self.log_flops_per_token)
        if len(x) == 1:
            return None
        slopes = PchipInterpolator(x, f)(x, 1)
        slopes[0], slopes[-1] = self._end_slopes
        return CubicHermiteSpline(x, f, np.maximum(slopes, LEAST_SLOPE))

    @cached_property
    def _steepness(self) -> PPoly | None:
        return None if self._spline is None else self._spline.derivative()

    @property
    def _level(self) -> float:
        return self.log_flops_per_token[0]


@dataclass(frozen=True)
class FlopsPerToken:
    """How tokens are priced: f(N) = kappa N, or a measured curve.

    Attributes:
        flops_per_param_token: kappa; the mean ratio f(N) / N where there is a curve.
        curve: The measured curve; None where f(N) = kappa N within 1 %.
    """

    flops_per_param_token: float = 6.0
    curve: CostCurve | None = None


def measure_cost(N: Sequence[float] | Array, D: Sequence[float] | Array, C: Array) -> FlopsPerToken:
    """FLOPs per token from finished runs.

    Args:
        N: Parameters of each run, shape (n,).
        D: Tokens of each run, shape (n,).
        C: FLOPs each run spent, shape (n,).
    """
    x = np.log(np.asarray(N, float))
    f = np.log(np.asarray(C, float)) - np.log(np.asarray(D, float))
    ratio = f - x
    kappa = float(np.exp(np.median(ratio)))
    if np.ptp(ratio) <= 2 * PROPORTIONAL_WITHIN:
        return FlopsPerToken(kappa)
    knots_x, knots_f = _knots(x, f)
    return FlopsPerToken(kappa, CostCurve(tuple(knots_x.tolist()), tuple(knots_f.tolist())))


def _knots(x: Array, f: Array) -> tuple[Array, Array]:
    """Median cost at each size (sizes within .1 % are one), made non-decreasing."""
    order = np.argsort(x, kind="stable")
    x, f = x[order], f[order]
    group = np.concatenate([[0], np.cumsum(np.diff(x) > 1e-3)])
    if group[-1] >= MOST_KNOTS:
        edges = np.linspace(x[0], x[-1], MOST_KNOTS + 1)[1:-1]
        group = np.searchsorted(edges, x)
    labels = np.unique(group)
    knots = np.array([np.median(x[group == g]) for g in labels])
    costs = np.array([np.median(f[group == g]) for g in labels])
    return knots, np.maximum.accumulate(costs)
