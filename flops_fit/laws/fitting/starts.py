"""Starting points of the parametric fit: variable projection over a grid of exponents.

For fixed (alpha, beta) the law is linear in E, A and B (Golub & Pereyra 1973). A non-negative least
squares fit at each point of a grid over the two exponents, with weights 1 / L (relative errors),
therefore covers the whole five-parameter space. All Gram matrices of the grid come from a few
matrix products, whatever the number of runs.
"""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike

from flops_fit.laws.model.arrays import Array

# Grid of alpha and of beta, and the positions on it that a fallback lattice uses.
EXPONENTS = np.geomspace(0.05, 1.2, 28)
LATTICE = (4, 13, 22)
# The gamma from which a bent fit starts.
GAMMAS = (1.0, 0.7, 0.5, 0.35)
# Least value of E, A and B in a start, as a share of the lowest loss: starts are logarithms.
FLOOR = 0.1


def grid_starts(x: Array, y: Array, loss: Array, *, tied: bool = False, most: int = 12) -> Array:
    """Starts for the parametric fit: local minima of the grid, then a lattice over it.

    Args:
        x: ln N, centred, shape (n,).
        y: ln D, centred, shape (n,).
        loss: Loss over its geometric mean, shape (n,).
        tied: Use only points with alpha = beta.
        most: Largest number of starts to return.

    Returns:
        (e, a, b, alpha, beta) in centred logarithms (theta of `residuals`, with gamma = 1), best
        first, shape (S, 5) with S <= `most`.
    """
    gram, moment, total = _normal_equations(x, y, loss)
    coefs, misfit = _non_negative(gram, moment, total)
    if tied:
        off_diagonal = ~np.eye(len(EXPONENTS), dtype=bool)
        misfit = np.where(off_diagonal, np.inf, misfit)
    points = [*_local_minima(misfit), *((i, j) for i in LATTICE for j in LATTICE)]
    points = [p for p in dict.fromkeys(points) if np.isfinite(misfit[p])][:most]
    floor = FLOOR * float(loss.min())
    linear = np.log(np.maximum([coefs[p] for p in points], floor))
    exponents = [(EXPONENTS[i], EXPONENTS[j]) for i, j in points]
    return np.hstack([linear, exponents])


def bent_starts(five: ArrayLike) -> Array:
    """Starts for a bent fit: the five-parameter fit, with several gamma.

    At the centre of the runs, each has the loss and the slopes of the five-parameter law.

    Args:
        five: theta of that fit, shape (5,).

    Returns:
        (e, a, b, q, s, gamma), shape (S, 6).
    """
    e, a, b, q, s = np.asarray(five, float)
    whole = np.logaddexp(a, b)
    return np.array([[e, *(whole + g * (np.array([a, b]) - whole)), q, s, g] for g in GAMMAS])


def _normal_equations(x: Array, y: Array, loss: Array) -> tuple[Array, Array, float]:
    """The normal equations at every grid point, with weights 1 / L.

    Returns:
        Gram matrices, shape (k, k, 3, 3); moments, shape (k, k, 3); and the sum of squares of the
        weighted losses, which is n.
    """
    w = 1.0 / loss
    U = np.exp(-EXPONENTS[:, None] * x) * w
    V = np.exp(-EXPONENTS[:, None] * y) * w
    k, one = len(EXPONENTS), np.ones((len(EXPONENTS),) * 2)
    gram = np.empty((k, k, 3, 3))
    gram[..., 0, 0] = (w @ w) * one
    gram[..., 0, 1] = gram[..., 1, 0] = (U @ w)[:, None] * one
    gram[..., 0, 2] = gram[..., 2, 0] = (V @ w)[None, :] * one
    gram[..., 1, 1] = (U * U).sum(axis=1)[:, None] * one
    gram[..., 2, 2] = (V * V).sum(axis=1)[None, :] * one
    gram[..., 1, 2] = gram[..., 2, 1] = U @ V.T
    moment = np.stack([w.sum() * one, U.sum(1)[:, None] * one, V.sum(1)[None, :] * one], axis=-1)
    return gram, moment, float(len(loss))


def _non_negative(gram: Array, moment: Array, total: float) -> tuple[Array, Array]:
    """Non-negative least squares at every grid point.

    With three unknowns it is enough to try each of the seven sets of them that may be positive.

    Returns:
        E, A and B, shape (k, k, 3), and the sum of squared residuals, shape (k, k).
    """
    best = np.zeros(moment.shape)
    misfit = np.full(moment.shape[:-1], total)
    scale = np.sqrt(np.einsum("...jj->...j", gram))
    for support in (s for r in (1, 2, 3) for s in combinations(range(3), r)):
        size = scale[..., support]
        part = gram[..., support, :][..., :, support] / (size[..., :, None] * size[..., None, :])
        # A small ridge, for grid points at which two columns are all but the same.
        part = part + 1e-12 * np.eye(len(support))
        inner = np.linalg.solve(part, (moment[..., support] / size)[..., None])[..., 0] / size
        left = total - np.einsum("...j,...j->...", inner, moment[..., support])
        better = (inner >= 0).all(axis=-1) & (left < misfit)
        full = np.zeros(moment.shape)
        full[..., support] = inner
        best = np.where(better[..., None], full, best)
        misfit = np.where(better, left, misfit)
    return best, misfit


def _local_minima(misfit: Array, most: int = 4) -> list[tuple[int, int]]:
    """Grid points that are no worse than their eight neighbours, best first."""
    padded = np.pad(misfit, 1, constant_values=np.inf)
    rows, cols = misfit.shape
    shifts = [(i, j) for i in (0, 1, 2) for j in (0, 1, 2) if (i, j) != (1, 1)]
    low = np.isfinite(misfit)
    for i, j in shifts:
        low &= misfit <= padded[i : i + rows, j : j + cols]
    found = sorted(zip(*np.nonzero(low), strict=True), key=lambda p: misfit[p])
    return [(int(i), int(j)) for i, j in found[:most]]
