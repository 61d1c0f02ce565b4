"""Residuals of the parametric law, their derivatives, and the objective that a fit minimises.

x = ln N and y = ln D are centred and the loss is divided by its geometric mean, so that all
parameters are of order one. With U = exp(a - q x) and V = exp(b - s y), the law is

    L = exp(e) + P,    P = (U^(1 / gamma) + V^(1 / gamma))^gamma,

so that q = gamma alpha and s = gamma beta. These are the exponents with which the loss falls where
one term is much larger than the other; the data determine them far better than alpha and beta.
theta is (e, a, b, q, s, gamma), or (e, a, b, q, s) where gamma = 1, which is the law of five
parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flops_fit.laws.model.arrays import Array, Space

# For each element of theta: which free parameter it is. `BENT` has gamma; the others hold it at 1.
FREE = (0, 1, 2, 3, 4)
TIED = (0, 1, 2, 3, 3)
BENT = (0, 1, 2, 3, 4, 5)

# Bounds of (e, a, b, q, s, gamma) in centred logarithms. Those of the first five are far outside
# what losses of order one can have, and keep the exponentials finite. At gamma = 0.1 the law is all
# but the larger of its two terms.
LOWER = np.array([-16.0, -30.0, -30.0, 0.01, 0.01, 0.1])
UPPER = np.array([3.0, 30.0, 30.0, 3.0, 3.0, 3.0])


@dataclass(frozen=True)
class Problem:
    """The objective: sum of w rho(r), with residuals r = ln(law / L) or law - L.

    Attributes:
        x: ln N, centred, shape (n,).
        y: ln D, centred, shape (n,).
        loss: Loss over its geometric mean, shape (n,), or one row per batch member, shape (S, n).
        space: Residuals of ln L ("log") or of L ("linear").
        delta: Huber's threshold; None for least squares.
        ties: For each element of theta, which free parameter it is: `FREE`, `TIED` or `BENT`.
        weight: Weight of each run, shape (n,) or (S, n); None for equal weights.
    """

    x: Array
    y: Array
    loss: Array
    space: Space = "log"
    delta: float | None = None
    ties: tuple[int, ...] = FREE
    weight: Array | None = None

    def rows(self, keep: NDArray[np.intp]) -> Problem:
        """The same problem for the batch members with these indices."""
        loss = self.loss[keep] if self.loss.ndim == 2 else self.loss
        weight = self.weight
        if weight is not None and weight.ndim == 2:
            weight = weight[keep]
        return replace(self, loss=loss, weight=weight)


def tie_basis(ties: tuple[int, ...]) -> Array:
    """The matrix that maps free parameters to theta, shape (len(ties), p)."""
    return np.eye(max(ties) + 1)[list(ties)]


def clip(theta: Array) -> Array:
    """Theta within its bounds, shape (..., 5) or (..., 6)."""
    p = theta.shape[-1]
    return np.clip(theta, LOWER[:p], UPPER[:p])


def at_bounds(theta: Array) -> NDArray[np.bool_]:
    """Whether each element of theta is at a bound, in the shape of theta."""
    p = theta.shape[-1]
    return (theta <= LOWER[:p] + 1e-9) | (theta >= UPPER[:p] - 1e-9)


def residuals(problem: Problem, theta: Array) -> Array:
    """Residuals ln(law / L), or law - L, shape (S, n)."""
    e, u, v = _terms(problem, theta)
    if theta.shape[-1] == 5:
        return _residuals(problem, np.exp(e) + np.exp(u) + np.exp(v))
    gamma = theta[..., 5:6]
    lesser = np.exp(-np.abs(u - v) / gamma)
    power = np.exp(np.maximum(u, v) + gamma * np.log1p(lesser))
    return _residuals(problem, np.exp(e) + power)


def _terms(problem: Problem, theta: Array) -> tuple[Array, Array, Array]:
    """e, ln U and ln V, shapes (..., 1), (..., n) and (..., n)."""
    e, a, b, q, s = (theta[..., j : j + 1] for j in range(5))
    return e, a - q * problem.x, b - s * problem.y


def _residuals(problem: Problem, law: Array) -> Array:
    return np.log(law / problem.loss) if problem.space == "log" else law - problem.loss


def objective(problem: Problem, theta: Array) -> Array:
    """The value of the objective, shape (...) for theta of shape (..., 5) or (..., 6)."""
    r = residuals(problem, theta)
    rho = 0.5 * r * r
    if problem.delta is not None:
        size = np.abs(r)
        rho = np.where(size <= problem.delta, rho, problem.delta * (size - 0.5 * problem.delta))
    if problem.weight is not None:
        rho = rho * problem.weight
    return np.asarray(rho.sum(axis=-1))


def jacobian(problem: Problem, theta: Array) -> Array:
    """Derivatives of the residuals by theta, shape (S, n, 5) or (S, n, 6)."""
    return residuals_and_jacobian(problem, theta)[1]


def residuals_and_jacobian(problem: Problem, theta: Array) -> tuple[Array, Array, _Bend | None]:
    """Residuals, shape (S, n), their derivatives by theta, and the bend of a law that has one."""
    e, u, v = _terms(problem, theta)
    E, bend = np.exp(e), None
    J = np.empty((*u.shape, theta.shape[-1]))
    if theta.shape[-1] == 5:
        u, v = np.exp(u), np.exp(v)
        law = E + u + v
    else:
        bend = _Bend.at(u, v, theta)
        u, v = bend.power * bend.share, bend.power * (1 - bend.share)
        law = E + bend.power
        J[..., 5] = bend.power * bend.entropy
    J[..., 0], J[..., 1], J[..., 2] = E, u, v
    np.multiply(u, -problem.x, out=J[..., 3])
    np.multiply(v, -problem.y, out=J[..., 4])
    if problem.space == "log":
        J /= law[..., None]
    return _residuals(problem, law), J, bend


def hessian(
    problem: Problem, J: Array, bend: _Bend | None, psi: Array, slope: Array, g: Array
) -> Array:
    """Exact Hessian of the objective by theta, shape (S, p, p).

    The second derivative of r is that of the law over the law, less J J', in log space; and that of
    the law alone in linear space.

    Args:
        problem: The data and the objective.
        J: Derivatives of the residuals, shape (S, n, p).
        bend: The bend of a law that has one.
        psi: Derivative of rho, times the weights, shape (S, n).
        slope: Second derivative of rho, times the weights, shape (S, n).
        g: Gradient of the objective by theta, shape (S, p).
    """
    weight = slope - psi if problem.space == "log" else slope
    H = J.transpose(0, 2, 1) @ (J * weight[..., None])
    H[:, 0, 0] += g[:, 0]
    if bend is not None:
        H[:, 1:, 1:] += bend.curvature(problem, J[..., 1:], psi)
        return H
    # Second derivatives of U and V are columns of J times 1, -x or -y, so most of the sums that are
    # needed are already in the gradient.
    for i, j in ((1, 1), (2, 2), (1, 3), (2, 4)):
        H[:, i, j] += g[:, j]
    H[:, 3, 1] += g[:, 3]
    H[:, 4, 2] += g[:, 4]
    H[:, 3, 3] -= np.einsum("sn,sn,n->s", psi, J[..., 3], problem.x)
    H[:, 4, 4] -= np.einsum("sn,sn,n->s", psi, J[..., 4], problem.y)
    return H


@dataclass(frozen=True)
class _Bend:
    """P = (U^(1 / gamma) + V^(1 / gamma))^gamma and what its derivatives are made of.

    d ln P is w d ln U + (1 - w) d ln V + H(w) d gamma, where w is the share of U^(1 / gamma) in the
    sum and H its entropy.

    Attributes:
        power: P, shape (S, n).
        share: w, shape (S, n).
        entropy: -w ln w - (1 - w) ln(1 - w), shape (S, n).
        ratio: z = ln(U / V) / gamma, shape (S, n).
        gamma: Shape (S, 1).
    """

    power: Array
    share: Array
    entropy: Array
    ratio: Array
    gamma: Array

    @classmethod
    def at(cls, u: Array, v: Array, theta: Array) -> _Bend:
        """The bend at u = ln U and v = ln V."""
        gamma = theta[..., 5:6]
        z = (u - v) / gamma
        size = np.abs(z)
        lesser = np.exp(-size)
        log_sum = np.log1p(lesser)
        power = np.exp(np.maximum(u, v) + gamma * log_sum)
        lesser /= 1 + lesser
        share = np.where(z > 0, 1 - lesser, lesser)
        return cls(power, share, log_sum + size * lesser, z, gamma)

    def curvature(self, problem: Problem, J: Array, psi: Array) -> Array:
        """The part of the Hessian by the second derivatives of P, shape (S, 5, 5).

        That of ln P by (ln U, ln V, gamma) is k m m', k = w (1 - w) / gamma and m = (1, -1, -z).

        Args:
            problem: The data and the objective.
            J: Derivatives of the residuals by (a, b, q, s, gamma), shape (S, n, 5).
            psi: Derivative of rho, times the weights, shape (S, n).
        """
        w, h, z = self.share, self.entropy, self.ratio
        # P over the law in log space, and P in linear space: the sum of the first two columns.
        whole = psi * (J[..., 0] + J[..., 1])
        bent = whole * w * (1 - w) / self.gamma
        of_u, of_v = whole * w, whole * (1 - w)
        turn = bent * z
        # The second derivatives by (ln U, ln V, gamma), and what each is a derivative by: ln U
        # falls with q by x, and ln V falls with s by y.
        x, y, one = -problem.x, -problem.y, np.ones_like(problem.x)
        H = np.empty((len(whole), 5, 5))
        for part, first, second, rows, columns in (
            (of_u * w + bent, (one, x), (one, x), (0, 2), (0, 2)),
            (of_u * (1 - w) - bent, (one, x), (one, y), (0, 2), (1, 3)),
            (of_v * (1 - w) + bent, (one, y), (one, y), (1, 3), (1, 3)),
            (of_u * h - turn, (one, x), (one,), (0, 2), (4,)),
            (of_v * h + turn, (one, y), (one,), (1, 3), (4,)),
            (whole * h * h + turn * z, (one,), (one,), (4,), (4,)),
        ):
            features = np.stack([f * g for f in first for g in second], axis=1)
            sums = (part @ features).reshape(-1, len(first), len(second))
            H[:, np.array(rows)[:, None], list(columns)] = sums
            H[:, np.array(columns)[:, None], list(rows)] = sums.transpose(0, 2, 1)
        return H
