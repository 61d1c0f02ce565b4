"""`LackOfFit`: how far the law misses the curves of the IsoFLOP rows.

Along each row, the residuals of ln L may follow a curve of their own in ln N: a parabola, or a
cubic from seven sizes on. An F test asks whether these curves, beyond what the law's parameters
take up, explain more than noise. The scatter of the runs about their own curve is the noise, so
seeds need not be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from flops_fit.laws.distributions import f_tail
from flops_fit.laws.fitting.isoflop_curve import CUBIC_FROM
from flops_fit.laws.fitting.parametric import TIES, ParametricFit, centred
from flops_fit.laws.fitting.residuals import Problem, jacobian, residuals, tie_basis
from flops_fit.laws.inference.backtest import NO_NOISE
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.runs.budgets import group_budgets
from flops_fit.laws.runs.points import Points

# Level of the test. Where the law is exact it is rejected that often (simulated, docs/log.md).
LEVEL = 0.005
# Fewest sizes of a row: one more than a parabola has coefficients.
LEAST_SIZES = 4
LEAST_DOF = 3
# Points of a row at which its curve and the law's are compared.
GRID = 201


@dataclass(frozen=True)
class RowMisfit:
    """How the law misses one row.

    Attributes:
        budget: C in FLOPs.
        share: Its share of the sum of squares of the misfit.
        level: The law over the row's own curve at the row's least loss: of ln L, or of L over its
            mean.
        shift: ln N of the law's least loss along the row, less that of the row's own curve.
        bend: How much more the row's own curve is bent than the law, in standard errors.
    """

    budget: float
    share: float
    level: float
    shift: float
    bend: float


@dataclass(frozen=True)
class LackOfFit:
    """A law that does not hold along the rows.

    Attributes:
        F: The F statistic.
        p: Its p value.
        noise: Standard deviation of the runs about their own row's curve.
        misfit: Root mean square of the rows' own curves over the law.
        rows: The rows, the worst first.
    """

    F: float
    p: float
    noise: float
    misfit: float
    rows: tuple[RowMisfit, ...]


def lack_of_fit(fit: ParametricFit, points: Points, C: Array, tolerance: float) -> LackOfFit | None:
    """Test a law against the rows that it was fitted to.

    Args:
        fit: The law.
        points: The runs.
        C: Their budgets in FLOPs, shape (n,).
        tolerance: Budgets that differ by less than this share are one budget.

    Returns:
        What the law misses; None where it holds, or where there are too few sizes in the rows.
    """
    labels = group_budgets(C, tolerance)
    masks = [labels == g for g in np.unique(labels)]
    rows = [row for row in masks if _num_sizes(np.log(points.N[row])) >= LEAST_SIZES]
    if fit.residual_std < NO_NOISE or not rows:
        return None
    problem, _ = centred(points, replace(fit.aim, delta=None))
    theta = np.array([fit.theta])
    r = -residuals(problem, theta)[0]
    of_law = jacobian(problem, theta)[0] @ tie_basis(TIES[fit.form])
    curves = [_curve(problem.x, row) for row in rows]
    tested = np.any(rows, axis=0)
    F, p, variance = _f_test(r[tested], of_law[tested], np.hstack(curves)[tested])
    if not p < LEVEL:
        return None
    own = [curve @ (curve.T @ r) for curve in curves]
    total = float((np.sum(own, axis=0) ** 2).sum())
    noise = float(np.sqrt(variance))
    found = [
        RowMisfit(
            float(np.exp(np.log(C[row]).mean())),
            float(misfit @ misfit) / total,
            *_at_minimum(fit, problem, row, misfit),
            float(curve[:, 2] @ r) / noise,
        )
        for row, curve, misfit in zip(rows, curves, own, strict=True)
    ]
    found.sort(key=lambda row: -row.share)
    return LackOfFit(F, p, noise, float(np.sqrt(total / tested.sum())), tuple(found))


def _at_minimum(
    fit: ParametricFit, problem: Problem, row: np.ndarray, own: Array
) -> tuple[float, float]:
    """The law over the row's own curve at the row's least loss, and how far its minimum is off.

    Args:
        fit: The law.
        problem: The runs.
        row: A mask of those in the row, shape (n,).
        own: The row's own curve over the law, at the runs, shape (n,).
    """
    x, y = problem.x[row], problem.y[row]
    at_x = np.asarray(np.linspace(x.min(), x.max(), GRID), float)
    at_y = np.asarray(np.polyval(np.polyfit(x, y, 1), at_x), float)
    ones = Problem(at_x, at_y, np.ones(GRID), fit.space)
    law = residuals(ones, np.array([fit.theta]))[0]
    beyond = np.polyval(np.polyfit(x, own[row], _degree(x)), at_x)
    least = int(np.argmin(law + beyond))
    return -float(beyond[least]), float(at_x[np.argmin(law)] - at_x[least])


def _f_test(r: Array, of_law: Array, curves: Array) -> tuple[float, float, float]:
    """F, its p value (1 where nothing can be tested), and the variance about the curves.

    The degrees of freedom are the expected sums of squares for noise of variance one.

    Args:
        r: Residuals, shape (n,).
        of_law: Their derivatives by the law's parameters, shape (n, p).
        curves: Those of the rows, as orthonormal columns, shape (n, q).
    """
    U, sizes, _ = np.linalg.svd(of_law / (np.linalg.norm(of_law, axis=0) + 1e-300), False)
    U = U[:, sizes > 1e-8 * sizes[0]]
    r = r - U @ (U.T @ r)
    explained = float(((curves.T @ r) ** 2).sum())
    extra = curves.shape[1] - float(((U.T @ curves) ** 2).sum())
    dof = len(r) - U.shape[1] - extra
    if extra < 1 or dof < LEAST_DOF:
        return 0.0, 1.0, 0.0
    variance = max(float(r @ r) - explained, 1e-28) / dof
    F = explained / extra / variance
    return F, f_tail(F, extra, dof), variance


def _num_sizes(x: Array) -> int:
    return len(np.unique(np.round(x, 6)))


def _degree(x: Array) -> int:
    return 3 if _num_sizes(x) >= CUBIC_FROM else 2


def _curve(x: Array, row: np.ndarray) -> Array:
    """Orthonormal level, slope, curvature and so on over a row, zero elsewhere, shape (n, q)."""
    z = x[row] - x[row].mean()
    Q, R = np.linalg.qr(np.vander(z / np.abs(z).max(), _degree(z) + 1, increasing=True))
    basis = np.zeros((len(x), Q.shape[1]))
    basis[row] = Q * np.sign(np.diag(R))
    return basis
