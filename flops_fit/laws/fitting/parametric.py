"""The fit of the parametric law L(N, D) = E + (A / N^alpha + B / D^beta)^gamma.

Approach 3 of Hoffmann et al. (2022, section 3.3 and appendix D.3), with the corrections of
Besiroglu et al. (2024): the Huber loss of log residuals is summed, not averaged, and the optimiser
runs to convergence. The data are centred logarithms, so no start and no bound is tuned to one
sweep. The law in these terms is in `residuals`, the optimiser in `newton`, its starts are in
`starts`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from flops_fit.errors import FitError
from flops_fit.laws.fitting.newton import Solution, solve
from flops_fit.laws.fitting.residuals import (
    BENT,
    FREE,
    TIED,
    Problem,
    at_bounds,
    jacobian,
    residuals,
    tie_basis,
)
from flops_fit.laws.fitting.starts import bent_starts, grid_starts
from flops_fit.laws.model.arrays import Array, Space
from flops_fit.laws.model.cost import FlopsPerToken
from flops_fit.laws.model.parametric_law import ParametricLaw, law_from_vector
from flops_fit.laws.runs.points import Points

# "five": E, A, B, alpha and beta are free, and gamma = 1. "tied": the same with alpha = beta.
# "bent": gamma is free as well.
Form = Literal["five", "tied", "bent"]
TIES: dict[Form, tuple[int, ...]] = {"five": FREE, "tied": TIED, "bent": BENT}
# (mean ln N, mean ln D, mean ln L, offset): see `ParametricFit.centre`.
Centre = tuple[float, float, float, float]
NAMES = ("E", "A", "B", "alpha", "beta", "gamma")
# Starts agree if their objectives differ by less than this share.
AGREE_WITHIN = 1e-6
# Starts of a headline fit, and of fits that only serve as comparisons.
MANY_STARTS = 12
FEW_STARTS = 3
# E counts as zero below this share of the lowest loss.
E_AT_ZERO = 1e-4
# Above this number of runs, a fit starts on a sample of the given size.
SAMPLE_FROM = 4_000
SAMPLE = 1_500
# Iterations for a best start that did not converge at first.
PATIENCE = 2000


@dataclass(frozen=True)
class Aim:
    """What a fit minimises.

    Attributes:
        form: "five" parameters, "tied" with alpha = beta, or "bent" with gamma.
        space: Residuals of ln L ("log") or of L ("linear").
        delta: Huber's threshold; None for least squares.
    """

    form: Form = "five"
    space: Space = "log"
    delta: float | None = None


LEAST_SQUARES = Aim()


@dataclass(frozen=True)
class ParametricFit:
    """One fit of the parametric law, with diagnostics of the optimiser.

    Attributes:
        law: The fitted law.
        form: "five" parameters, "tied" with alpha = beta, or "bent" with gamma.
        space: Residuals of ln L ("log") or of L ("linear").
        delta: Huber's threshold on the residuals; None for least squares.
        num_runs: Number of runs in the fit.
        objective: Sum over runs of Huber's loss, or of r^2 / 2.
        residual_std: s = sqrt(sum r^2 / (n - parameters)); of ln L, or of L over its mean.
        converged: Whether the best start converged.
        gradient: Largest cosine between residuals and Jacobian at the optimum; 0 is perfect.
        agreement: Share of starts that ended at the optimum.
        num_starts: Number of starts.
        at_bound: Names of the parameters at a bound of the search; includes "E" if E is zero.
        condition: Condition number of the scaled Jacobian. Above 1e3 the parameters are not
            separable on these data, though the ratio of the exponents may be.
        theta: (e, a, b, q, s), and gamma in a bent fit: see `residuals`.
        centre: (mean ln N, mean ln D, mean ln L, offset) by which the data were centred. The offset
            was added to losses that are not all positive; the law does not contain it.
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
        """What the fit minimised."""
        return Aim(self.form, self.space, self.delta)

    @property
    def num_free(self) -> int:
        """Number of free parameters."""
        return num_parameters(self.form)


def num_parameters(form: Form) -> int:
    """Number of free parameters of a form."""
    return max(TIES[form]) + 1


def fit_parametric(
    points: Points,
    *,
    form: Form = "five",
    space: Space = "log",
    delta: float | None = None,
    cost: FlopsPerToken | None = None,
    starts: Array | None = None,
    most_starts: int = MANY_STARTS,
) -> ParametricFit:
    """Fit L(N, D) = E + (A / N^alpha + B / D^beta)^gamma, with gamma = 1 unless the form is "bent".

    Args:
        points: The runs. In log space all losses must be positive.
        form: "five" parameters, "tied" with alpha = beta, or "bent" with gamma.
        space: Residuals of ln L ("log") or of L ("linear").
        delta: Huber's threshold; None for least squares. The papers use 1e-3.
        cost: FLOPs per token, for the law's optimum. Default C = 6 N D.
        starts: Starts, like `ParametricFit.theta`, shape (S, 5), or (S, 6) with gamma. Default: the
            minima of a variable-projection grid and a lattice over it; a bent fit starts at the
            five-parameter fit, with several gamma.
        most_starts: Largest number of default starts of a fit with gamma = 1.

    Raises:
        FitError: No start reached a finite law, or there are fewer runs than parameters.

    References:
        Hoffmann et al. 2022, appendix D.3; Besiroglu et al. 2024, section 3.
    """
    _require_enough(len(points), form)
    problem, centre = centred(points, Aim(form, space, delta))
    if starts is None:
        starts = _default_starts(problem, most_starts)
    found = _solve_many(problem, starts)
    best = int(np.argmin(found.objective))
    if not np.isfinite(found.objective[best]):
        raise FitError("the parametric fit found no finite law from any start")
    if not found.converged[best]:
        found = _continue_best(problem, found, best)
    return _describe(problem, found, best, centre, form, cost or FlopsPerToken())


def _default_starts(problem: Problem, most: int) -> Array:
    """Starts of a fit of which nothing is known, at most so many before gamma is free."""
    tied = problem.ties == TIED
    starts = grid_starts(problem.x, problem.y, problem.loss, tied=tied, most=most)
    if problem.ties != BENT:
        return starts
    five = _solve_many(replace(problem, ties=FREE), starts)
    return bent_starts(five.theta[np.argmin(five.objective)])


def _solve_many(problem: Problem, starts: Array) -> Solution:
    """Solve from every start; for very many runs, on a sample first.

    Each distinct end point on the sample is then carried to the optimum on all runs, and every
    start gets the result of its own end point.
    """
    n = len(problem.x)
    if n <= SAMPLE_FROM:
        return solve(problem, starts)
    rows = np.random.default_rng(0).permutation(n)[:SAMPLE]
    part = replace(problem, x=problem.x[rows], y=problem.y[rows], loss=problem.loss[rows])
    ends = solve(part, starts)
    distinct, kind = np.unique(np.round(ends.theta, 3), axis=0, return_inverse=True)
    kind = kind.ravel()
    firsts = np.array([int(np.flatnonzero(kind == k)[0]) for k in range(len(distinct))])
    carried = solve(problem, ends.theta[firsts])
    return Solution(
        carried.theta[kind],
        carried.objective[kind],
        carried.gradient[kind],
        carried.converged[kind],
    )


def _continue_best(problem: Problem, found: Solution, best: int) -> Solution:
    """Continue the best start: with a small delta the optimum lies far along a flat valley."""
    further = solve(problem, found.theta[best : best + 1], max_iter=PATIENCE)
    ends = zip(vars(found).values(), vars(further).values(), strict=True)
    return Solution(*(np.concatenate([old[:best], new, old[best + 1 :]]) for old, new in ends))


def refit(fit: ParametricFit, points: Points) -> ParametricFit:
    """The same fit on other runs, from its own end point and from a fresh start or several."""
    problem, centre = centred(points, fit.aim)
    fresh = _default_starts(problem, 1)
    return fit_parametric(
        points,
        form=fit.form,
        space=fit.space,
        delta=fit.delta,
        cost=fit.law.cost,
        starts=np.vstack([restart(fit, centre), fresh]),
    )


def centred(points: Points, aim: Aim = LEAST_SQUARES) -> tuple[Problem, Centre]:
    """The problem in centred logarithms, and the values by which it was centred.

    An offset is added to losses that are not all positive. Such losses are fitted in linear space,
    where an offset changes E and nothing else.
    """
    x, y, loss = np.log(points.N), np.log(points.D), points.loss
    offset = 0.0 if (loss > 0).all() else float(np.ptp(loss) - loss.min()) or 1.0
    loss = loss + offset
    scale = np.log(loss).mean()
    centre = (float(x.mean()), float(y.mean()), float(scale), offset)
    scaled = loss / np.exp(scale)
    x, y = x - centre[0], y - centre[1]
    return Problem(x, y, scaled, aim.space, aim.delta, TIES[aim.form]), centre


def restart(fit: ParametricFit, centre: Centre) -> Array:
    """The end point of one fit as a start for data with another centre, shape (1, 5) or (1, 6)."""
    e, a, b, q, s, *gamma = fit.theta
    x, y, scale, _ = (new - old for new, old in zip(centre, fit.centre, strict=True))
    return np.array([[e - scale, a - scale - q * x, b - scale - s * y, q, s, *gamma]])


def excess(fit: ParametricFit, points: Points) -> Array:
    """How far each run lies above the law: in ln L, or in L over its mean, shape (n,)."""
    law = fit.law.loss(points.N, points.D)
    if fit.space == "log":
        return np.log(points.loss) - np.log(law)
    return (points.loss - law) / np.exp(fit.centre[2])


def natural(theta: Array, centre: Centre) -> Array:
    """Law vectors (E, ln A, ln B, alpha, beta, gamma) from theta, shape (S, 6)."""
    e, a, b, q, s = theta[:, :5].T
    gamma = theta[:, 5] if theta.shape[1] > 5 else np.ones(len(theta))
    mx, my, scale, offset = centre
    E = np.exp(e + scale) - offset
    terms = a + scale + q * mx, b + scale + s * my, q, s
    return np.stack([E, *(part / gamma for part in terms), gamma], axis=1)


def theta_of(law: ParametricLaw, form: Form, centre: Centre) -> tuple[float, ...]:
    """Theta of a law with E above zero: the inverse of `natural`, without an offset."""
    E, log_A, log_B, alpha, beta, gamma = law.vector.tolist()
    mean_x, mean_y, scale, _ = centre
    q, s = gamma * alpha, gamma * beta
    a, b = gamma * log_A - scale - q * mean_x, gamma * log_B - scale - s * mean_y
    theta = (float(np.log(E)) - scale, a, b, q, s, gamma)
    return theta[: len(TIES[form])]


def natural_slopes(theta: Array, centre: Centre) -> Array:
    """Derivatives of `natural` by theta of shape (5,) or (6,), shape (6, 5) or (6, 6)."""
    mean_x, mean_y, scale, _ = centre
    gamma = theta[5] if len(theta) > 5 else 1.0
    T = np.zeros((6, len(theta)))
    T[0, 0] = np.exp(theta[0] + scale)
    T[[1, 2, 3, 4], [1, 2, 3, 4]] = 1 / gamma
    T[1, 3], T[2, 4] = mean_x / gamma, mean_y / gamma
    if len(theta) > 5:
        T[1:5, 5] = -natural(theta[None], centre)[0, 1:5] / gamma
        T[5, 5] = 1.0
    return T


def _describe(
    problem: Problem,
    found: Solution,
    best: int,
    centre: Centre,
    form: Form,
    cost: FlopsPerToken,
) -> ParametricFit:
    """The best start's end point as a `ParametricFit`."""
    theta = found.theta[best : best + 1]
    r = residuals(problem, theta)[0]
    low = found.objective[best]
    agree = found.objective <= low * (1 + AGREE_WITHIN) + 1e-24 * len(r)
    return ParametricFit(
        law=law_from_vector(natural(theta, centre)[0], cost),
        form=form,
        space=problem.space,
        delta=problem.delta,
        num_runs=len(r),
        objective=float(low),
        residual_std=float(np.sqrt((r @ r) / max(len(r) - num_parameters(form), 1))),
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
    """Condition number of the Jacobian with its columns scaled to length one."""
    J = jacobian(problem, theta)[0] @ tie_basis(problem.ties)
    lengths = np.linalg.norm(J, axis=0)
    if not (lengths > 1e-12 * lengths.max()).all():
        return float("inf")
    return float(np.linalg.cond(J / lengths))


def _at_bound(theta: Array, problem: Problem) -> tuple[str, ...]:
    """Names of the parameters that are at a bound, or zero in the case of E."""
    near = at_bounds(theta)
    near[0] |= np.exp(theta[0]) < E_AT_ZERO * np.abs(problem.loss).min()
    return tuple(name for name, hit in zip(NAMES, near, strict=False) if hit)


def _require_enough(n: int, form: Form) -> None:
    least = num_parameters(form)
    if n < least:
        raise FitError(f"expected at least {least} runs for {least} parameters, got {n}")
