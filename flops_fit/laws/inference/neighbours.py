"""Which runs are out of line with their neighbours, though the law itself may be wrong.

Real losses leave the law in smooth curves. The runs at a row's end, or of the largest budget, then
lie far from the law and close to each other: misfit, not outliers. A run is out of line if it lies
far from what the other runs say of its place. The excess of each run, ln L - ln law, is modelled as

    excess = J b + g(u, v) + noise,

where J b is a change of the law's parameters and g a smooth Gaussian process with mean zero over
u = ln N D and v = ln D / N (Rasmussen & Williams 2006, section 2.7). The ratio of the variances of
g and of the noise maximises the restricted likelihood of the runs that are in line. Without misfit
g is zero, and the test is that of deleted residuals; a run without neighbours is compared with the
law.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flops_fit.laws.distributions import t_quantile
from flops_fit.laws.model.arrays import MAD_TO_STD, Array
from flops_fit.laws.runs.budgets import group_budgets
from flops_fit.laws.runs.points import Points

# Length scales of g, in standard deviations of u and v over the runs.
LENGTHS = (0.7, 1.5)
# Variance of g over that of the noise.
RATIOS = (0.0, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
# g is a sum of at most this many kernels, centred on runs.
MOST_CENTRES = 48
# The runs within this many robust standard deviations of the law are in line at first ...
FIRST = 3.0
# ... and the set of them is revised at most this many times.
ROUNDS = 10
# Level of the two-sided test of all runs together (Bonferroni).
LEVEL = 0.01
# A run this many robust standard deviations above the law has failed, as neighbours may have too.
FAILED = 10.0
# Fewest runs of a row whose runs cannot all be outliers.
LEAST_IN_ROW = 4
# Residuals below this are rounding, not noise: noise-free runs are all kept.
FLOOR = 1e-7


@dataclass(frozen=True)
class _Basis:
    """Columns that excess is regressed on: p of the law, shape (n, p + m), and m of g."""

    F: Array
    p: int

    def scaled(self, ratio: float) -> Array:
        """What each column is multiplied by, shape (p + m,)."""
        return np.where(np.arange(self.F.shape[1]) < self.p, 1.0, np.sqrt(ratio))


@dataclass(frozen=True)
class _Trend:
    """A regression on the runs that are in line, with g shrunk towards zero.

    Attributes:
        evidence: The restricted log likelihood.
        root: Cholesky factor of the penalised Gram matrix, shape (p + m, p + m).
        moments: Its inverse times the moments, shape (p + m,).
        rss: The penalised sum of squared residuals.
        scale: What each column of the basis is multiplied by, shape (p + m,).
    """

    evidence: float
    root: Array
    moments: Array
    rss: float
    scale: Array


def out_of_line(excess: Array, J: Array, points: Points) -> Array:
    """+1 for runs far above their neighbours, -1 for runs far below, else 0; shape (n,).

    Args:
        excess: How far each run lies above a robust fit of the law, shape (n,).
        J: Derivatives of the law's residuals by the free parameters, shape (n, p).
        points: The runs.
    """
    law = np.linalg.qr(J / (np.linalg.norm(J, axis=0) + 1e-300))[0]
    bases = [
        _Basis(np.hstack([law, _kernel_features(points, length)]), law.shape[1])
        for length in LENGTHS
    ]
    away = excess - np.median(excess)
    # A Huber fit passes through about as many runs as it has parameters: these show no noise.
    scale = MAD_TO_STD * np.median(np.sort(np.abs(away))[law.shape[1] :]) + FLOOR
    inside = np.abs(away) <= FIRST * scale
    t, limit = away / scale, FIRST
    for _ in range(ROUNDS):
        t, limit = _deleted_residuals(excess, bases, inside)
        now = np.abs(t) <= limit
        if (now == inside).all():
            break
        inside = now
    side = np.sign(t) * (np.abs(t) > limit)
    side = np.where(_most_of_a_row(side != 0, points), 0.0, side)
    return np.where(away > FAILED * scale, 1.0, side)


def _most_of_a_row(out: np.ndarray, points: Points) -> np.ndarray:
    """Whether each run belongs to a row of which most runs would be left out, shape (n,).

    There the law is wrong, not the row.
    """
    rows = group_budgets(points.N * points.D)
    size, lost = np.bincount(rows), np.bincount(rows, out)
    return ((size >= LEAST_IN_ROW) & (lost > size / 2))[rows]


def _kernel_features(points: Points, length: float) -> Array:
    """Columns whose products are a Gaussian kernel, shape (n, m)."""
    x, y = np.log(points.N), np.log(points.D)
    axes = [x + y, y - x]
    if points.unique is not None:
        axes.append(y - np.log(points.unique))
    at = np.stack(axes, axis=1)
    at = (at - at.mean(axis=0)) / (at.std(axis=0) + 1e-9) / length
    order = np.lexsort(at.T[::-1])
    pick = np.unique(np.linspace(0, len(at) - 1, MOST_CENTRES).round().astype(int))
    centres = at[order[pick]]
    values, vectors = np.linalg.eigh(_kernel(centres, centres))
    keep = values > 1e-8 * values[-1]
    return _kernel(at, centres) @ (vectors[:, keep] / np.sqrt(values[keep]))


def _kernel(a: Array, b: Array) -> Array:
    return np.asarray(np.exp(-0.5 * ((a[:, None] - b[None]) ** 2).sum(axis=2)))


def _deleted_residuals(
    excess: Array, bases: list[_Basis], inside: np.ndarray
) -> tuple[Array, float]:
    """T of each run against a trend through the runs in line without it, and its limit."""
    fits = [(fit, basis) for basis in bases for fit in _trends(excess, basis, inside)]
    fit, basis = max(fits, key=lambda pair: pair[0].evidence)
    dof = max(int(inside.sum()) - basis.p - 1, 1)
    W = np.linalg.solve(fit.root, (basis.F * fit.scale).T)
    e, leverage = excess - fit.moments @ W, (W * W).sum(axis=0)
    shown = np.maximum(1 - leverage, 1e-9)
    # Runs in line are deleted one at a time; the others took no part in the fit.
    deleted = np.where(inside, e / shown, e)
    spread = np.where(inside, 1 / shown, 1 + leverage)
    rss = np.where(inside, np.maximum(fit.rss - e * e / shown, 1e-6 * fit.rss), fit.rss)
    t = deleted / np.sqrt(rss / (dof + ~inside) * spread)
    return t, t_quantile(1 - LEVEL / 2 / len(excess), dof)


def _trends(excess: Array, basis: _Basis, inside: np.ndarray) -> list[_Trend]:
    """One trend for each ratio of the variances of g and of the noise."""
    F, r = basis.F[inside], excess[inside]
    gram, moments, total = F.T @ F, F.T @ r, float(r @ r)
    dof = max(len(r) - basis.p, 1)
    # The law's parameters are free; the coefficients of g have variance one.
    penalty = np.diag(np.where(np.arange(len(gram)) < basis.p, 1e-10, 1.0))
    found = []
    for ratio in RATIOS:
        scale = basis.scaled(ratio)
        root = np.linalg.cholesky(gram * np.outer(scale, scale) + penalty)
        c = np.linalg.solve(root, moments * scale)
        rss = max(total - float(c @ c), 0.0) + len(r) * FLOOR**2
        evidence = -0.5 * dof * np.log(rss) - float(np.log(root.diagonal()).sum())
        found.append(_Trend(evidence, root, c, rss, scale))
    return found
