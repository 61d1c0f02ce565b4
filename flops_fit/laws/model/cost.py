"""The cost of a token: f(N), training FLOPs per token as a function of the number of parameters.

A run spends C = f(N) D. Where f(N) = kappa N (kappa = 6: Kaplan et al. 2020, section 2.1), the
optimum has a closed form. Elsewhere f is a monotone curve in log-log space, extended beyond the
measured sizes with its end slopes (see `CostCurve.extrapolates`). `fitting.cost` measures it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import CubicHermiteSpline, PchipInterpolator, PPoly

from flops_fit.laws.model.arrays import Array

# Least d ln f / d ln N: a flat or falling cost would have no optimum.
LEAST_SLOPE = 0.05
# The grid's outer points, in ln N beyond the measured sizes, and its number of inner points.
FAR = 200.0
GRID = 1500


@dataclass(frozen=True)
class CostCurve:
    """FLOPs per token at a number of knots, interpolated between them.

    Attributes:
        log_params: ln N of the knots, increasing.
        log_flops_per_token: ln f(N) at the knots.
        errors: Changes of ln f at the knots by one standard error along each principal axis of the
            coefficients of a smoothed curve; empty if the curve goes through every measured cost.
    """

    log_params: tuple[float, ...]
    log_flops_per_token: tuple[float, ...]
    errors: tuple[tuple[float, ...], ...] = ()

    def flops_per_token(self, N: ArrayLike) -> Array:
        """FLOPs per token f(N), shape of N."""
        return np.exp(self.log_cost(np.log(np.asarray(N, float))))

    def extrapolates(self, N: ArrayLike) -> np.ndarray:
        """Whether each N lies more than 1 % outside the measured sizes, shape of N."""
        x = np.log(np.asarray(N, float))
        return (x < self.log_params[0] - 0.01) | (x > self.log_params[-1] + 0.01)

    def log_cost(self, x: ArrayLike) -> Array:
        """The logarithm of f at x = ln N."""
        x = np.asarray(x, float)
        low, high = self.log_params[0], self.log_params[-1]
        inside = np.clip(x, low, high)
        ends = self._end_slopes
        inner = (
            self._spline(inside) if self._spline else np.full(x.shape, self.log_flops_per_token[0])
        )
        return inner + ends[0] * np.minimum(x - low, 0) + ends[1] * np.maximum(x - high, 0)

    def slope(self, x: ArrayLike) -> Array:
        """The derivative d ln f / d ln N at x = ln N."""
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
        """Arrays (x, ln f, d ln f / dx) on a fine grid, with one point far out on either side."""
        low, high = self.log_params[0], self.log_params[-1]
        x = np.concatenate([[low - FAR], np.linspace(low, high, GRID), [high + FAR]])
        return x, self.log_cost(x), self.slope(x)

    @cached_property
    def _end_slopes(self) -> tuple[float, float]:
        """Slopes of straight lines through the lowest and the highest third of the knots."""
        x, f = np.array(self.log_params), np.array(self.log_flops_per_token)
        if len(x) == 1:
            return 1.0, 1.0
        k = max(2, len(x) // 3)
        low, high = np.polyfit(x[:k], f[:k], 1)[0], np.polyfit(x[-k:], f[-k:], 1)[0]
        return float(max(low, LEAST_SLOPE)), float(max(high, LEAST_SLOPE))

    @cached_property
    def _spline(self) -> CubicHermiteSpline | None:
        """A monotone cubic (PCHIP) that leaves the range with the end slopes; None for one knot."""
        x, f = np.array(self.log_params), np.array(self.log_flops_per_token)
        if len(x) == 1:
            return None
        # The end slopes replace PCHIP's own, so that the curve has no kink where it is extended.
        slopes = PchipInterpolator(x, f)(x, 1)
        slopes[0], slopes[-1] = self._end_slopes
        return CubicHermiteSpline(x, f, np.maximum(slopes, LEAST_SLOPE))

    @cached_property
    def _steepness(self) -> PPoly | None:
        """The derivative of the spline."""
        return None if self._spline is None else self._spline.derivative()


@dataclass(frozen=True)
class FlopsPerToken:
    """The cost of a token: f(N) = kappa N, or a measured curve.

    Attributes:
        flops_per_param_token: kappa, FLOPs per parameter and token; the median of f(N) / N if there
            is a curve.
        curve: The measured curve; None if f is proportional to N.
        scatter: Standard deviation of ln C / D of the single sizes about ln f(N); 0 where every
            measured cost lies on f, within 1 % if there is no curve.
        kappa_error: Standard error of ln kappa, if f is proportional to N.
    """

    flops_per_param_token: float = 6.0
    curve: CostCurve | None = None
    scatter: float = 0.0
    kappa_error: float = 0.0

    def one_error_away(self) -> list[FlopsPerToken]:
        """The costs one standard error away from f, along each axis of its uncertainty."""
        if self.curve is None:
            return [self.scaled(self.kappa_error)] if self.kappa_error else []
        return [replace(self, curve=_moved(self.curve, error)) for error in self.curve.errors]

    def scaled(self, log_factor: float) -> FlopsPerToken:
        """The cost exp(log_factor) f(N)."""
        curve = self.curve and _moved(self.curve, (log_factor,) * len(self.curve.log_params))
        kappa = self.flops_per_param_token * math.exp(log_factor)
        return replace(self, flops_per_param_token=kappa, curve=curve)


def _moved(curve: CostCurve, change: tuple[float, ...]) -> CostCurve:
    """The curve with ln f changed at each knot."""
    costs = np.maximum.accumulate(np.add(curve.log_flops_per_token, change))
    return replace(curve, log_flops_per_token=tuple(costs.tolist()))
