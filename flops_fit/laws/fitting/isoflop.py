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
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from flops_fit.laws.check import counted
from flops_fit.laws.distributions import chi2_quantile, t_quantile
from flops_fit.laws.fitting.isoflop_curve import (
    LEAST_RUNS,
    IsoflopCurve,
    fit_curve,
    num_sizes,
    vertex,
)
from flops_fit.laws.fitting.power import fit_power, fit_power_with_floor
from flops_fit.laws.model.arrays import NAN, Array
from flops_fit.laws.model.cost import FlopsPerToken
from flops_fit.laws.model.frontier import FRONTIER_COLUMNS, log_flops_per_token, slope
from flops_fit.laws.model.power_law import PowerLaws, refused
from flops_fit.laws.options import Curve
from flops_fit.laws.runs.budgets import TOLERANCE, group_budgets

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
    rows = [fit_curve(C[group], N[group], loss[group], curve) for group in groups]
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
        return f"an optimum was found for {found} of {budgets}; at least two are needed"
    return ""


def _levels(rows: list[IsoflopCurve]) -> list[float]:
    """The unit of noise in each row: its mean loss if all losses are positive, else 1."""
    relative = all((row.loss > 0).all() for row in rows)
    return [float(row.loss.mean()) if relative else 1.0 for row in rows]


def _pooled_noise(rows: list[IsoflopCurve], levels: list[float]) -> tuple[float, int]:
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
        ((row.residuals / level) ** 2).sum() / chi2_quantile(0.5, row.dof) for row, level in fitted
    ]
    return float(np.sqrt(np.median(variances))), sum(row.dof for row, _ in fitted)


def _optimum(row: IsoflopCurve, noise: float, dof: int, cost: FlopsPerToken) -> dict[str, Any]:
    """A row of the table of optima."""
    c = row.padded
    base = _base(row, c, noise)
    if not np.isfinite(c).all():
        sizes = counted(num_sizes(row.x), "size")
        return {**base, "refused": f"{sizes}, a curve needs {LEAST_RUNS}"}
    z = vertex(c)
    reason = _refuse_curvature(row, c, noise)
    if reason or z is None:
        return {**base, "refused": reason or "the curve has no minimum"}
    base.update(_at_minimum(row, c, z, noise, dof, cost))
    return {**base, "refused": _refuse_minimum(base)}


def _base(row: IsoflopCurve, c: Array, noise: float) -> dict[str, Any]:
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


def _refuse_curvature(row: IsoflopCurve, c: Array, noise: float) -> str:
    """The reason why the curve is not convex enough in the middle of the row; else empty."""
    if c[2] <= 0:
        return "the curve is not convex"
    error = noise * np.sqrt(row.inverse[2, 2])
    if np.isfinite(error) and c[2] < CURVATURE_SIGMAS * error:
        return f"the curve is convex by {c[2] / error:.1f} standard errors only"
    return ""


def _at_minimum(
    row: IsoflopCurve, c: Array, z: float, noise: float, dof: int, cost: FlopsPerToken
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
    quantile = t_quantile(0.975, dof) if dof else NAN
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
