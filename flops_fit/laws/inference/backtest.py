"""Hold out the largest budgets, fit the rest, and see how well they are foretold.

The five-parameter and the tied law (alpha = beta) are both tried; the tied one extrapolates better
in most public ladders, not in all. It is chosen only where it foretells the held-out losses
clearly better *and* the data do not speak against alpha = beta: a plain win is as often luck, and
then costs a bias in the exponent for nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
from scipy import stats

from flops_fit.laws.fitting.isoflop import fit_isoflop
from flops_fit.laws.fitting.newton import FREE, TIED, Problem, jacobian
from flops_fit.laws.fitting.parametric import Form, ParametricFit, refit
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.cost import FlopsPerToken
from flops_fit.laws.runs.budgets import group_budgets

LEAST_GROUPS, LEAST_IN_ROW = 3, 3
LEAST_TRAIN = 7
CLEARLY = 0.8
NO_NOISE = 1e-9
F_CLOSE, F_BOUND = 1.0, 4.0
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
    N: Array,
    D: Array,
    loss: Array,
    C: Array,
    fits: Mapping[Form, ParametricFit],
    *,
    tolerance: float = 0.1,
) -> pd.DataFrame:
    """Errors on the largest budget, and on the two largest where five or more are there.

    Args:
        N: Parameters of each run, shape (n,).
        D: Tokens, shape (n,).
        loss: Loss, shape (n,).
        C: Budget, FLOPs, shape (n,).
        fits: Fits of all these runs, by form; each is made again, alike, without the largest.
        tolerance: Budgets this close (relative) are one.

    Returns:
        A row a form and cut: `loss_rmse` and `loss_bias` of ln L on the held-out runs, `ratio` of
        that rmse to the residual standard deviation in the sample, `limit` that this ratio keeps
        below 95 times in 100 under a right law and this design, `num_params_error` of ln N_opt
        at the largest held-out budget against its own IsoFLOP curve (NaN where it has none).
    """
    rows = []
    top = _largest_optimum(N, loss, C, next(iter(fits.values())).law.cost, tolerance)
    for cut in _cuts(C, tolerance):
        train = cut > C
        if train.sum() >= LEAST_TRAIN:
            rows += [_try(N, D, loss, C, train, fit, top) for fit in fits.values()]
    return pd.DataFrame(rows, columns=list(BACKTEST_COLUMNS))


def choose_form(table: pd.DataFrame, five: ParametricFit, tied: ParametricFit) -> tuple[Form, str]:
    """The form to report, and why.

    Args:
        table: What `backtest` gave.
        five: The five-parameter fit of all runs.
        tied: The tied fit of the same runs.
    """
    F = tied_test(five, tied)
    if five.at_bound and not tied.at_bound and F < F_BOUND:
        return "tied", f"alpha = beta: fitted apart, {', '.join(five.at_bound)} met a bound"
    if table.empty:
        return "five", "alpha and beta fitted apart: too few budgets to try alpha = beta on"
    if five.residual_std < NO_NOISE:
        exact = tied.residual_std < NO_NOISE
        return "five", f"the runs have no noise{', alpha = beta fits too' * exact}"
    errors = table.groupby("form")["loss_rmse"].apply(lambda rmse: float((rmse**2).sum()))
    share = float(np.sqrt(errors.get("tied", np.inf) / max(errors.get("five", np.inf), 1e-300)))
    error = f"its error on the largest budgets, held out, is {_short(share)} times"
    if share < CLEARLY and F < F_CLOSE:
        return "tied", f"alpha = beta: {error} that of the two apart, and it fits no worse"
    against = f", and the runs speak against it (F {_short(F)})" * (F > F_BOUND)
    return "five", f"alpha and beta fitted apart: with alpha = beta {error} as large{against}"


def _short(value: float) -> str:
    return "over 100" if value > 100 else f"{value:.2g}"


def tied_test(five: ParametricFit, tied: ParametricFit) -> float:
    """F statistic of alpha = beta, one degree of freedom against n - 5."""
    slack = max(tied.objective - five.objective, 0.0)
    return slack / max(five.objective, 1e-24) * max(five.num_runs - 5, 1)


def _cuts(C: Array, tolerance: float) -> list[float]:
    """Smallest held-out C of each cut: the top budget, and the top two of five or more.

    A budget of one or two runs is no test by itself: it is held out with the next below. Where runs
    form no rows, the top eighth and the top quarter of them stand for budgets.
    """
    labels, rows = _rows(C, tolerance)
    if len(rows) >= LEAST_GROUPS and np.isin(labels, rows).sum() > 0.8 * len(C):
        tops = [float(C[labels == g].min()) for g in rows]
        return [tops[-1], tops[-2]] if len(tops) >= 5 else [tops[-1]]
    ordered = np.sort(C)
    return [float(ordered[int(len(C) * share)]) for share in (0.875, 0.75)]


def _rows(C: Array, tolerance: float) -> tuple[np.ndarray, np.ndarray]:
    """Budget of each run, and the budgets of at least three runs, from the smallest."""
    labels = group_budgets(C, tolerance)
    counts = np.bincount(labels)
    return labels, np.flatnonzero(counts >= LEAST_IN_ROW)


def _try(
    N: Array,
    D: Array,
    loss: Array,
    C: Array,
    train: np.ndarray,
    fit: ParametricFit,
    top: pd.Series,
) -> dict[str, object]:
    """One form fitted without the held-out runs, against them."""
    held = ~train
    less = refit(fit, N[train], D[train], loss[train])
    foretold = less.law.loss(N[held], D[held])
    if fit.space == "log":
        error = np.log(foretold / loss[held])
    else:
        error = (foretold - loss[held]) / np.exp(fit.centre[2])
    rmse = float(np.sqrt((error**2).mean()))
    budget, best = float(top["compute_budget"]), float(top["num_params"])
    row: dict[str, object] = {
        "form": fit.form,
        "held_out_from": float(C[held].min()),
        "num_train": int(train.sum()),
        "num_held_out": int(held.sum()),
        "loss_rmse": rmse,
        "loss_bias": float(error.mean()),
        "in_sample_std": less.residual_std,
        "ratio": rmse / less.residual_std if less.residual_std > NO_NOISE else float("nan"),
        "limit": _limit(less, N, D, train),
        "num_params_error": float(np.log(less.law.n_opt(budget) / best)),
    }
    return row


def _limit(fit: ParametricFit, N: Array, D: Array, train: np.ndarray) -> float:
    """95th percentile of the ratio of held-out error to residuals, under the fitted law.

    To first order the held-out errors have covariance s^2 (I + H (J'J)^-1 H'), with J and H the
    Jacobians of the runs fitted and held out; their mean square over s^2 is near an F variable
    whose first degrees of freedom match the spread of the eigenvalues (Satterthwaite 1946).
    """
    x, y = np.log(N) - fit.centre[0], np.log(D) - fit.centre[1]
    loss = fit.law.loss(N, D) + fit.centre[3]
    problem = Problem(x, y, loss / np.exp(fit.centre[2]), fit.space)
    J = jacobian(problem, np.array([fit.theta]))[0]
    J = J @ np.eye(fit.num_free)[list(FREE if fit.form == "five" else TIED)]
    J /= np.linalg.norm(J[train], axis=0) + 1e-300
    reach = J[~train] @ np.linalg.pinv(J[train])
    spread = np.linalg.eigvalsh(np.eye(len(reach)) + reach @ reach.T)
    freedom = spread.sum() ** 2 / (spread**2).sum()
    quantile = stats.f.ppf(0.95, freedom, max(int(train.sum()) - fit.num_free, 1))
    return float(np.sqrt(quantile * spread.mean()))


def _largest_optimum(
    N: Array, loss: Array, C: Array, cost: FlopsPerToken, tolerance: float
) -> pd.Series:
    """The IsoFLOP optimum of the largest row; its N is NaN where the curve shows none."""
    labels, rows = _rows(C, tolerance)
    top = labels == (rows[-1] if len(rows) else labels.max())
    row = fit_isoflop(C[top], N[top], loss[top], cost=cost, tolerance=tolerance).iloc[-1].copy()
    if row["refused"]:
        row["num_params"] = np.nan
    return row
