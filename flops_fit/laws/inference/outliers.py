"""Screens for outliers: runs too far above the law to belong to the sweep.

Bad runs err upwards: a run that diverged, stalled or was cut short has a higher loss than it
should, and none has a lower one. The tests are therefore one-sided, on residuals ln L - ln law.

* From twenty runs: residuals of a Huber fit that exceed their median by more than four median
  absolute deviations (scaled to a normal distribution's standard deviation).
* Below: the largest deleted residual of a least-squares fit against Student's t at 0.01 / n
  (Bonferroni), repeated until no run is dropped (Cook & Weisberg 1982, section 2.2).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import stats

from flops_fit.laws.fitting.parametric import ParametricFit, centred, fit_parametric
from flops_fit.laws.fitting.residuals import Problem, jacobian, residuals, tie_basis
from flops_fit.laws.model.arrays import MAD_TO_STD, Array
from flops_fit.laws.runs.points import Points

# A run is dropped above this many (scaled) median absolute deviations ...
MADS = 4.0
# ... if there are at least this many runs; below, deleted residuals are tested at this level.
MAD_FROM = 20
LEVEL = 0.01
# Residuals below this are rounding, not noise: noise-free runs are all kept.
FLOOR = 1e-7


def screen(fit: ParametricFit, points: Points) -> np.ndarray:
    """The runs to leave out, as a mask of shape (n,).

    Args:
        fit: A Huber fit of all the runs.
        points: The runs.
    """
    if len(points) < MAD_FROM:
        return _screen_deleted_residuals(fit, points)
    return screen_mad(excess(fit, points), fit.num_free)


def screen_mad(excess: Array, num_free: int) -> np.ndarray:
    """Whether the excess lies more than four MAD above its median, shape (n,).

    A Huber fit with a small delta passes through about as many runs as it has parameters. Their
    residuals of zero say nothing about the noise, so the median is taken over the others.
    """
    middle = np.median(excess)
    sizes = np.sort(np.abs(excess - middle))[num_free:]
    return np.asarray(excess - middle > MADS * MAD_TO_STD * np.median(sizes) + FLOOR)


def screen_iqr(excess: Array) -> np.ndarray:
    """Whether the excess lies above Tukey's fence, shape (n,).

    The fence is the third quartile plus one and a half interquartile ranges.
    """
    low, high = np.percentile(excess, [25, 75])
    return np.asarray(excess > high + 1.5 * (high - low) + FLOOR)


def excess(fit: ParametricFit, points: Points) -> Array:
    """How far each run lies above the law: in ln L, or in L over its mean, shape (n,)."""
    law = fit.law.loss(points.N, points.D)
    if fit.space == "log":
        return np.log(points.loss) - np.log(law)
    return (points.loss - law) / np.exp(fit.centre[2])


def _screen_deleted_residuals(fit: ParametricFit, points: Points) -> np.ndarray:
    """Drop the run with the largest deleted residual until none is significant, shape (n,)."""
    out = np.zeros(len(points), bool)
    while (~out).sum() > fit.num_free + 2:
        keep = np.flatnonzero(~out)
        kept = points.at(keep)
        trial = fit_parametric(kept, form=fit.form, space=fit.space)
        problem, _ = centred(kept, replace(fit.aim, delta=None))
        t, dof = _studentised(problem, np.array([trial.theta]))
        worst = int(t.argmax())
        if t[worst] <= stats.t.ppf(1 - LEVEL / len(keep), dof):
            break
        out[keep[worst]] = True
    return out


def _studentised(problem: Problem, theta: Array) -> tuple[Array, int]:
    """Deleted (externally studentised) residuals, positive upwards, and their freedom.

    Each residual is divided by its standard error, estimated without its own run.
    """
    r = -residuals(problem, theta)[0]
    J = jacobian(problem, theta)[0] @ tie_basis(problem.ties)
    Q = np.linalg.qr(J / (np.linalg.norm(J, axis=0) + 1e-300))[0]
    # One minus the leverage: the share of a run's error that its residual shows.
    shown = np.maximum(1 - (Q * Q).sum(axis=1), 1e-9)
    dof = len(r) - J.shape[1] - 1
    variance = np.maximum(r @ r - r * r / shown, 1e-6 * (r @ r)) / dof
    return r / np.sqrt((variance + FLOOR**2) * shown), dof
