"""Fits that are linear in all but one or two shape parameters: a grid over those that zooms.

At each point of the grid the least-squares fit is exact, and so is the likelihood of the
measurements with the linear coefficients integrated out (flat prior, and Jeffreys' for the noise).
Draws from it show what the measurements leave open, such as a ceiling that no run comes near; no
optimiser has to find it. Bounds on the linear coefficients truncate the distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from flops_fit.laws.distributions import normal_log_mass
from flops_fit.laws.model.arrays import Array

# From shape parameters (g, s) to the columns that are linear, (g, n, q).
Design = Callable[[Array], Array]


@dataclass(frozen=True)
class Bound:
    """A bound on linear coefficients: weights @ b >= least.

    Attributes:
        weights: Shape (q,).
        least: The least value.
    """

    weights: tuple[float, ...]
    least: float = 0.0

    def log_mass(self, linear: Array, root: Array, noise: Array) -> Array:
        """Ln of the share of each point's distribution that keeps to it, shape (g,)."""
        weights = np.array(self.weights)
        sd = noise * np.linalg.norm(np.einsum("i,gij->gj", weights, root), axis=1)
        beyond = linear @ weights - self.least
        return np.asarray(normal_log_mass(beyond / np.maximum(sd, _TINY)))

    def holds(self, linear: Array) -> np.ndarray:
        """Which coefficients keep to it, but for rounding, shape (S,)."""
        return np.asarray(linear @ np.array(self.weights) >= self.least - _SLACK)


_POINTS = 36  # of the grid, along each shape parameter
_ZOOMS = 3
_LIKELY = 1e-5  # a point less likely than this share of the likeliest is left out of the next grid
_BLOCK = 1_000_000  # numbers of a design that are held at a time
_RIDGE = 1e-10
_SLACK = 1e-9
_ROUNDS, _SURPLUS = 5, 4  # of drawing until enough draws keep to the bounds
_TINY = 1e-300


@dataclass(frozen=True)
class ShapeGrid:
    """Least-squares fits at the g points of a grid.

    Attributes:
        shapes: Shape parameters, shape (g, s).
        linear: Linear coefficients, shape (g, q).
        rss: Sums of squares, shape (g,).
        root: Square roots of the inverse of X'X, shape (g, q, q).
        weights: Likelihoods, which sum to one, shape (g,).
        dof: Degrees of freedom of the noise: n less all parameters.
        bounds: Bounds on the coefficients.
    """

    shapes: Array
    linear: Array
    rss: Array
    root: Array
    weights: Array
    dof: int
    bounds: tuple[Bound, ...] = ()

    @property
    def scatter(self) -> float:
        """Standard deviation of the measurements about the likeliest fit."""
        return float(np.sqrt(self.rss[self.weights.argmax()] / self.dof))

    def draw(self, count: int, seed: int = 0) -> tuple[Array, Array]:
        """Shape parameters and linear coefficients, shape (S, s) and (S, q), S at most `count`.

        S is zero where hardly any draw keeps to the bounds.
        """
        rng = np.random.default_rng(seed)
        shapes, linear = [self.shapes[:0]], [self.linear[:0]]
        for _ in range(_ROUNDS):
            tried = _SURPLUS * count
            chosen = rng.choice(len(self.shapes), tried, p=self.weights)
            noise = np.sqrt(self.rss[chosen] / rng.chisquare(self.dof, tried))
            z = rng.standard_normal((tried, self.linear.shape[1]))
            drawn = self.linear[chosen] + noise[:, None] * np.einsum(
                "sij,sj->si", self.root[chosen], z
            )
            kept = np.all([np.ones(tried, bool), *(b.holds(drawn) for b in self.bounds)], axis=0)
            shapes.append(self.shapes[chosen][kept])
            linear.append(drawn[kept])
            if sum(map(len, linear)) >= count:
                break
        return np.concatenate(shapes)[:count], np.concatenate(linear)[:count]


def fit_shapes(
    design: Design,
    ranges: Sequence[tuple[float, float]],
    y: Array,
    dof: int,
    bounds: Sequence[Bound] = (),
) -> ShapeGrid:
    """Fit y = X(shape) b + noise.

    Args:
        design: X for the points of a grid.
        ranges: The least and the largest value of each shape parameter; equal ends fix it.
        y: The measurements, shape (n,).
        dof: Degrees of freedom of the noise, at least one.
        bounds: Bounds on the coefficients.
    """
    ranges = list(ranges)
    for _ in range(_ZOOMS):
        shapes = _points(ranges)
        likely = _fitted(design, shapes, y, dof, bounds).weights
        near = shapes[likely > _LIKELY * likely.max()]
        ranges = [
            (max(low, float(part.min()) - step), min(high, float(part.max()) + step))
            for (low, high), part in zip(ranges, near.T, strict=True)
            for step in [(high - low) / (_POINTS - 1)]
        ]
    return _fitted(design, _points(ranges), y, dof, bounds)


def _points(ranges: Sequence[tuple[float, float]]) -> Array:
    axes = [np.linspace(low, high, _POINTS if high > low else 1) for low, high in ranges]
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(ranges))


def _fitted(
    design: Design, shapes: Array, y: Array, dof: int, bounds: Sequence[Bound]
) -> ShapeGrid:
    block = max(1, _BLOCK // (4 * len(y)))
    parts = [_least_squares(design(shapes[i : i + block]), y) for i in range(0, len(shapes), block)]
    linear, rss, root, log_det = (np.concatenate(part) for part in zip(*parts, strict=True))
    # Without noise a sum of squares is rounding, which says nothing of the shape.
    rss = np.maximum(rss, max(1e-18 * float(y @ y), _TINY))
    log_weights = -0.5 * (len(y) - linear.shape[1]) * np.log(rss) - 0.5 * log_det
    for bound in bounds:
        log_weights += bound.log_mass(linear, root, np.sqrt(rss / dof))
    weights = np.exp(log_weights - log_weights.max())
    return ShapeGrid(shapes, linear, rss, root, weights / weights.sum(), dof, tuple(bounds))


def _least_squares(X: Array, y: Array) -> tuple[Array, Array, Array, Array]:
    """Coefficients, sums of squares, roots of the inverse of X'X, and ln det X'X."""
    gram = np.einsum("gni,gnj->gij", X, X)
    ridge = _RIDGE * np.trace(gram, axis1=1, axis2=2)[:, None, None] + _TINY
    values, vectors = np.linalg.eigh(gram + ridge * np.eye(X.shape[2]))
    values = np.maximum(values, _TINY)
    root = vectors / np.sqrt(values)[:, None, :]
    moments = np.einsum("gni,n->gi", X, y)
    linear = np.einsum("gij,gj->gi", root, np.einsum("gji,gj->gi", root, moments))
    rss = ((y - np.einsum("gni,gi->gn", X, linear)) ** 2).sum(axis=1)
    return linear, rss, root, np.log(values).sum(axis=1)
