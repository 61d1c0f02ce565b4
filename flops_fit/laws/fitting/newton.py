"""Damped Newton on a batch: many small fits of the parametric law at once.

A batch consists of many starts on one table, or of one start on many resampled tables (`residuals`
has the law and the objective). Every member has its own damping and leaves the batch when it has
converged.

Each iteration tries two steps and keeps the better one: Newton's, with the exact Hessian, and the
re-weighted least-squares step, whose Hessian is always positive (it minimises a majoriser of
Huber's loss). With a delta far below the noise the objective is nearly a sum of absolute values.
The majoriser then approaches the optimum, and Newton settles which residuals lie within delta.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flops_fit.laws.fitting.residuals import (
    LOWER,
    UPPER,
    Problem,
    clip,
    hessian,
    objective,
    residuals_and_jacobian,
    tie_basis,
)
from flops_fit.laws.model.arrays import Array


@dataclass(frozen=True)
class Solution:
    """The end point of each member of a batch.

    Attributes:
        theta: End points, shape (S, 5), or (S, 6) with gamma.
        objective: Value of the objective, shape (S,).
        gradient: Largest cosine between the residuals and a column of the Jacobian, shape (S,).
        converged: Whether that cosine fell below the tolerance, shape (S,).
    """

    theta: Array
    objective: Array
    gradient: Array
    converged: NDArray[np.bool_]


def solve(problem: Problem, theta: Array, *, tol: float = 1e-9, max_iter: int = 200) -> Solution:
    """Minimise the objective from every start at once.

    Args:
        problem: The data and the objective.
        theta: Starts, shape (S, 5), or (S, 6) with gamma.
        tol: A member has converged when the cosine between its residuals and every column of its
            Jacobian is at most this.
        max_iter: Maximum number of iterations.

    Returns:
        The end point of every start, converged or not.
    """
    theta = clip(theta)
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
        """The derivatives at theta."""
        r, J, bend = residuals_and_jacobian(problem, theta)
        psi, slope, weight = _weights(problem, r)
        g = np.matmul(psi[:, None, :], J)[:, 0, :]
        plain = problem.delta is None and problem.weight is None
        major = J.transpose(0, 2, 1) @ (J if plain else J * weight[..., None])
        newton = hessian(problem, J, bend, psi, slope, g)
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


def _fold(part: Array, ties: tuple[int, ...]) -> Array:
    """Add up the rows (and columns) of tied parameters."""
    if len(ties) == max(ties) + 1:
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
    trials = clip(trials)
    with np.errstate(over="ignore", invalid="ignore"):
        values = np.nan_to_num(objective(problem, trials), nan=np.inf)
    pick, rows = values.argmin(axis=0), np.arange(len(theta))
    return trials[pick, rows], values[pick, rows]
