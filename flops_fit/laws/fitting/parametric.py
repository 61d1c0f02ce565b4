"""The parametric law L(N, D) = E + A / N^alpha + B / D^beta, its optimum and its fit.

Approach 3 of Hoffmann et al. (2022, section 3.3 and appendix D.3), fitted as Besiroglu et al.
(2024) show it must be: the Huber loss of log residuals *summed*, run to convergence. Data enter as
centred logarithms, so no start and no bound is tuned to any one sweep; see `solver` and `start`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from flops_fit.errors import FitError
from flops_fit.laws.fitting.newton import (
    FREE,
    LOWER,
    TIED,
    UPPER,
    Problem,
    Solution,
    jacobian,
    residuals,
    solve,
)
from flops_fit.laws.fitting.starts import grid_starts
from flops_fit.laws.model.arrays import Array, Space
from flops_fit.laws.model.cost import FlopsPerToken
from flops_fit.laws.model.parametric_law import ParametricLaw, law_of

Form = Literal["five", "tied"]
Centre = tuple[float, float, float, float]
NAMES = ("E", "A", "B", "alpha", "beta")
AGREE_WITHIN = 1e-6
MANY_STARTS, FEW_STARTS = 12, 3
E_AT_ZERO = 1e-4
SAMPLE_FROM, SAMPLE = 20_000, 4_000
PATIENCE = 2000


@dataclass(frozen=True)
class Aim:
    """What a fit minimises.

    Attributes:
        form: Five parameters, or alpha = beta tied.
        space: Residuals of ln L, or of L.
        delta: Huber's threshold; None for least squares.
    """

    form: Form = "five"
    space: Space = "log"
    delta: float | None = None


LEAST_SQUARES = Aim()


@dataclass(frozen=True)
class ParametricFit:
    """One fit of the parametric law, and how far to believe the optimiser.

    Attributes:
        law: What was found.
        form: "five" parameters, or "tied" with alpha = beta.
        space: Residuals of ln L ("log") or of L ("linear").
        delta: Huber's threshold on the residuals; None for least squares.
        num_runs: Runs it rests on.
        objective: Sum over runs of Huber's loss, or of r^2 / 2.
        residual_std: s = sqrt(sum r^2 / (n - parameters)); of ln L, or of L over its mean.
        converged: Whether the best start converged.
        gradient: Largest cosine between residuals and Jacobian at the optimum (0 is perfect).
        agreement: Share of starts that ended at the optimum.
        num_starts: Starts made.
        at_bound: Names of parameters at a bound of the search; "E" where E is zero.
        condition: Condition number of the scaled Jacobian: over 1e3 the five parameters are not
            separable on these data, though the exponents' ratio may be.
        theta: (e, a, b, alpha, beta) in centred logarithms.
        centre: (mean ln N, mean ln D, mean ln L, offset) the data were centred by; the offset was
            added to losses that are not all positive, and is not in the law.
    """

    law: ParametricLaw
    form: Form
    space: Space
    delta: float | None
    num_runs: int
    objective: float
    residual_std: float
    converged: bool
    gradient: float
    agreement: float
    num_starts: int
    at_bound: tuple[str, ...]
    condition: float
    theta: tuple[float, ...]
    centre: Centre

    @property
    def aim(self) -> Aim:
        """What was minimised."""
        return Aim(self.form, self.space, self.delta)

    @property
    def num_free(self) -> int:
        """Free parameters."""
        return 5 if self.form == "five" else 4


def fit_parametric(
    N: ArrayLike,
    D: ArrayLike,
    loss: ArrayLike,
    *,
    form: Form = "five",
    space: Space = "log",
    delta: float | None = None,
    cost: FlopsPerToken | None = None,
    starts: Array | None = None,
    most_starts: int = MANY_STARTS,
) -> ParametricFit:
    """Fit L(N, D) = E + A / N^alpha + B / D^beta.

    Args:
        N: Parameters of each run, shape (n,).
        D: Tokens of each run, shape (n,).
        loss: Loss of each run, shape (n,), positive (in linear space: any sign).
        form: Five parameters, or alpha = beta tied.
        space: Residuals of ln L, or of L.
        delta: Huber's threshold; None for least squares. 1e-3 is the papers'.
        cost: FLOPs per token, for the law's optimum. Default C = 6 N D.
        starts: Starts (e, a, b, alpha, beta) in centred logarithms, shape (S, 5). Default: the
            minima of a variable-projection grid and a lattice over it.
        most_starts: Most starts to make by default.

    Raises:
        FitError: No start converged to a finite law, or there are fewer runs than parameters.

    References:
        Hoffmann et al. 2022, appendix D.3; Besiroglu et al. 2024, section 3.
    """
    N, D, loss = (np.asarray(column, float) for column in (N, D, loss))
    _require_enough(len(loss), form)
    problem, centre = centred(N, D, loss, Aim(form, space, delta))
    if starts is None:
        tied = form == "tied"
        starts = grid_starts(problem.x, problem.y, problem.loss, tied=tied, most=most_starts)
    found = _solve_many(problem, starts)
    best = int(np.argmin(found.objective))
    if not np.isfinite(found.objective[best]):
        raise FitError("the parametric fit found no finite law from any start")
    if not found.converged[best]:
        found = _carried_on(problem, found, best)
    return _describe(problem, found, best, centre, form, cost or FlopsPerToken())


def _solve_many(problem: Problem, starts: Array) -> Solution:
    """Solve from every start; where runs are very many, on a sample first.

    The ends on the sample that are not alike are then carried to the optimum on all runs, and every
    start takes the result of its end.
    """
    n = len(problem.x)
    if n <= SAMPLE_FROM:
        return solve(problem, starts)
    rows = np.random.default_rng(0).permutation(n)[:SAMPLE]
    part = replace(problem, x=problem.x[rows], y=problem.y[rows], loss=problem.loss[rows])
    ends = solve(part, starts)
    kinds, kind = np.unique(np.round(ends.theta, 3), axis=0, return_inverse=True)
    firsts = np.array([int(np.flatnonzero(kind.ravel() == k)[0]) for k in range(len(kinds))])
    carried = solve(problem, ends.theta[firsts])
    of = kind.ravel()
    return Solution(
        carried.theta[of], carried.objective[of], carried.gradient[of], carried.converged[of]
    )


def _carried_on(problem: Problem, found: Solution, best: int) -> Solution:
    """The best end taken further, in small delta a long way along a nearly flat valley."""
    further = solve(problem, found.theta[best : best + 1], max_iter=PATIENCE)
    ends = zip(vars(found).values(), vars(further).values(), strict=True)
    return Solution(*(np.concatenate([old[:best], new, old[best + 1 :]]) for old, new in ends))


def refit(fit: ParametricFit, N: Array, D: Array, loss: Array) -> ParametricFit:
    """The same fit on other runs, started at its own end and at the best points of the grid."""
    problem, centre = centred(N, D, loss, fit.aim)
    fresh = grid_starts(problem.x, problem.y, problem.loss, tied=fit.form == "tied", most=1)
    return fit_parametric(
        N,
        D,
        loss,
        form=fit.form,
        space=fit.space,
        delta=fit.delta,
        cost=fit.law.cost,
        starts=np.vstack([restart(fit, centre), fresh]),
    )


def centred(N: Array, D: Array, loss: Array, aim: Aim = LEAST_SQUARES) -> tuple[Problem, Centre]:
    """The problem in centred logarithms, and what it was centred by.

    Losses that are not all positive are lifted until they are: in linear space, the only one they
    can be fitted in, that moves E and nothing else.
    """
    x, y = np.log(N), np.log(D)
    offset = 0.0 if (loss > 0).all() else float(np.ptp(loss) - loss.min()) or 1.0
    loss = loss + offset
    scale = np.log(loss).mean()
    centre = (float(x.mean()), float(y.mean()), float(scale), offset)
    ties = FREE if aim.form == "five" else TIED
    scaled = loss / np.exp(scale)
    return Problem(x - centre[0], y - centre[1], scaled, aim.space, aim.delta, ties), centre


def restart(fit: ParametricFit, centre: Centre) -> Array:
    """The end of one fit as a start for data centred elsewhere, shape (1, 5)."""
    e, a, b, alpha, beta = fit.theta
    x, y, scale, _ = (new - old for new, old in zip(centre, fit.centre, strict=True))
    return np.array([[e - scale, a - scale - alpha * x, b - scale - beta * y, alpha, beta]])


def natural(theta: Array, centre: Centre) -> Array:
    """Rows (E, ln A, ln B, alpha, beta) from rows in centred logarithms."""
    e, a, b, alpha, beta = theta.T
    mx, my, scale, offset = centre
    E = np.exp(e + scale) - offset
    return np.stack([E, a + scale + alpha * mx, b + scale + beta * my, alpha, beta], axis=1)


def _describe(
    problem: Problem,
    found: Solution,
    best: int,
    centre: Centre,
    form: Form,
    cost: FlopsPerToken,
) -> ParametricFit:
    theta = found.theta[best : best + 1]
    r = residuals(problem, theta)[0]
    free = 5 if form == "five" else 4
    low = found.objective[best]
    agree = found.objective <= low * (1 + AGREE_WITHIN) + 1e-24 * len(r)
    return ParametricFit(
        law=law_of(natural(theta, centre)[0], cost),
        form=form,
        space=problem.space,
        delta=problem.delta,
        num_runs=len(r),
        objective=float(low),
        residual_std=float(np.sqrt((r @ r) / max(len(r) - free, 1))),
        converged=bool(found.converged[best]),
        gradient=float(found.gradient[best]),
        agreement=float(agree.mean()),
        num_starts=len(found.objective),
        at_bound=_at_bound(theta[0], problem),
        condition=condition(problem, theta),
        theta=tuple(theta[0].tolist()),
        centre=centre,
    )


def condition(problem: Problem, theta: Array) -> float:
    """Condition number of the Jacobian with its columns scaled to one."""
    J = jacobian(problem, theta)[0]
    basis = np.eye(max(problem.ties) + 1)[list(problem.ties)]
    J = J @ basis
    lengths = np.linalg.norm(J, axis=0)
    if not (lengths > 1e-12 * lengths.max()).all():
        return float("inf")
    return float(np.linalg.cond(J / lengths))


def _at_bound(theta: Array, problem: Problem) -> tuple[str, ...]:
    near = (theta <= LOWER + 1e-9) | (theta >= UPPER - 1e-9)
    near[0] |= np.exp(theta[0]) < E_AT_ZERO * np.abs(problem.loss).min()
    return tuple(name for name, hit in zip(NAMES, near, strict=True) if hit)


def _require_enough(n: int, form: Form) -> None:
    least = 5 if form == "five" else 4
    if n < least:
        raise FitError(f"expected at least {least} runs for {least} parameters, got {n}")
