"""`IsoflopCurve`: a parabola or cubic in ln N through the losses of one compute budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flops_fit.laws.model.arrays import NAN, Array
from flops_fit.laws.options import Curve

# A cubic needs this many sizes; with fewer the curve is a parabola.
CUBIC_FROM = 7
# Fewest sizes for a curve: one more than the coefficients of a parabola.
LEAST_RUNS = 4
# Half-width in ln N of the runs used: 0.75 decades, with a margin for rounding.
WINDOW = 0.75 * np.log(10) * 1.001


@dataclass(frozen=True)
class IsoflopCurve:
    """The curve of one budget: loss = c0 + c1 z + c2 z^2 + c3 z^3, z = (ln N - centre) / scale.

    Attributes:
        budget: FLOPs.
        x: ln N of the runs used, shape (n,).
        loss: Their losses, shape (n,).
        centre: Mean of x.
        scale: Largest distance of x from the centre.
        degree: 2 or 3.
        coefs: Coefficients, lowest first, shape (degree + 1,); NaN with too few sizes.
        inverse: (V'V)^-1 of the design V, shape (degree + 1, degree + 1).
    """

    budget: float
    x: Array
    loss: Array
    centre: float
    scale: float
    degree: int
    coefs: Array
    inverse: Array

    @property
    def residuals(self) -> Array:
        """Loss less curve, shape (n,)."""
        return self.loss - np.polynomial.polynomial.polyval(self.z, self.coefs)

    @property
    def z(self) -> Array:
        """Scaled ln N, shape (n,); within -1 and 1."""
        return (self.x - self.centre) / self.scale

    @property
    def padded(self) -> Array:
        """Four coefficients; the last is zero for a parabola."""
        return np.concatenate([self.coefs, np.zeros(3 - self.degree)])

    @property
    def dof(self) -> int:
        """Degrees of freedom of the residuals."""
        return len(self.x) - self.degree - 1


def fit_curve(C: Array, N: Array, loss: Array, kind: Curve) -> IsoflopCurve:
    """The curve of one budget, through the runs around its minimum.

    The window is moved to the minimum of the curve up to two times.
    """
    x = np.log(N)
    middle = float(x[loss.argmin()])
    curve = _curve_through(C, x, loss, kind)
    for _ in range(2):
        near = np.abs(x - middle) <= WINDOW
        if np.ptp(x) <= 2 * WINDOW or num_sizes(x[near]) < LEAST_RUNS + 1:
            return curve
        curve = _curve_through(C[near], x[near], loss[near], kind)
        z = vertex(curve.padded)
        if z is None or not curve.z.min() < z < curve.z.max():
            return curve
        middle = curve.centre + curve.scale * z
    return curve


def _curve_through(C: Array, x: Array, loss: Array, kind: Curve) -> IsoflopCurve:
    """The least-squares curve through all of the given runs."""
    sizes = num_sizes(x)
    degree = 3 if kind == "cubic" and sizes >= CUBIC_FROM else 2
    centre = float(x.mean())
    scale = float(np.abs(x - centre).max()) or 1.0
    if sizes < LEAST_RUNS:
        coefs = np.full(degree + 1, NAN)
        inverse = np.full((degree + 1, degree + 1), NAN)
        return IsoflopCurve(_middle(C), x, loss, centre, scale, degree, coefs, inverse)
    V = np.vander((x - centre) / scale, degree + 1, increasing=True)
    inverse = np.asarray(np.linalg.pinv(V.T @ V), float)
    coefs = np.asarray(np.linalg.lstsq(V, loss, rcond=None)[0], float)
    return IsoflopCurve(_middle(C), x, loss, centre, scale, degree, coefs, inverse)


def num_sizes(x: Array) -> int:
    """The number of distinct sizes, from their ln N, shape (n,)."""
    return len(np.unique(np.round(x, 9)))


def _middle(C: Array) -> float:
    """The budget if all runs agree on it, else their geometric mean."""
    return float(C[0]) if (C == C[0]).all() else float(np.exp(np.log(C).mean()))


def vertex(c: Array) -> float | None:
    """The z at which the slope is zero and the curve convex; None if there is none."""
    if abs(c[3]) < 1e-9 * abs(c[2]) or c[3] == 0:
        return float(-c[1] / (2 * c[2])) if c[2] > 0 else None
    inner = c[2] ** 2 - 3 * c[1] * c[3]
    return float((-c[2] + np.sqrt(inner)) / (3 * c[3])) if inner > 0 else None
