"""Power laws of the optimum: N_opt, D_opt = k C^a and L_opt = L_inf + k C^-g.

Fitted by non-linear least squares in linear space (Kaplan et al. 2020, section 6; Hoffmann et al.
2022, section 3.1). For N and D the residuals are relative, N / (k C^a) - 1: to first order that is
the straight line through the logarithms, and the small budgets keep their say. The loss keeps its
offset: without L_inf a loss at 100 times the compute comes out 5 to 15 % wrong.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize, stats

from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.power_law import NAN, PowerLaw, refused


def fit_power(C: ArrayLike, y: ArrayLike, weight: ArrayLike | None = None) -> PowerLaw:
    """Y = k C^exponent by least squares of the relative residuals.

    Args:
        C: Budgets in FLOPs, shape (m,).
        y: Optimum at each, positive, shape (m,).
        weight: Weight of each squared residual, shape (m,). Default 1.
    """
    C, y = np.asarray(C, float), np.asarray(y, float)
    if len(np.unique(C)) < 2:
        return refused("fewer than two budgets have an optimum", len(C))
    w = np.ones(len(C)) if weight is None else np.sqrt(np.asarray(weight, float))
    w = w / w.max()
    t = np.log(C)
    middle = np.average(t, weights=w * w)
    scale = np.exp(np.mean(np.log(y)))

    def misfit(p: Array) -> Array:
        return w * (np.exp(p[0] + p[1] * (t - middle)) * scale / y - 1)

    line = np.polyfit(t - middle, np.log(y / scale), 1, w=w)
    found = optimize.least_squares(misfit, line[::-1], xtol=1e-14, ftol=1e-14, gtol=1e-14)
    level, exponent = found.x
    covariance = _covariance(np.asarray(found.jac), found.fun)
    reach = stats.t.ppf(0.975, max(len(C) - 2, 1)) * np.sqrt(covariance.diagonal())
    log_k = level + np.log(scale) - exponent * middle
    slack = np.hypot(reach[0], reach[1] * middle)
    fitted = level + exponent * (t - middle) + np.log(scale)
    return PowerLaw(
        k=float(np.exp(log_k)),
        exponent=float(exponent),
        r_squared=_r_squared(np.log(y), fitted),
        k_interval=(_exp(log_k - slack), _exp(log_k + slack)),
        exponent_interval=(float(exponent - reach[1]), float(exponent + reach[1])),
        l_inf_interval=(0.0, 0.0),
        num_budgets=len(C),
        pivot=float(middle),
        covariance=_flat(covariance),
    )


def fit_power_with_floor(C: ArrayLike, y: ArrayLike) -> PowerLaw:
    """Y = l_inf + k C^-g with l_inf >= 0, by variable projection over g.

    Args:
        C: Budgets in FLOPs, shape (m,).
        y: Loss of the optimum at each, shape (m,).
    """
    C, y = np.asarray(C, float), np.asarray(y, float)
    if len(np.unique(C)) < 3:
        return refused("fewer than three budgets have an optimum", len(C))
    t = np.log(C) - np.log(C).mean()
    g = _best_exponent(t, y)
    floor, level = _linear_part(g, t, y)[0]
    fitted = floor + level * np.exp(-g * t)
    grown = level * np.exp(-g * t)
    covariance = _covariance(np.stack([grown, grown * t, np.ones_like(t)], axis=1), y - fitted)
    reach = stats.t.ppf(0.975, max(len(C) - 3, 1)) * np.sqrt(covariance.diagonal())
    log_k = np.log(max(level, 1e-300)) + g * np.log(C).mean()
    lowest = 0.0 if (y > 0).all() else -np.inf
    slack = np.hypot(reach[0], reach[1] * np.log(C).mean())
    return PowerLaw(
        k=float(np.exp(log_k)),
        exponent=-g,
        r_squared=_r_squared(y, fitted),
        l_inf=float(floor),
        k_interval=(_exp(log_k - slack), _exp(log_k + slack)),
        exponent_interval=(float(-g - reach[1]), float(-g + reach[1])),
        l_inf_interval=(max(float(floor - reach[2]), lowest), float(floor + reach[2])),
        num_budgets=len(C),
        pivot=float(np.log(C).mean()),
        covariance=_flat(covariance),
    )


def _best_exponent(t: Array, y: Array) -> float:
    """The g in [.005, 1.5] whose linear fit leaves least, by a grid and then Brent's method."""
    grid = np.geomspace(0.005, 1.5, 80)
    misfits = [_linear_part(g, t, y)[1] for g in grid]
    at = int(np.argmin(misfits))
    low, high = grid[max(at - 1, 0)], grid[min(at + 1, len(grid) - 1)]

    def misfit(g: float) -> float:
        return _linear_part(g, t, y)[1]

    found = optimize.minimize_scalar(
        misfit, bounds=(low, high), method="bounded", options={"xatol": 1e-12}
    )
    return float(found.x)


def _linear_part(g: float, t: Array, y: Array) -> tuple[Array, float]:
    """Non-negative floor and level for a given exponent, and the sum of squares left."""
    design = np.stack([np.ones_like(t), np.exp(-g * t)], axis=1)
    if (y > 0).all():
        coefs, left = optimize.nnls(design, y)
        return coefs, float(left * left)
    coefs = np.linalg.lstsq(design, y, rcond=None)[0]
    r = design @ coefs - y
    return coefs, float(r @ r)


def _covariance(J: Array, r: Array) -> Array:
    """By the linearised fit; NaN where there is no degree of freedom left."""
    dof = len(r) - J.shape[1]
    if dof < 1:
        return np.full((J.shape[1], J.shape[1]), NAN)
    lengths = np.linalg.norm(J, axis=0) + 1e-300
    inverse = np.linalg.pinv(J / lengths) / lengths[:, None]
    return np.asarray((r @ r) / dof * (inverse @ inverse.T))


def _flat(covariance: Array) -> tuple[float, ...]:
    return tuple(covariance.ravel().tolist()) if np.isfinite(covariance).all() else ()


def _r_squared(y: Array, fitted: Array) -> float:
    spread = float(((y - y.mean()) ** 2).sum())
    return 1 - float(((y - fitted) ** 2).sum()) / spread if spread > 0 else NAN


def _exp(x: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(x))
