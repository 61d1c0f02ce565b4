"""Measure the cost of a token: f(N) from the FLOPs that finished runs spent.

Counted costs of models of one family lie on a smooth curve, and f is interpolated through them.
Costs that were rounded ("1e20 FLOPs"), or of models that differ in shape, scatter about a smooth
curve. Interpolation would turn the scatter into steps of f, and the optimum would sit on them.
There f is a polynomial of low degree in ln N, and the scatter about it is recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator

from flops_fit.laws.model.arrays import MAD_TO_STD, Array
from flops_fit.laws.model.cost import CostCurve, FlopsPerToken

# Costs whose ratio f(N) / N varies by less than this are taken as proportional to N.
PROPORTIONAL_WITHIN = 0.01
# Sizes are merged until at most this many knots are left.
MOST_KNOTS = 64
# Interpolation is kept if a size that is left out of it is predicted within this share of the
# distance to its neighbours in ln N: d ln f / d ln N is known to about 0.02 then, N_opt to 3 %.
SMOOTH_WITHIN = 0.02
# Fewest sizes of which each inner one can be predicted by the others.
FEW_SIZES = 5
# Degrees of the smooth curves in ln N; 0 stands for f proportional to N. The lowest one is taken
# whose error on a size left out is at most this many times the least.
DEGREES = (0, 1, 2, 3)
AS_GOOD = 1.25
# A cost this many standard deviations from the curve does not count, nor one within 0.1 % trimmed.
TRIM = 6.0
LEAST_SCATTER = 1e-3
# Knots of a smooth curve.
SMOOTH_KNOTS = 13


@dataclass(frozen=True)
class _Smooth:
    """A polynomial of low degree through ln f, as a function of u = (x - middle) / half.

    Attributes:
        degree: Its degree; 0: ln f = x + constant.
        axes: Middle and half-width of x = ln N.
        coefficients: Of 1, u, u^2 and so on.
        inverse: (V'V)^-1 of the sizes that were not trimmed.
        scatter: Standard deviation of their residuals.
        left_out_error: Root mean square error on a size that is left out.
    """

    degree: int
    axes: tuple[float, float]
    coefficients: Array
    inverse: Array
    scatter: float
    left_out_error: float

    def basis(self, x: Array) -> Array:
        """1, u, u^2 and so on at x, shape (n, degree + 1)."""
        middle, half = self.axes
        return np.vander((x - middle) / half, self.degree + 1, increasing=True)


def measure_cost(N: Sequence[float] | Array, D: Sequence[float] | Array, C: Array) -> FlopsPerToken:
    """Measure FLOPs per token from finished runs.

    Args:
        N: Parameters of each run, shape (n,).
        D: Tokens of each run, shape (n,).
        C: FLOPs that each run spent, shape (n,).
    """
    x = np.log(np.asarray(N, float))
    f = np.log(np.asarray(C, float)) - np.log(np.asarray(D, float))
    ratio = f - x
    kappa = float(np.exp(np.median(ratio)))
    if np.ptp(ratio) <= 2 * PROPORTIONAL_WITHIN:
        return FlopsPerToken(kappa)
    knots_x, knots_f = _knots(x, f)
    if _interpolates(knots_x, knots_f):
        costs = np.maximum.accumulate(knots_f)
        return FlopsPerToken(kappa, CostCurve(tuple(knots_x.tolist()), tuple(costs.tolist())))
    return _smoothed(kappa, knots_x, knots_f)


def _knots(x: Array, f: Array) -> tuple[Array, Array]:
    """The median cost at each size. Sizes within 0.1 % count as one."""
    order = np.argsort(x, kind="stable")
    x, f = x[order], f[order]
    group = np.concatenate([[0], np.cumsum(np.diff(x) > 1e-3)])
    if group[-1] >= MOST_KNOTS:
        # Too many sizes: merge them in equal steps of ln N.
        edges = np.linspace(x[0], x[-1], MOST_KNOTS + 1)[1:-1]
        group = np.searchsorted(edges, x)
    labels = np.unique(group)
    knots = np.array([np.median(x[group == g]) for g in labels])
    costs = np.array([np.median(f[group == g]) for g in labels])
    return knots, costs


def _interpolates(x: Array, f: Array) -> bool:
    """Whether interpolation of the other sizes predicts each size, so that its slope is smooth."""
    if len(x) < FEW_SIZES:
        return True
    errors = []
    for i in range(1, len(x) - 1):
        others = np.arange(len(x)) != i
        gap = min(x[i] - x[i - 1], x[i + 1] - x[i])
        errors.append((float(PchipInterpolator(x[others], f[others])(x[i])) - f[i]) / gap)
    return bool(np.sqrt(np.mean(np.square(errors))) <= SMOOTH_WITHIN)


def _smoothed(kappa: float, x: Array, f: Array) -> FlopsPerToken:
    """The smooth curve of lowest degree that predicts a size left out about as well as any."""
    curves = [_fit(degree, x, f) for degree in DEGREES if degree + 3 <= len(x)]
    least = min(curve.left_out_error for curve in curves)
    chosen = next(curve for curve in curves if curve.left_out_error <= AS_GOOD * least)
    if chosen.degree == 0:
        error = chosen.scatter * float(np.sqrt(chosen.inverse[0, 0]))
        return FlopsPerToken(float(np.exp(chosen.coefficients[0])), None, chosen.scatter, error)
    knots = np.linspace(x[0], x[-1], SMOOTH_KNOTS)
    basis = chosen.basis(knots)
    costs = np.maximum.accumulate(basis @ chosen.coefficients)
    values, axes = np.linalg.eigh(chosen.inverse)
    errors = (basis @ (axes * np.sqrt(np.maximum(values, 0.0)))).T * chosen.scatter
    rows = tuple(tuple(row) for row in errors.tolist())
    curve = CostCurve(tuple(knots.tolist()), tuple(costs.tolist()), rows)
    return FlopsPerToken(kappa, curve, chosen.scatter)


def _fit(degree: int, x: Array, f: Array) -> _Smooth:
    """Least squares, without the costs far from the curve; these are found in a few rounds."""
    axes = ((x[0] + x[-1]) / 2, (x[-1] - x[0]) / 2)
    V = np.vander((x - axes[0]) / axes[1], degree + 1, increasing=True)
    target = f - x if degree == 0 else f
    keep = np.ones(len(x), bool)
    for _ in range(10):
        inverse = np.linalg.pinv(V[keep].T @ V[keep])
        coefficients = inverse @ V[keep].T @ target[keep]
        r = target - V @ coefficients
        limit = TRIM * max(MAD_TO_STD * float(np.median(np.abs(r))), LEAST_SCATTER)
        near = np.abs(r) <= limit
        if (near == keep).all() or near.sum() < degree + 3:
            break
        keep = near
    leverage = np.minimum(np.einsum("ij,jk,ik->i", V, inverse, V), 1 - 1e-6)
    scatter = float(np.sqrt((r[keep] ** 2).sum() / (keep.sum() - degree - 1)))
    # A trimmed cost counts as far off as the farthest one that was kept may be.
    left_out = np.minimum(np.abs(r) / np.where(keep, 1 - leverage, 1.0), limit)
    error = float(np.sqrt(np.mean(left_out**2)))
    return _Smooth(degree, axes, coefficients, inverse, scatter, error)
