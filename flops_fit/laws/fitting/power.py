"""Fits of power laws to the optima: N_opt, D_opt = k C^a and L_opt = L_inf + k C^-g.

Non-linear least squares (Kaplan et al. 2020, section 6; Hoffmann et al. 2022, section 3.1). For N
and D the residuals are relative, N / (k C^a) - 1. To first order that is the straight line through
the logarithms, and small budgets count as much as large ones. The loss has an offset: without L_inf
a loss predicted at 100 times the compute is 5 to 15 % wrong (simulated).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

from flops_fit.laws.distributions import t_quantile
from flops_fit.laws.model.arrays import NAN, Array
from flops_fit.laws.model.power_law import PowerLaw, refused

# Range of the exponent g of the loss, and points of the grid over it.
LEAST_EXPONENT = 0.005
MOST_EXPONENT = 1.5
GRID = 80


def fit_power(C: ArrayLike, y: ArrayLike) -> PowerLaw:
    """Fit y = k C^exponent by least squares of the relative residuals.

    Args:
        C: Budgets in FLOPs, shape (m,).
        y: The optimum at each budget, positive, shape (m,).

    Returns:
        The law; `refused` where fewer than two budgets differ.
    """
    C, y = np.asarray(C, float), np.asarray(y, float)
    if len(np.unique(C)) < 2:
        return refused("fewer than two budgets have an optimum", len(C))
    t = np.log(C)
    middle = t.mean()
    scale = np.exp(np.mean(np.log(y)))

    def misfit(p: Array) -> Array:
        return np.exp(p[0] + p[1] * (t - middle)) * scale / y - 1

    line = np.polyfit(t - middle, np.log(y / scale), 1)
    found = optimize.least_squares(misfit, line[::-1], xtol=1e-14, ftol=1e-14, gtol=1e-14)
    level, exponent = found.x
    covariance = _covariance(np.asarray(found.jac), found.fun)
    slack = t_quantile(0.975, max(len(C) - 2, 1)) * np.sqrt(covariance[1, 1])
    fitted = level + exponent * (t - middle) + np.log(scale)
    return PowerLaw(
        k=float(np.exp(level + np.log(scale) - exponent * middle)),
        exponent=float(exponent),
        r_squared=_r_squared(np.log(y), fitted),
        exponent_interval=(float(exponent - slack), float(exponent + slack)),
        num_budgets=len(C),
        pivot=float(middle),
        covariance=_flat(covariance),
    )


def fit_power_with_floor(C: ArrayLike, y: ArrayLike) -> PowerLaw:
    """Fit y = l_inf + k C^-g, by variable projection over g.

    Args:
        C: Budgets in FLOPs, shape (m,).
        y: The loss of the optimum at each budget, shape (m,). If all are positive, so is l_inf.

    Returns:
        The law; `refused` where fewer than three budgets differ.
    """
    C, y = np.asarray(C, float), np.asarray(y, float)
    if len(np.unique(C)) < 3:
        return refused("fewer than three budgets have an optimum", len(C))
    t = np.log(C) - np.log(C).mean()
    g = _best_exponent(t, y)
    floor, level = _linear_part(g, t, y)[0]
    power = level * np.exp(-g * t)
    fitted = floor + power
    covariance = _covariance(np.stack([power, power * t, np.ones_like(t)], axis=1), y - fitted)
    slack = t_quantile(0.975, max(len(C) - 3, 1)) * np.sqrt(covariance[1, 1])
    return PowerLaw(
        k=float(np.exp(np.log(max(level, 1e-300)) + g * np.log(C).mean())),
        exponent=-g,
        r_squared=_r_squared(y, fitted),
        l_inf=float(floor),
        exponent_interval=(float(-g - slack), float(-g + slack)),
        num_budgets=len(C),
        pivot=float(np.log(C).mean()),
        covariance=_flat(covariance),
    )


def _best_exponent(t: Array, y: Array) -> float:
    """The g whose linear fit leaves the least sum of squares: a grid, then Brent's method."""
    grid = np.geomspace(LEAST_EXPONENT, MOST_EXPONENT, GRID)

    def misfit(g: float) -> float:
        return _linear_part(g, t, y)[1]

    at = int(np.argmin([misfit(g) for g in grid]))
    low, high = grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)]
    found = optimize.minimize_scalar(
        misfit, bounds=(low, high), method="bounded", options={"xatol": 1e-12}
    )
    return float(found.x)


def _linear_part(g: float, t: Array, y: Array) -> tuple[Array, float]:
    """Offset and level for a given exponent, and the sum of squared residuals.

    Both are non-negative where all of y is positive.
    """
    design = np.stack([np.ones_like(t), np.exp(-g * t)], axis=1)
    if (y > 0).all():
        coefs, left = optimize.nnls(design, y)
        return coefs, float(left * left)
    coefs = np.linalg.lstsq(design, y, rcond=None)[0]
    r = design @ coefs - y
    return coefs, float(r @ r)


def _covariance(J: Array, r: Array) -> Array:
    """Covariance s^2 (J'J)^-1 of the linearised fit; NaN without degrees of freedom."""
    dof = len(r) - J.shape[1]
    if dof < 1:
        return np.full((J.shape[1], J.shape[1]), NAN)
    lengths = np.linalg.norm(J, axis=0) + 1e-300
    inverse = np.linalg.pinv(J / lengths) / lengths[:, None]
    return np.asarray((r @ r) / dof * (inverse @ inverse.T))


def _flat(covariance: Array) -> tuple[float, ...]:
    """The covariance row by row; empty where it is not finite."""
    return tuple(covariance.ravel().tolist()) if np.isfinite(covariance).all() else ()


def _r_squared(y: Array, fitted: Array) -> float:
    spread = float(((y - y.mean()) ** 2).sum())
    return 1 - float(((y - fitted) ** 2).sum()) / spread if spread > 0 else NAN
