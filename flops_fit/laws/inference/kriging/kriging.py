"""Kriging of a law's residuals: what the law misses, as a smooth function of N and D.

The residual of a run is g(u, v) + noise. u = ln N D and v = ln (N / D) are centred, and g is a
Gaussian process with a Matern 5/2 kernel. Its two lengths and its variance are not chosen: every
point of a grid of them counts by its restricted likelihood (Patterson & Thompson 1971), and so does
g = 0. The parameters of the law stay free (universal kriging: Cressie 1993, section 3.4). A misfit
that neighbouring runs share therefore widens their intervals, as fewer independent runs would. Away
from the runs g returns to zero, with its full variance.

The misfit is larger far from the compute-optimal frontier: its standard deviation grows with the
loss above the frontier.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from flops_fit.laws.fitting.parametric import TIES, ParametricFit, excess
from flops_fit.laws.fitting.residuals import Problem, at_bounds, jacobian, residuals, tie_basis
from flops_fit.laws.inference.backtest import NO_NOISE
from flops_fit.laws.inference.kriging.cells import LEAST_SPAN, Cells, averaged, neighbours
from flops_fit.laws.model.arrays import MAD_TO_STD, Array
from flops_fit.laws.runs.points import Points

# The grid: lengths of g in spans of the runs, along u and along v, and variance over the noise's.
LENGTHS = ((0.5, 1.0, 2.0, 4.0), (0.25, 0.5, 1.0, 2.0))
RATIOS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
# Probability of g = 0 before the runs are seen. Where the law is exact, intervals are then 2 to 7 %
# wider than without g (simulated); on public tables the choice hardly matters.
NO_MISFIT = 0.75
GROWTH = 10.0  # of the standard deviation of g, for each unit of ln L above the frontier
# Grid points that together hold this probability are used, at most so many.
ENOUGH, MOST_USED = 0.98, 12
FAR = 2.5  # standard deviations, beyond which runs count less in a Huber fit


@dataclass(frozen=True)
class Setting:
    """One point of the grid.

    Attributes:
        weight: Its probability.
        lengths: Lengths of g along u and v.
        ratio: Variance of g over that of the noise; 0 for g = 0.
        variance: Variance of the noise of one run.
    """

    weight: float
    lengths: tuple[float, float]
    ratio: float
    variance: float


@dataclass(frozen=True)
class Kriging:
    """A fitted law with its misfit.

    Attributes:
        fit: The law.
        cells: The runs.
        settings: The grid points in use.
        dof: Degrees of freedom of the residuals.
    """

    fit: ParametricFit
    cells: Cells
    settings: tuple[Setting, ...]
    dof: int

    @classmethod
    def of(cls, fit: ParametricFit, points: Points, residual: Array | None = None) -> Kriging:
        """The misfit of a fit, from its residuals at some runs, or from other residuals there."""
        x, y = np.log(points.N) - fit.centre[0], np.log(points.D) - fit.centre[1]
        r = excess(fit, points) if residual is None else residual
        weight = np.ones_like(r)
        if fit.delta is not None:
            limit = FAR * MAD_TO_STD * float(np.median(np.abs(r))) + 1e-300
            weight = np.minimum(1.0, limit / np.maximum(np.abs(r), limit))
        groups = neighbours(np.stack([x + y, x - y], axis=1))
        cells = averaged(x, y, r, weight, groups)
        within = float((weight * (r - cells.residual[groups]) ** 2).sum())
        bare = cls(fit, cells, (), len(r) - fit.num_free)
        return replace(bare, settings=_settings(bare, within))

    def posterior(self, x: Array, y: Array, factors: Array) -> tuple[Array, Array, Array]:
        """Sums of ln L (or of L over its mean) over stencils of models, less those of the law.

        Args:
            x: ln N, centred, shape (k, m).
            y: ln D, centred, shape (k, m).
            factors: What each model of a stencil counts, shape (k, m).

        Returns:
            Mean and variance, shape (k,) each, and the variance of the noise of one run, shape ().
        """
        slopes = self._slopes(x.ravel(), y.ravel()).reshape(*x.shape, -1)
        slopes = (slopes * factors[..., None]).sum(axis=1)
        at = _Models(x, y, self._size(x, y))
        parts = [self._posterior(i, at, factors, slopes) for i in range(len(self.settings))]
        weights = np.array([setting.weight for setting in self.settings])
        means, variances = (np.stack(column) for column in zip(*parts, strict=True))
        mean = weights @ means
        noise = weights @ np.array([setting.variance for setting in self.settings])
        return mean, weights @ (variances + (means - mean) ** 2), np.asarray(noise)

    def covariances(self, x: Array, y: Array, factors: Array) -> Array:
        """Covariances of sums of ln L (or of L over its mean) over models, given the runs.

        Args:
            x: ln N of the models, centred, shape (n,).
            y: ln D of the models, centred, shape (n,).
            factors: What each model counts in each sum, shape (q, n).

        Returns:
            One matrix for each setting, over that setting's variance of noise, shape (s, q, q).
        """
        slopes, at = factors @ self._slopes(x, y), _Models(x, y, self._size(x, y))
        parts = []
        for setting, solved in zip(self.settings, self._solved, strict=True):
            cross = factors @ self._kernel(setting, at[:, None], self._runs)
            G = np.linalg.solve(solved.root, (cross * np.sqrt(self.cells.weight)).T)
            of_g = factors @ self._kernel(setting, at[:, None], at) @ factors.T - G.T @ G
            rest = slopes - G.T @ solved.slopes
            parts.append(of_g + rest @ solved.inverse @ rest.T)
        return np.stack(parts)

    def mean(self, x: Array, y: Array) -> Array:
        """The mean that `posterior` has for models by themselves; x and y have the shape (k,)."""
        at = _Models(x[:, None], y[:, None], self._size(x, y)[:, None])
        slopes, ones = self._slopes(x, y), np.ones_like(at.x)
        means = (self._mean(i, at, ones, slopes)[0] for i in range(len(self.settings)))
        return np.asarray(sum(s.weight * m for s, m in zip(self.settings, means, strict=True)))

    def log_law(self, x: Array, y: Array) -> Array:
        """Log of the fitted loss over its mean, offset included, at centred ln N and ln D."""
        ones = Problem(x, y, np.ones_like(x))
        return np.asarray(residuals(ones, _theta(self.fit))[0])

    def _posterior(self, i: int, at: _Models, factors: Array, slopes: Array) -> tuple[Array, Array]:
        """Mean and variance under one setting, shape (k,) each."""
        setting, solved = self.settings[i], self._solved[i]
        mean, cross = self._mean(i, at, factors, slopes)
        if cross is None:
            return mean, setting.variance * np.einsum("kp,pq,kq->k", slopes, solved.inverse, slopes)
        G = np.linalg.solve(solved.root, cross.T)
        rest = slopes - G.T @ solved.slopes
        pairs = self._kernel(setting, at[:, :, None], at[:, None, :])
        variance = np.einsum("ka,kb,kab->k", factors, factors, pairs) - (G * G).sum(axis=0)
        variance += np.einsum("kp,pq,kq->k", rest, solved.inverse, rest)
        return mean, setting.variance * np.maximum(variance, 0.0)

    def _mean(self, i: int, at: _Models, factors: Array, slopes: Array) -> tuple[Array, Any]:
        """Mean under one setting, and covariance with the runs, shape (k, c), if there is any."""
        setting, solved = self.settings[i], self._solved[i]
        mean = slopes @ solved.shift
        if setting.ratio == 0:
            return mean, None
        cross = self._kernel(setting, at[..., None], self._runs)
        cross = (cross * factors[..., None]).sum(axis=1) * np.sqrt(self.cells.weight)
        return mean + cross @ solved.pull, cross

    @cached_property
    def _solved(self) -> list[_Solved]:
        return [_solve(self, setting) for setting in self.settings]

    def _slopes(self, x: Array, y: Array) -> Array:
        """Derivatives of the law by its free parameters, shape (k, p)."""
        problem = Problem(x, y, np.ones_like(x), self.fit.space)
        return np.asarray(jacobian(problem, _theta(self.fit))[0] @ self._basis)

    @cached_property
    def _basis(self) -> Array:
        """The map from free parameters to theta, without those at a bound."""
        theta = np.array(self.fit.theta)
        basis = tie_basis(TIES[self.fit.form])
        return basis[:, ~(basis[at_bounds(theta)] > 0).any(axis=0)]

    @cached_property
    def _spans(self) -> tuple[float, float]:
        u, v = self.cells.x + self.cells.y, self.cells.x - self.cells.y
        return max(float(np.ptp(u)), LEAST_SPAN), max(float(np.ptp(v)), LEAST_SPAN)

    @cached_property
    def _runs(self) -> _Models:
        x, y = self.cells.x, self.cells.y
        return _Models(x, y, self._size(x, y))

    def _kernel(self, setting: Setting, one: _Models, other: _Models) -> Array:
        """Covariance of g between models, over the variance of noise; the shapes broadcast."""
        u, v = one.x + one.y - other.x - other.y, one.x - one.y - other.x + other.y
        scale_u, scale_v = np.multiply(setting.lengths, self._spans)
        d = np.sqrt(5 * ((u / scale_u) ** 2 + (v / scale_v) ** 2))
        matern = (1 + d + d * d / 3) * np.exp(-d)
        return np.asarray(setting.ratio * matern * one.size * other.size)

    def _size(self, x: Array, y: Array) -> Array:
        """The standard deviation of g over that on the frontier, in the shape of x and y."""
        x, y = np.broadcast_arrays(x, y)
        _, a, b, q, s = self.fit.theta[:5]
        gamma = self.fit.theta[5] if len(self.fit.theta) > 5 else 1.0
        total = (x + y).ravel()
        best = (gamma * np.log(q / s) + a - b + s * total) / (q + s)
        excess = self.log_law(x.ravel(), y.ravel()) - self.log_law(best, total - best)
        return np.asarray(1 + GROWTH * np.maximum(excess, 0.0)).reshape(x.shape)


@dataclass(frozen=True)
class _Models:
    """Models at which g is looked at: centred ln N and ln D, and the size of g, in one shape."""

    x: Array
    y: Array
    size: Array

    def __getitem__(self, index: Any) -> _Models:
        return _Models(self.x[index], self.y[index], self.size[index])


@dataclass(frozen=True)
class _Solved:
    """What one setting needs for its posterior; all but `pull` in units of the noise.

    Attributes:
        root: Cholesky factor of the covariance of the residuals, shape (c, c).
        slopes: The law's derivatives at the runs over that root, shape (c, p).
        inverse: Covariance of the shift of the law's parameters, shape (p, p).
        shift: That shift, shape (p,).
        pull: Weight of each residual's neighbourhood in g, shape (c,).
    """

    root: Array
    slopes: Array
    inverse: Array
    shift: Array
    pull: Array


def _solve(kriging: Kriging, setting: Setting) -> _Solved:
    J, r, K = _whitened(kriging, setting)
    root = np.linalg.cholesky(np.eye(len(r)) + K)
    slopes, rest = (np.asarray(np.linalg.solve(root, part), float) for part in (J, r))
    inverse = _inverse(slopes)
    shift = inverse @ (slopes.T @ rest)
    pull = np.linalg.solve(root.T, rest - slopes @ shift)
    return _Solved(np.asarray(root, float), slopes, inverse, shift, np.asarray(pull, float))


def _inverse(slopes: Array) -> Array:
    """(J'J)^-1 with columns scaled to length one, shape (p, p)."""
    lengths = np.linalg.norm(slopes, axis=0) + 1e-300
    half = np.linalg.pinv(slopes / lengths, rcond=1e-9) / lengths[:, None]
    return np.asarray(half @ half.T)


def _whitened(kriging: Kriging, setting: Setting) -> tuple[Array, Array, Array]:
    """Derivatives, residuals and covariance of g, for noise of variance one in every cell."""
    cells = kriging.cells
    w = np.sqrt(cells.weight)
    K = kriging._kernel(setting, kriging._runs[:, None], kriging._runs)
    J = kriging._slopes(cells.x, cells.y)
    return J * w[:, None], cells.residual * w, K * w[:, None] * w


def _settings(bare: Kriging, within: float) -> tuple[Setting, ...]:
    """The grid points that matter, with their probabilities.

    Args:
        bare: A kriging without settings.
        within: Sum of squares of the residuals about the mean of their cell.
    """
    zero = Setting(1.0, (1.0, 1.0), 0.0, 0.0)
    J, r, _ = _whitened(bare, zero)
    left, sizes, _ = np.linalg.svd(J / (np.linalg.norm(J, axis=0) + 1e-300))
    beyond = left[:, int((sizes > 1e-9 * sizes[0]).sum()) :]
    z = beyond.T @ r
    found = [
        (np.log(NO_MISFIT), replace(zero, variance=_variance(float(z @ z) + within, bare.dof)))
    ]
    found[0] = (found[0][0] + _likelihood(found[0][1].variance, 0.0, bare.dof), found[0][1])
    if bare.fit.residual_std < NO_NOISE:
        # A smooth misfit of rounding errors is none.
        return (found[0][1],)
    grid = [(u, v) for u in LENGTHS[0] for v in LENGTHS[1]]
    prior = np.log((1 - NO_MISFIT) / (len(grid) * len(RATIOS)))
    for lengths in grid:
        K = _whitened(bare, replace(zero, lengths=lengths, ratio=1.0))[2]
        values, axes = np.linalg.eigh(beyond.T @ K @ beyond)
        values, squares = np.maximum(values, 0.0), (axes.T @ z) ** 2
        for ratio in RATIOS:
            inflated = 1 + ratio * values
            variance = _variance(float((squares / inflated).sum()) + within, bare.dof)
            evidence = _likelihood(variance, float(np.log(inflated).sum()), bare.dof)
            found.append((prior + evidence, Setting(1.0, lengths, ratio, variance)))
    return _likely(found)


def _variance(squares: float, dof: int) -> float:
    return max(squares, 1e-28) / max(dof, 1)


def _likelihood(variance: float, log_det: float, dof: int) -> float:
    """The logarithm of the restricted likelihood, up to a constant."""
    return -0.5 * (dof * float(np.log(variance)) + log_det)


def _likely(found: list[tuple[float, Setting]]) -> tuple[Setting, ...]:
    """The most probable settings, with probabilities that add up to one."""
    logs = np.array([log for log, _ in found])
    weights = np.exp(logs - logs.max())
    order = np.argsort(-weights, kind="stable")
    share = np.cumsum(weights[order]) / weights.sum()
    used = order[: min(int(np.searchsorted(share, ENOUGH)) + 1, MOST_USED)]
    total = weights[used].sum()
    return tuple(replace(found[i][1], weight=float(weights[i] / total)) for i in used)


def _theta(fit: ParametricFit) -> Array:
    return np.array([fit.theta])
