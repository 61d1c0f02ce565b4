"""Back-test: hold out the largest budgets, fit the rest, and compare predictions with losses.

It shows how far each form of the law can be trusted; `form_choice` chooses by it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from flops_fit.laws.distributions import f_quantile
from flops_fit.laws.fitting.isoflop import fit_isoflop
from flops_fit.laws.fitting.parametric import TIES, Form, ParametricFit, refit
from flops_fit.laws.fitting.residuals import Problem, jacobian, tie_basis
from flops_fit.laws.model.arrays import NAN, Array
from flops_fit.laws.model.cost import FlopsPerToken
from flops_fit.laws.runs.budgets import TOLERANCE, group_budgets
from flops_fit.laws.runs.points import Points

# Fewest budgets to hold out by budget, fewest runs for a budget to count as one, and fewest runs
# that must be left to fit.
LEAST_GROUPS = 3
LEAST_IN_ROW = 3
LEAST_TRAIN = 7
# Residuals below this are rounding.
NO_NOISE = 1e-9
BACKTEST_COLUMNS = (
    "form",
    "held_out_from",
    "num_train",
    "num_held_out",
    "loss_rmse",
    "loss_bias",
    "in_sample_std",
    "ratio",
    "limit",
    "num_params_error",
)


def backtest(
    points: Points,
    C: Array,
    fits: Mapping[Form, ParametricFit],
    *,
    tolerance: float = TOLERANCE,
) -> pd.DataFrame:
    """Errors on the largest budget, and on the two largest of five or more.

    Args:
        points: The runs.
        C: Budget of each run in FLOPs, shape (n,).
        fits: Fits of all these runs, by form. Each is repeated without the largest budgets.
        tolerance: Budgets that differ by less than this share are one budget.

    Returns:
        One row per form and cut: `loss_rmse` and `loss_bias` of ln L on the held-out runs; `ratio`
        of that rmse to the residual standard deviation of the fitted runs; `limit`, below which the
        ratio stays in 95 % of sweeps under a correct law and this design; `num_params_error` of
        ln N_opt at the largest held-out budget against its own IsoFLOP curve (NaN if it has none).
    """
    rows = []
    cost = next(iter(fits.values())).law.cost
    top = _largest_optimum(points, C, cost, tolerance)
    for cut in largest_cuts(C, tolerance):
        train = cut > C
        if train.sum() >= LEAST_TRAIN:
            rows += [_hold_out(points, C, train, fit, top) for fit in fits.values()]
    return pd.DataFrame(rows, columns=list(BACKTEST_COLUMNS))


def largest_cuts(C: Array, tolerance: float) -> list[float]:
    """The smallest held-out C of each cut: the largest budget, and the two largest of five or more.

    A budget of one or two runs is no test by itself: it is held out with the next smaller one. If
    runs form no rows, the largest eighth and the largest quarter of them take the place of budgets.
    """
    labels, rows = _rows(C, tolerance)
    if len(rows) >= LEAST_GROUPS and np.isin(labels, rows).sum() > 0.8 * len(C):
        budgets = [float(C[labels == g].min()) for g in rows]
        return [budgets[-1], budgets[-2]] if len(budgets) >= 5 else [budgets[-1]]
    ordered = np.sort(C)
    return [float(ordered[int(len(C) * share)]) for share in (0.875, 0.75)]


def _rows(C: Array, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """The budget of each run, shape (n,), and the budgets with at least three runs, ascending."""
    labels = group_budgets(C, tolerance)
    counts = np.bincount(labels)
    return labels, np.flatnonzero(counts >= LEAST_IN_ROW)


def _hold_out(
    points: Points, C: Array, train: np.ndarray, fit: ParametricFit, top: pd.Series
) -> dict[str, object]:
    """A row of the table: one form fitted to the `train` runs, and tested on the others."""
    held_out = points.at(~train)
    refitted = refit(fit, points.at(train))
    predicted = refitted.law.loss(held_out.N, held_out.D)
    if fit.space == "log":
        error = np.log(predicted / held_out.loss)
    else:
        error = (predicted - held_out.loss) / np.exp(fit.centre[2])
    rmse = float(np.sqrt((error**2).mean()))
    std = refitted.residual_std
    largest, best = float(top["compute_budget"]), float(top["num_params"])
    return {
        "form": fit.form,
        "held_out_from": float(C[~train].min()),
        "num_train": int(train.sum()),
        "num_held_out": len(held_out),
        "loss_rmse": rmse,
        "loss_bias": float(error.mean()),
        "in_sample_std": std,
        "ratio": rmse / std if std > NO_NOISE else NAN,
        "limit": _limit(refitted, points, train),
        "num_params_error": float(np.log(refitted.law.n_opt(largest) / best)),
    }


def _limit(fit: ParametricFit, points: Points, train: np.ndarray) -> float:
    """95th percentile of the ratio of held-out error to residuals, if the fitted law is correct.

    To first order the held-out errors have covariance s^2 (I + H (J'J)^-1 H'), where J and H are
    the Jacobians of the fitted and the held-out runs. Their mean square over s^2 is close to an F
    variable whose first degrees of freedom match the spread of the eigenvalues (Satterthwaite
    1946).
    """
    x, y = np.log(points.N) - fit.centre[0], np.log(points.D) - fit.centre[1]
    loss = fit.law.loss(points.N, points.D) + fit.centre[3]
    problem = Problem(x, y, loss / np.exp(fit.centre[2]), fit.space)
    J = jacobian(problem, np.array([fit.theta]))[0]
    J = J @ tie_basis(TIES[fit.form])
    J /= np.linalg.norm(J[train], axis=0) + 1e-300
    leverage = J[~train] @ np.linalg.pinv(J[train])
    spread = np.linalg.eigvalsh(np.eye(len(leverage)) + leverage @ leverage.T)
    freedom = spread.sum() ** 2 / (spread**2).sum()
    quantile = f_quantile(0.95, freedom, max(int(train.sum()) - fit.num_free, 1))
    return float(np.sqrt(quantile * spread.mean()))


def _largest_optimum(points: Points, C: Array, cost: FlopsPerToken, tolerance: float) -> pd.Series:
    """The IsoFLOP optimum of the largest row; its N is NaN if the optimum was refused."""
    labels, rows = _rows(C, tolerance)
    top = labels == (rows[-1] if len(rows) else labels.max())
    optima = fit_isoflop(C[top], points.N[top], points.loss[top], cost=cost, tolerance=tolerance)
    optimum = optima.iloc[-1].copy()
    if optimum["refused"]:
        optimum["num_params"] = np.nan
    return optimum
