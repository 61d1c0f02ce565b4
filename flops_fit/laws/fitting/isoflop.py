"""IsoFLOP curves: at each budget, the size with the lowest loss.

Approach 2 of Hoffmann et al. (2022, section 3.2): a parabola in ln N through the losses of one
budget, its minimum, and power laws through the minima (see `power`). The vertex of a parabola is
biased if alpha and beta differ and the row is wide (Czech et al. 2026). Of a row wider than a
decade and a half, only the runs within 0.75 decades of the minimum are therefore used. A cubic,
available from seven runs, is less biased. A row is refused, with the reason, if its curve has no
minimum, or one that lies at the edge or is too flat to see.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from flops_fit.laws.check import counted
from flops_fit.laws.fitting.power import fit_power, fit_power_with_floor
from flops_fit.laws.model.arrays import NAN, Array
from flops_fit.laws.model.cost import FlopsPerToken
from flops_fit.laws.model.frontier import FRONTIER_COLUMNS, log_flops_per_token, slope
from flops_fit.laws.model.power_law import PowerLaws, refused
from flops_fit.laws.options import Curve
from flops_fit.laws.runs.budgets import TOLERANCE, group_budgets

# A cubic needs this many sizes; with fewer the curve is a parabola.
CUBIC_FROM = 7
# Fewest sizes for a curve: one more than a parabola has coefficients.
LEAST_RUNS = 4
# Half-width in ln N of the runs used: 0.75 decades, with a margin for rounding.
WINDOW = 0.75 * np.log(10) * 1.001
# A curve must be convex by this many standard errors.
CURVATURE_SIGMAS = 3.0
# Depth of a row in units of the noise: how far its ends lie above its minimum.
DEPTH_REFUSED = 2.0
DEPTH_WARNED = 5.0
OPTIMA_COLUMNS = (
    *FRONTIER_COLUMNS,
    "num_runs",
    "interior",
    "curve",
    "c0",
    "c1",
    "c2",
    "c3",
    "centre",
    "scale",
    "residual_std",
    "depth",
    "log_num_params_se",
    "loss_se",
    "refused",
)


@dataclass(frozen=True)
class _Row:
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


def fit_isoflop(
    C: ArrayLike,
    N: ArrayLike,
    loss: ArrayLike,
    *,
    curve: Curve = "parabola",
    cost: FlopsPerToken | None = None,
    tolerance: float = TOLERANCE,
) -> pd.DataFrame:
    """Find the optimum of each budget.

    Args:
        C: Budget of each run in FLOPs, shape (n,).
        N: Parameters of each run, shape (n,).
        loss: Loss of each run, shape (n,).
        curve: "parabola", or "cubic" for budgets with seven runs or more.
        cost: FLOPs per token, for the tokens of the optimum. Default C = 6 N D.
        tolerance: Budgets that differ by less than this share are one budget.

    Returns:
        One row per budget with `OPTIMA_COLUMNS`; `refused` states why an optimum is withheld, and
        is empty where it is not.
    """
    C, N, loss = (np.asarray(column, float) for column in (C, N, loss))
    labels = group_budgets(C, tolerance)
    groups = [labels == g for g in range(int(labels.max(initial=-1)) + 1)]
    rows = [_fit_row(C[group], N[group], loss[group], curve) for group in groups]
    levels = _levels(rows)
    sigma, dof = _pooled_noise(rows, levels)
    found = [
        _optimum(row, sigma * level, dof, cost or FlopsPerToken())
        for row, level in zip(rows, levels, strict=True)
    ]
    return pd.DataFrame(found, columns=list(OPTIMA_COLUMNS))


def curve(row: Mapping[str, Any] | pd.Series, N: ArrayLike) -> Array:
    """The loss on one budget's fitted curve, shape of N.

    Args:
        row: A row of `Result.optima`.
        N: Parameters, any shape.
    """
    z = (np.log(np.asarray(N, float)) - row["centre"]) / row["scale"]
    return row["c0"] + z * (row["c1"] + z * (row["c2"] + z * row["c3"]))


def fit_power_laws(optima: pd.DataFrame) -> PowerLaws:
    """Fit N_opt, D_opt = k C^a and L_opt = L_inf + k C^-g through the optima not refused."""
    good = optima[optima["refused"] == ""]
    reason = refuse_approach(optima)
    if reason:
        return PowerLaws(*(refused(reason, len(good)) for _ in range(3)))
    C = good["compute_budget"].to_numpy(float)
    return PowerLaws(
        fit_power(C, good["num_params"].to_numpy(float)),
        fit_power(C, good["num_tokens"].to_numpy(float)),
        fit_power_with_floor(C, good["loss"].to_numpy(float)),
    )


def refuse_approach(optima: pd.DataFrame) -> str:
    """The reason why no power law may be fitted through the optima; empty if one may.

    More than a third of the minima at an edge means that the sizes were chosen badly, and the
    remaining optima are a biased selection.
    """
    edges = int(optima["refused"].str.contains("edge", regex=False).sum())
    if edges * 3 > len(optima):
        return f"the minimum lies at the edge of its row for {edges} of {len(optima)} budgets"
    found = int((optima["refused"] == "").sum())
    if found < 2:
        budgets = counted(len(optima), "budget")
        return f"an optimum was found for {found} of {budgets}, two are needed"
    return ""


def _fit_row(C: Array, N: Array, loss: Array, kind: Curve) -> _Row:
    """The curve of one budget, through the runs around its minimum.

    The window is moved to the minimum of the curve up to two times.
    """
    x = np.log(N)
    middle = float(x[loss.argmin()])
    row = _curve_through(C, x, loss, kind)
    for _ in range(2):
        near = np.abs(x - middle) <= WINDOW
        if np.ptp(x) <= 2 * WINDOW or _num_sizes(x[near]) < LEAST_RUNS + 1:
            return row
        row = _curve_through(C[near], x[near], loss[near], kind)
        z = _vertex(row.padded)
        if z is None or not row.z.min() < z < row.z.max():
            return row
        middle = row.centre + row.scale * z
    return row


def _curve_through(C: Array, x: Array, loss: Array, kind: Curve) -> _Row:
    """The least-squares curve through all of the given runs."""
    sizes = _num_sizes(x)
    degree = 3 if kind == "cubic" and sizes >= CUBIC_FROM else 2
    centre = float(x.mean())
    scale = float(np.abs(x - centre).max()) or 1.0
    if sizes < LEAST_RUNS:
        coefs = np.full(degree + 1, NAN)
        inverse = np.full((degree + 1, degree + 1), NAN)
        return _Row(_middle(C), x, loss, centre, scale, degree, coefs, inverse)
    V = np.vander((x - centre) / scale, degree + 1, increasing=True)
    inverse = np.asarray(np.linalg.pinv(V.T @ V), float)
    coefs = np.asarray(np.linalg.lstsq(V, loss, rcond=None)[0], float)
    return _Row(_middle(C), x, loss, centre, scale, degree, coefs, inverse)


def _num_sizes(x: Array) -> int:
    return len(np.unique(np.round(x, 9)))


def _middle(C: Array) -> float:
    """The budget if all runs agree on it, else their geometric mean."""
    return float(C[0]) if (C == C[0]).all() else float(np.exp(np.log(C).mean()))


def _levels(rows: list[_Row]) -> list[float]:
    """The unit of noise in each row: its mean loss if all losses are positive, else 1."""
    relative = all((row.loss > 0).all() for row in rows)
    return [float(row.loss.mean()) if relative else 1.0 for row in rows]


def _pooled_noise(rows: list[_Row], levels: list[float]) -> tuple[float, int]:
    """The residual standard deviation over all rows, in units of `levels`, and its freedom.

    It is a median over rows, each divided by the median of chi squared, so that one row which its
    curve does not fit does not affect the others.
    """
    fitted = [
        (row, level)
        for row, level in zip(rows, levels, strict=True)
        if np.isfinite(row.coefs[0]) and row.dof > 0
    ]
    if not fitted:
        return NAN, 0
    variances = [
        ((row.residuals / level) ** 2).sum() / stats.chi2.median(row.dof) for row, level in fitted
    ]
    return float(np.sqrt(np.median(variances))), sum(row.dof for row, _ in fitted)


def _optimum(row: _Row, noise: float, dof: int, cost: FlopsPerToken) -> dict[str, Any]:
    """A row of the table of optima."""
    c = row.padded
    base = _base(row, c, noise)
    if not np.isfinite(c).all():
        sizes = counted(_num_sizes(row.x), "size")
        return {**base, "refused": f"{sizes}, a curve needs {LEAST_RUNS}"}
    z = _vertex(c)
    reason = _refuse_curvature(row, c, noise)
    if reason or z is None:
        return {**base, "refused": reason or "the curve has no minimum"}
    base.update(_at_minimum(row, c, z, noise, dof, cost))
    return {**base, "refused": _refuse_minimum(base)}


def _base(row: _Row, c: Array, noise: float) -> dict[str, Any]:
    """A row of the table of optima with the curve, and without a minimum."""
    base: dict[str, Any] = dict.fromkeys(OPTIMA_COLUMNS, NAN)
    base.update(
        compute_budget=row.budget,
        num_runs=len(row.x),
        interior=False,
        curve="cubic" if row.degree == 3 else "parabola",
        centre=row.centre,
        scale=row.scale,
        residual_std=noise,
        refused="",
    )
    base.update(zip(("c0", "c1", "c2", "c3"), c.tolist(), strict=True))
    return base


def _vertex(c: Array) -> float | None:
    """The z at which the slope is zero and the curve convex; None if there is none."""
    if abs(c[3]) < 1e-9 * abs(c[2]) or c[3] == 0:
        return float(-c[1] / (2 * c[2])) if c[2] > 0 else None
    inner = c[2] ** 2 - 3 * c[1] * c[3]
    return float((-c[2] + np.sqrt(inner)) / (3 * c[3])) if inner > 0 else None


def _refuse_curvature(row: _Row, c: Array, noise: float) -> str:
    """The reason why the curve is not convex enough in the middle of the row; else empty."""
    if c[2] <= 0:
        return "the curve is not convex"
    error = noise * np.sqrt(row.inverse[2, 2])
    if np.isfinite(error) and c[2] < CURVATURE_SIGMAS * error:
        return f"the curve is convex by {c[2] / error:.1f} standard errors only"
    return ""


def _at_minimum(
    row: _Row, c: Array, z: float, noise: float, dof: int, cost: FlopsPerToken
) -> dict[str, Any]:
    """N, D and loss of the minimum, with 95 % intervals by the delta method."""
    power = np.arange(row.degree + 1)
    # The curve's value and derivative at z as linear functions of its coefficients.
    value = z**power
    derivative = np.where(power > 0, power * z ** np.maximum(power - 1, 0), 0.0)
    curvature = 2 * c[2] + 6 * c[3] * z
    z_se = noise * np.sqrt(derivative @ row.inverse @ derivative) / curvature
    loss_se = noise * np.sqrt(value @ row.inverse @ value)
    x, loss = row.centre + row.scale * z, float(value @ c[: row.degree + 1])
    y = np.log(row.budget) - float(log_flops_per_token(np.array(x), cost))
    quantile = float(stats.t.ppf(0.975, dof)) if dof else NAN
    x_se = row.scale * z_se
    x_half = quantile * x_se
    # At a fixed budget ln D falls by d ln f / d ln N as ln N grows by one.
    y_half = x_half * float(slope(np.array(x), cost))
    loss_half = quantile * loss_se
    ends = np.polynomial.polynomial.polyval(np.array([row.z.min(), row.z.max()]), c)
    inside = row.z.min() < z < row.z.max()
    return {
        "num_params": float(np.exp(x)),
        "num_params_low": float(np.exp(x - x_half)),
        "num_params_high": float(np.exp(x + x_half)),
        "num_tokens": float(np.exp(y)),
        "num_tokens_low": float(np.exp(y - y_half)),
        "num_tokens_high": float(np.exp(y + y_half)),
        "tokens_per_param": float(np.exp(y - x)),
        "loss": loss,
        "loss_low": max(loss - loss_half, 0.0 if row.loss.min() > 0 else -np.inf),
        "loss_high": loss + loss_half,
        "interior": bool(inside),
        "depth": float((ends.mean() - loss) / noise) if noise > 0 else float("inf"),
        "log_num_params_se": float(x_se),
        "loss_se": float(loss_se),
    }


def _refuse_minimum(base: Mapping[str, Any]) -> str:
    """The reason why the minimum is withheld; else empty."""
    if not base["interior"]:
        return "the minimum lies at the edge of the row or beyond"
    if base["depth"] < DEPTH_REFUSED:
        return f"its ends lie {base['depth']:.1f} times the noise above it: too flat to see"
    return ""
