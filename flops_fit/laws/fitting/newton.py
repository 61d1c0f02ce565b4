"""Damped Newton on a batch: many small fits of the parametric law at once.

The law is L = exp(e) + exp(a - alpha x) + exp(b - beta y). x = ln N and y = ln D are centred and
the loss is divided by its geometric mean, so that all five parameters are of order one. A batch
consists of many starts on one table, or of one start on many resampled tables. Every member has its
own damping and leaves the batch when it has converged.

Each iteration tries two steps and keeps the better one: Newton's, with the exact Hessian, and the
re-weighted least-squares step, whose Hessian is always positive (it minimises a majoriser of
Huber's loss). With a delta far below the noise the objective is nearly a sum of absolute values.
The majoriser then approaches the optimum, and Newton settles which residuals lie within delta.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flops_fit.laws.model.arrays import Array, Space

# For each of e, a, b, alpha, beta: which free parameter it is.
FREE = (0, 1, 2, 3, 4)
TIED = (0, 1, 2, 3, 3)

# Bounds of (e, a, b, alpha, beta) in centred logarithms. They are far outside what losses of order
# one can have, and keep the exponentials finite.
LOWER = np.array([-16.0, -30.0, -30.0, 0.01, 0.01])
UPPER = np.array([3.0, 30.0, 30.0, 3.0, 3.0])


@dataclass(frozen=True)
class Problem:
    """The objective: sum of w rho(r), with residuals r = ln(law / L) or law - L.

    Attributes:
        x: ln N, centred, shape (n,).
        y: ln D, centred, shape (n,).
        loss: Loss over its geometric mean, shape (n,), or one row per batch member, shape (S, n).
        space: Residuals of ln L ("log") or of L ("linear").
        delta: Huber's threshold; None for least squares.
        ties: For each of e, a, b, alpha, beta, which free parameter it is: `FREE` or `TIED`.
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


@dataclass(frozen=True)
class Solution:
    """The end point of each member of a batch.

    Attributes:
        theta: (e, a, b, alpha, beta), shape (S, 5).
        objective: Value of the objective, shape (S,).
        gradient: Largest cosine between the residuals and a column of the Jacobian, shape (S,).
        converged: Whether that cosine fell below the tolerance, shape (S,).
    """

    theta: Array
    objective: Array
    gradient: Array
    converged: NDArray[np.bool_]


def tie_basis(ties: tuple[int, ...]) -> Array:
    """The matrix that maps free parameters to (e, a, b, alpha, beta), shape (5, p)."""
    return np.eye(max(ties) + 1)[list(ties)]


def terms(problem: Problem, theta: Array) -> tuple[Array, Array, Array]:
    """The three terms of the law.

    Args:
        problem: The data.
        theta: (e, a, b, alpha, beta), shape (..., 5).

    Returns:
        E, A / N^alpha and B / D^beta in scaled units, shapes (..., 1), (..., n) and (..., n).
    """
    e, a, b, alpha, beta = (theta[..., j : j + 1] for j in range(5))
    return np.exp(e), np.exp(a - alpha * problem.x), np.exp(b - beta * problem.y)


def residuals(problem: Problem, theta: Array) -> Array:
    """Residuals ln(law / L), or law - L, shape (S, n)."""
    E, u, v = terms(problem, theta)
    return _residuals(problem, E + u + v)


def _residuals(problem: Problem, law: Array) -> Array:
    return np.log(law / problem.loss) if problem.space == "log" else law - problem.loss


def jacobian(problem: Problem, theta: Array) -> Array:
    """Derivatives of the residuals by e, a, b, alpha, beta, shape (S, n, 5)."""
    return residuals_and_jacobian(problem, theta)[1]


def residuals_and_jacobian(problem: Problem, theta: Array) -> tuple[Array, Array]:
    """Residuals and their derivatives, shapes (S, n) and (S, n, 5)."""
    E, u, v = terms(problem, theta)
    law = E + u + v
    J = np.empty((*u.shape, 5))
    J[..., 0], J[..., 1], J[..., 2] = E, u, v
    np.multiply(u, -problem.x, out=J[..., 3])
    np.multiply(v, -problem.y, out=J[..., 4])
    if problem.space == "log":
        J /= law[..., None]
    return _residuals(problem, law), J


def objective(problem: Problem, theta: Array) -> Array:
    """The value of the objective, shape (...) for theta of shape (..., 5)."""
    r = residuals(problem, theta)
    rho = 0.5 * r * r
    if problem.delta is not None:
        size = np.abs(r)
        rho = np.where(size <= problem.delta, rho, problem.delta * (size - 0.5 * problem.delta))
    if problem.weight is not None:
        rho = rho * problem.weight
    return np.asarray(rho.sum(axis=-1))


def gradient(problem: Problem, theta: Array) -> Array:
    """Gradient of the objective by e, a, b, alpha, beta, shape (S, 5)."""
    psi, _, _ = _weights(problem, residuals(problem, theta))
    return np.einsum("sn,snj->sj", psi, jacobian(problem, theta))


def solve(problem: Problem, theta: Array, *, tol: float = 1e-9, max_iter: int = 200) -> Solution:
    """Minimise the objective from every start at once.

    Args:
        problem: The data and the objective.
        theta: Starts, shape (S, 5).
        tol: A member has converged when the cosine between its residuals and every column of its
            Jacobian is at most this.
        max_iter: Maximum number of iterations.

    Returns:
        The end point of every start, converged or not.
    """
    theta = np.clip(theta, LOWER, UPPER)
    value = objective(problem, theta)
    cosine = np.full(len(theta), np.inf)
    damping = np.full(len(theta), 1e-3)
    live = np.arange(len(theta))
    for _ in range(max_iter):
        part = problem.rows(live)
        at, now = theta[live], value[live]
        slopes = _Slopes.at(part, at)
        cosine[live] = slopes.cosine(now)
        # A member stops when it has converged, when no step helps, or at an exact fit.
        unfinished = (cosine[live] > tol) & (damping[live] < 1e14) & (now > 1e-30 * part.x.size)
        if not unfinished.all():
            live = live[unfinished]
            if not live.size:
                break
            part = problem.rows(live)
            at, now, slopes = at[unfinished], now[unfinished], slopes.rows(unfinished)
        best, low = _best_step(part, at, slopes, damping[live])
        better = low < now
        theta[live[better]], value[live[better]] = best[better], low[better]
        # Levenberg-Marquardt: less damping after a step that helped, more after one that did not.
        damping[live] *= np.where(better, 0.2, 8.0)
        damping[live] = np.maximum(damping[live], 1e-12)
    converged = (cosine <= max(tol, 1e-7)) | (value <= 1e-30 * problem.x.size)
    # Rounding stops the descent near an optimum before the cosine reaches the tolerance.
    stalled = (damping >= 1e14) & (cosine <= 1e-4)
    return Solution(theta, value, cosine, converged | stalled)


def _weights(problem: Problem, r: Array) -> tuple[Array, Array, Array]:
    """Derivatives of rho: psi, psi' and psi / r, each times the weights of the runs, shape (S, n).

    psi / r is the weight of the majoriser (iteratively re-weighted least squares).
    """
    if problem.delta is None:
        psi, slope, major = r, np.ones_like(r), np.ones_like(r)
    else:
        size = np.maximum(np.abs(r), 1e-300)
        psi = np.clip(r, -problem.delta, problem.delta)
        slope = (size <= problem.delta).astype(float)
        major = np.minimum(1.0, problem.delta / size)
    if problem.weight is not None:
        psi, slope, major = (part * problem.weight for part in (psi, slope, major))
    return psi, slope, major


@dataclass(frozen=True)
class _Slopes:
    """Derivatives of the objective by the p free parameters.

    Attributes:
        gradient: Shape (S, p).
        newton: Exact Hessian, shape (S, p, p).
        major: Hessian of the majoriser, shape (S, p, p).
        blocked: Parameters that are at a bound and pushed outward, shape (S, p).
    """

    gradient: Array
    newton: Array
    major: Array
    blocked: NDArray[np.bool_]

    @classmethod
    def at(cls, problem: Problem, theta: Array) -> _Slopes:
        """The derivatives at theta, shape (S, 5)."""
        r, J = residuals_and_jacobian(problem, theta)
        psi, slope, weight = _weights(problem, r)
        g = np.matmul(psi[:, None, :], J)[:, 0, :]
        plain = problem.delta is None and problem.weight is None
        major = J.transpose(0, 2, 1) @ (J if plain else J * weight[..., None])
        newton = _hessian(problem, J, psi, slope, g)
        g, newton, major = (_fold(part, problem.ties) for part in (g, newton, major))
        return cls(g, newton, major, _blocked(theta, g, problem.ties))

    def rows(self, keep: NDArray[np.bool_]) -> _Slopes:
        """The derivatives of some members of the batch."""
        return _Slopes(self.gradient[keep], self.newton[keep], self.major[keep], self.blocked[keep])

    def cosine(self, value: Array) -> Array:
        """Largest cosine between residuals and Jacobian, over parameters that are not blocked."""
        lengths = np.sqrt(np.einsum("sjj->sj", self.major) * (2 * value[:, None])) + 1e-300
        return np.asarray(np.where(self.blocked, 0.0, np.abs(self.gradient) / lengths).max(axis=1))

    def step(self, hessian: Array, damping: Array) -> Array:
        """Damped steps, shape (..., S, p); zero for blocked parameters."""
        one = np.eye(self.gradient.shape[1])
        scale = np.einsum("sjj->sj", self.major) + 1e-12
        H = hessian + damping[:, None, None] * (scale[:, :, None] * one)
        if self.blocked.any():
            held = self.blocked[:, :, None] | self.blocked[:, None, :]
            H = np.where(held, one * scale[:, :, None], H)
        g = np.where(self.blocked, 0.0, self.gradient)
        # Scaling to a unit diagonal keeps the systems well conditioned.
        root = np.sqrt(scale)
        H = H / (root[:, :, None] * root[:, None, :]) + 1e-14 * one
        return -_solve(H, g / root) / root


def _solve(H: Array, g: Array) -> Array:
    """H^-1 g for each member; by the pseudo-inverse if any H is singular."""
    try:
        return np.asarray(np.linalg.solve(H, g[..., None])[..., 0], float)
    except np.linalg.LinAlgError:
        return np.asarray((np.linalg.pinv(H) @ g[..., None])[..., 0], float)


def _hessian(problem: Problem, J: Array, psi: Array, slope: Array, g: Array) -> Array:
    """Exact Hessian of the objective by the five parameters, shape (S, 5, 5).

    The second derivative of r is P / law - J J' in log space, and P in linear space, where P holds
    the second derivatives of the three terms. Each of these is a column of J times 1, -x or -y, so
    most of the sums that are needed are already in the gradient g.
    """
    weight = slope - psi if problem.space == "log" else slope
    H = J.transpose(0, 2, 1) @ (J * weight[..., None])
    for i, j in ((0, 0), (1, 1), (2, 2), (1, 3), (2, 4)):
        H[:, i, j] += g[:, j]
    H[:, 3, 1] += g[:, 3]
    H[:, 4, 2] += g[:, 4]
    H[:, 3, 3] -= np.einsum("sn,sn,n->s", psi, J[..., 3], problem.x)
    H[:, 4, 4] -= np.einsum("sn,sn,n->s", psi, J[..., 4], problem.y)
    return H


def _fold(part: Array, ties: tuple[int, ...]) -> Array:
    """Add up the rows (and columns) of tied parameters."""
    if ties == FREE:
        return part
    basis = tie_basis(ties)
    return part @ basis if part.ndim == 2 else basis.T @ part @ basis


def _blocked(theta: Array, g: Array, ties: tuple[int, ...]) -> NDArray[np.bool_]:
    """Whether each free parameter is at a bound and pushed outward, shape (S, p)."""
    first = [ties.index(j) for j in range(max(ties) + 1)]
    phi = theta[:, first]
    low, high = LOWER[first], UPPER[first]
    return ((phi <= low) & (g > 0)) | ((phi >= high) & (g < 0))


def _best_step(
    problem: Problem, theta: Array, slopes: _Slopes, damping: Array
) -> tuple[Array, Array]:
    """The better of Newton's and the majoriser's step, and the objective after it."""
    steps = slopes.step(np.stack([slopes.newton, slopes.major]), damping)
    trials = theta + np.clip(steps, -1.0, 1.0)[..., list(problem.ties)]
    trials = np.clip(trials, LOWER, UPPER)
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.nan_to_num(objective(problem, trials), nan=np.inf)
    pick, rows = values.argmin(axis=0), np.arange(len(theta))
    return trials[pick, rows], values[pick, rows]
