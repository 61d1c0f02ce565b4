"""IsoFLOP curves: at each budget, the size at which the loss is least.

Approach 2 of Hoffmann et al. (2022, section 3.2): a parabola in ln N through the losses of one
budget, its minimum, and power laws through the minima (`power`). The vertex of a parabola is biased
where alpha and beta differ and the row is wide (Czech et al. 2026), so of a row over a decade and a
half only the runs within .75 decades of its minimum are used; a cubic, from seven runs up, is less
biased. A row without an interior, convex, visible minimum is refused, with the reason.
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
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.cost import FlopsPerToken
from flops_fit.laws.model.frontier import FRONTIER_COLUMNS, log_flops_per_token
from flops_fit.laws.model.power_law import PowerLaw, PowerLaws, refused
from flops_fit.laws.options import Curve
from flops_fit.laws.runs.budgets import TOLERANCE, group_budgets

CUBIC_FROM = 7
LEAST_RUNS = 4
WINDOW = 0.75 * np.log(10) * 1.001
CURVATURE_SIGMAS = 3.0
DEPTH_REFUSED, DEPTH_WARNED = 2.0, 5.0
NAN = float("nan")
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
    """The curve of one budget: loss = c0 + c1 z + c2 z^2 + c3 z^3, z = (ln N - centre) / scale."""

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
        return self.loss - np.polynomial.polynomial.polyval(self.z, self.coefs)

    @property
    def z(self) -> Array:
        return (self.x - self.centre) / self.scale

    @property
    def padded(self) -> Array:
        """Four coefficients, the last zero for a parabola."""
        return np.concatenate([self.coefs, np.zeros(3 - self.degree)])

    @property
    def dof(self) -> int:
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
    """One optimum a budget.

    Args:
        C: Budget of each run in FLOPs, shape (n,).
        N: Parameters of each run, shape (n,).
        loss: Loss of each run, shape (n,).
        curve: "parabola", or "cubic" for the budgets with seven runs or more.
        cost: FLOPs per token, for the tokens of the optimum. Default C = 6 N D.
        tolerance: Budgets this close (relative) are one.

    Returns:
        A row a budget with `OPTIMA_COLUMNS`; `refused` says why an optimum is withheld.
    """
    C, N, loss = (np.asarray(column, float) for column in (C, N, loss))
    labels = group_budgets(C, tolerance)
    groups = [labels == g for g in range(int(labels.max(initial=-1)) + 1)]
    rows = [_fit_row(C[own], N[own], loss[own], curve) for own in groups]
    levels = _levels(rows)
    sigma, dof = _pooled_noise(rows, levels)
    found = [
        _optimum(row, sigma * level, dof, cost or FlopsPerToken())
        for row, level in zip(rows, levels, strict=True)
    ]
    return pd.DataFrame(found, columns=list(OPTIMA_COLUMNS))


def curve(row: Mapping[str, Any] | pd.Series, N: ArrayLike) -> Array:
    """Loss on the fitted curve of one row of the optima.

    Args:
        row: A row of `Result.optima`.
        N: Parameters, any shape.
    """
    z = (np.log(np.asarray(N, float)) - row["centre"]) / row["scale"]
    return row["c0"] + z * (row["c1"] + z * (row["c2"] + z * row["c3"]))


def fit_power_laws(optima: pd.DataFrame) -> PowerLaws:
    """N_opt, D_opt = k C^a and L_opt = L_inf + k C^-g through the optima that stand."""
    good = optima[optima["refused"] == ""]
    reason = refuse_approach(optima)
    if reason:
        return PowerLaws(*(refused(reason, len(good)) for _ in range(3)))
    C = good["compute_budget"].to_numpy(float)
    return PowerLaws(
        _power(C, good["num_params"]),
        _power(C, good["num_tokens"]),
        fit_power_with_floor(C, good["loss"].to_numpy(float)),
    )


def refuse_approach(optima: pd.DataFrame) -> str:
    """Why no power law may be drawn through the optima; empty where one may."""
    edges = int(optima["refused"].str.contains("edge", regex=False).sum())
    if edges * 3 > len(optima):
        return f"the minimum lies at the edge of its row for {edges} of {len(optima)} budgets"
    standing = int((optima["refused"] == "").sum())
    if standing < 2:
        rows = counted(len(optima), "budget")
        return f"an optimum is seen at {standing} of {rows}, two are needed"
    return ""


def _power(C: Array, y: pd.Series) -> PowerLaw:
    return fit_power(C, y.to_numpy(float))


def _fit_row(C: Array, N: Array, loss: Array, kind: Curve) -> _Row:
    """The curve of one budget, through the runs around its minimum."""
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
    sizes = _num_sizes(x)
    degree = 3 if kind == "cubic" and sizes >= CUBIC_FROM else 2
    centre = float(x.mean())
    scale = float(np.abs(x - centre).max()) or 1.0
    if sizes < LEAST_RUNS:
        nothing = np.full(degree + 1, NAN)
        inverse = np.full((degree + 1, degree + 1), NAN)
        return _Row(_middle(C), x, loss, centre, scale, degree, nothing, inverse)
    V = np.vander((x - centre) / scale, degree + 1, increasing=True)
    inverse = np.asarray(np.linalg.pinv(V.T @ V), float)
    coefs = np.asarray(np.linalg.lstsq(V, loss, rcond=None)[0], float)
    return _Row(_middle(C), x, loss, centre, scale, degree, coefs, inverse)


def _num_sizes(x: Array) -> int:
    return len(np.unique(np.round(x, 9)))


def _middle(C: Array) -> float:
    """The budget itself where all agree; their geometric mean otherwise."""
    return float(C[0]) if (C == C[0]).all() else float(np.exp(np.log(C).mean()))


def _levels(rows: list[_Row]) -> list[float]:
    """What noise is measured against in each row: its mean loss, where losses are positive."""
    relative = all((row.loss > 0).all() for row in rows)
    return [float(row.loss.mean()) if relative else 1.0 for row in rows]


def _pooled_noise(rows: list[_Row], levels: list[float]) -> tuple[float, int]:
    """Residual standard deviation over `levels`, and its freedom, over all rows.

    The median over rows (over that of chi squared), so that one row the curve does not fit leaves
    the others' noise alone.
    """
    fitted = [
        (row, level)
        for row, level in zip(rows, levels, strict=True)
        if np.isfinite(row.coefs[0]) and row.dof > 0
    ]
    if not fitted:
        return NAN, 0
    own = [
        ((row.residuals / level) ** 2).sum() / stats.chi2.median(row.dof) for row, level in fitted
    ]
    return float(np.sqrt(np.median(own))), sum(row.dof for row, _ in fitted)


def _optimum(row: _Row, noise: float, dof: int, cost: FlopsPerToken) -> dict[str, Any]:
    c = row.padded
    base = _base(row, c, noise)
    if not np.isfinite(c).all():
        sizes = counted(_num_sizes(row.x), "size")
        return {**base, "refused": f"{sizes}, a curve needs {LEAST_RUNS}"}
    z = _vertex(c)
    shaky = _refuse_curvature(row, c, noise, z)
    if shaky or z is None:
        return {**base, "refused": shaky or "the curve has no minimum"}
    base.update(_at_minimum(row, c, z, noise, dof, cost))
    return {**base, "refused": _refuse_minimum(base)}


def _base(row: _Row, c: Array, noise: float) -> dict[str, Any]:
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
    """The z where the slope is zero and the curve convex; None where there is none."""
    if abs(c[3]) < 1e-9 * abs(c[2]) or c[3] == 0:
        return float(-c[1] / (2 * c[2])) if c[2] > 0 else None
    inner = c[2] ** 2 - 3 * c[1] * c[3]
    return float((-c[2] + np.sqrt(inner)) / (3 * c[3])) if inner > 0 else None


def _refuse_curvature(row: _Row, c: Array, noise: float, z: float | None) -> str:
    """Why the curve does not bend enough, in the middle of the row."""
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
    slope = np.where(power > 0, power * z ** np.maximum(power - 1, 0), 0.0)
    bend = 2 * c[2] + 6 * c[3] * z
    z_se = noise * np.sqrt(slope @ row.inverse @ slope) / bend
    value = z**power
    loss_se = noise * np.sqrt(value @ row.inverse @ value)
    x, loss = row.centre + row.scale * z, float(value @ c[: row.degree + 1])
    y = np.log(row.budget) - float(log_flops_per_token(np.array(x), cost))
    reach = float(stats.t.ppf(0.975, dof)) if dof else NAN
    x_se = row.scale * z_se
    span = reach * x_se
    y_span = span * _cost_slope(x, cost)
    ends = np.polynomial.polynomial.polyval(np.array([row.z.min(), row.z.max()]), c)
    inside = row.z.min() < z < row.z.max()
    return {
        "num_params": float(np.exp(x)),
        "num_params_low": float(np.exp(x - span)),
        "num_params_high": float(np.exp(x + span)),
        "num_tokens": float(np.exp(y)),
        "num_tokens_low": float(np.exp(y - y_span)),
        "num_tokens_high": float(np.exp(y + y_span)),
        "tokens_per_param": float(np.exp(y - x)),
        "loss": loss,
        "loss_low": max(loss - reach * loss_se, 0.0 if row.loss.min() > 0 else -np.inf),
        "loss_high": loss + reach * loss_se,
        "interior": bool(inside),
        "depth": float((ends.mean() - loss) / noise) if noise > 0 else float("inf"),
        "log_num_params_se": float(x_se),
        "loss_se": float(loss_se),
    }


def _cost_slope(x: float, cost: FlopsPerToken) -> float:
    return 1.0 if cost.curve is None else float(cost.curve.slope(np.array(x)))


def _refuse_minimum(base: Mapping[str, Any]) -> str:
    if not base["interior"]:
        return "the minimum lies at the edge of the row or beyond"
    if base["depth"] < DEPTH_REFUSED:
        return f"its ends lie {base['depth']:.1f} times the noise above it: too flat to see"
    return ""
