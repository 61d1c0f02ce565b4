"""Which runs are too far above the law to be of its kind.

Bad runs err upwards: a run that diverged, stalled or was cut short is worse than its kind, none is
better. So tests are one-sided, on residuals ln L - ln law. From twenty runs up: residuals of a
Huber fit beyond four (normal-consistent) median absolute deviations. Below: the largest deleted
residual of a least-squares fit against Student's t at .01 / n (Bonferroni), again and again until
none is left (Cook & Weisberg 1982, section 2.2).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import stats

from flops_fit.laws.fitting.newton import Problem, jacobian, residuals
from flops_fit.laws.fitting.parametric import ParametricFit, centred, fit_parametric
from flops_fit.laws.model.arrays import Array

MADS = 4.0
MAD_FROM = 20
LEVEL = 0.01
TO_SIGMA = 1.4826
FLOOR = 1e-7


def screen(fit: ParametricFit, N: Array, D: Array, loss: Array) -> Array:
    """Which runs to leave out: a mask, shape (n,).

    Args:
        fit: A Huber fit of all runs.
        N: Parameters of each run, shape (n,).
        D: Tokens, shape (n,).
        loss: Loss, shape (n,).
    """
    if len(loss) < MAD_FROM:
        return _deleted_residuals(fit, N, D, loss)
    return screen_mad(excess(fit, N, D, loss), fit.num_free)


def screen_mad(excess: Array, num_free: int) -> Array:
    """Excess beyond four MAD of its median.

    A Huber fit with a small delta runs through about as many runs as it has parameters: those
    residuals say nothing of the noise, so the median is over the others.
    """
    middle = np.median(excess)
    sizes = np.sort(np.abs(excess - middle))[num_free:]
    return excess - middle > MADS * TO_SIGMA * np.median(sizes) + FLOOR


def screen_iqr(excess: Array, reach: float = 1.5) -> Array:
    """Excess over the third quartile by more than `reach` interquartile ranges (Tukey's fence)."""
    low, high = np.percentile(excess, [25, 75])
    return excess > high + reach * (high - low) + FLOOR


def excess(fit: ParametricFit, N: Array, D: Array, loss: Array) -> Array:
    """How far each run lies above the law: of ln L, or of L over its mean, shape (n,)."""
    law = fit.law.loss(N, D)
    if fit.space == "log":
        return np.log(loss) - np.log(law)
    return (loss - law) / np.exp(fit.centre[2])


def _deleted_residuals(fit: ParametricFit, N: Array, D: Array, loss: Array) -> Array:
    out = np.zeros(len(loss), bool)
    while (~out).sum() > fit.num_free + 2:
        keep = np.flatnonzero(~out)
        trial = fit_parametric(N[keep], D[keep], loss[keep], form=fit.form, space=fit.space)
        problem, _ = centred(N[keep], D[keep], loss[keep], replace(fit.aim, delta=None))
        t, dof = _studentised(problem, np.array([trial.theta]))
        worst = int(t.argmax())
        if t[worst] <= stats.t.ppf(1 - LEVEL / len(keep), dof):
            break
        out[keep[worst]] = True
    return out


def _studentised(problem: Problem, theta: Array) -> tuple[Array, int]:
    """Deleted (externally studentised) residuals, upwards positive, and their freedom."""
    r = -residuals(problem, theta)[0]
    basis = np.eye(max(problem.ties) + 1)[list(problem.ties)]
    J = jacobian(problem, theta)[0] @ basis
    Q = np.linalg.qr(J / (np.linalg.norm(J, axis=0) + 1e-300))[0]
    room = np.maximum(1 - (Q * Q).sum(axis=1), 1e-9)
    dof = len(r) - J.shape[1] - 1
    rest = np.maximum(r @ r - r * r / room, 1e-6 * (r @ r)) / dof
    return r / np.sqrt((rest + FLOOR**2) * room), dof
