"""`Misfit`: predictions of a law that does not hold exactly.

Real sweeps do not follow any law to within their noise. A prediction is therefore the law and what
the runs near it say about the law's error (`kriging`), and its variance is that of both. Where
there are enough runs, it is an average over the straight law and the bent one, because runs that
hardly contradict gamma = 1 hardly support it: each counts by its Bayesian information criterion
(Schwarz 1978).

References:
    Kennedy & O'Hagan 2001 (model discrepancy); Hoeting et al. 1999 (model averaging).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flops_fit.errors import FitError
from flops_fit.laws.distributions import t_quantile
from flops_fit.laws.fitting.parametric import Form, ParametricFit
from flops_fit.laws.inference.form_choice import is_sound
from flops_fit.laws.inference.intervals import LEVEL
from flops_fit.laws.inference.kriging.kriging import Kriging
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.cost import FlopsPerToken
from flops_fit.laws.model.frontier import frontier, log_flops_per_token
from flops_fit.laws.runs.points import Points

# Odds of the bent law before the runs are seen. Where gamma = 1 is exact, they widen intervals of
# the loss by a tenth (simulated); on public tables they decide whether the largest budgets of
# sweeps of few rows are covered.
BENT_ODDS = 0.2
# Below this number of runs, and where the odds are clear, the chosen form counts alone.
LEAST_RUNS = 24
CLEAR = (0.03, 0.95)
# Fewest runs more than the law has parameters.
LEAST_DOF = 3
# Models around an optimum, in ln N. The loss is followed down to its least in so many steps, which
# are limited one by one and together: far from the law's optimum few runs tell where it is.
STENCIL = np.array([-0.5, -0.25, 0.0, 0.25, 0.5])
STEPS = 5
MOST_STEP, FARTHEST = 0.5, 1.5


@dataclass(frozen=True)
class Corrected:
    """Losses with their misfit, shape (k,) each.

    Attributes:
        value: The loss.
        low: Low end of the 95 % interval.
        high: High end.
        noise: How far the loss of one run lies from its mean, at 95 %.
    """

    value: Array
    low: Array
    high: Array
    noise: Array


@dataclass(frozen=True)
class Misfit:
    """Laws with their misfits, and how much each counts.

    Attributes:
        weights: Weight of each law; they add up to one.
        laws: The laws with their misfits.
    """

    weights: tuple[float, ...]
    laws: tuple[Kriging, ...]

    @property
    def quantile(self) -> float:
        """Half-width of a 95 % interval in standard errors."""
        return t_quantile(0.5 + LEVEL / 2, max(min(law.dof for law in self.laws), 1))

    @property
    def exact(self) -> float:
        """The probability that the laws hold exactly."""
        return sum(
            weight * setting.weight
            for weight, law in zip(self.weights, self.laws, strict=True)
            for setting in law.settings
            if setting.ratio == 0
        )

    def losses(self, x: Array, y: Array) -> Corrected:
        """The loss of models at x = ln N and y = ln D, shape (k,) each."""
        parts, noises = [], []
        for law in self.laws:
            mx, my, scale, offset = law.fit.centre
            at_x, at_y = x - mx, y - my
            log_law = law.log_law(at_x, at_y)
            one = np.ones((len(x), 1))
            mean, variance, noise = law.posterior(at_x[:, None], at_y[:, None], one)
            base = log_law if law.fit.space == "log" else np.exp(log_law)
            parts.append((base + mean, variance))
            noises.append(float(noise))
        mean, half = self._mixed(parts)
        noise = self.quantile * np.sqrt(np.dot(self.weights, noises)) * np.ones_like(mean)
        if self.laws[0].fit.space == "log":
            value = np.exp(mean + scale)
            return Corrected(value, value * np.exp(-half), value * np.exp(half), value * noise)
        unit = float(np.exp(scale))
        value, half = unit * mean - offset, unit * half
        return Corrected(value, value - half, value + half, unit * noise)

    def optima(self, C: Array, cost: FlopsPerToken) -> tuple[Array, Array]:
        """The log of the best N for each budget, by the laws alone.

        It is the least loss of the law with its misfit g along the budget. To first order, an error
        of the slope of g moves it by that error over the law's curvature.

        Args:
            C: Budgets in FLOPs, shape (k,).
            cost: FLOPs per token.

        Returns:
            ln N and the half-width of its 95 % interval, shape (k,) each.
        """
        return self._mixed([_optimum(law, C, cost) for law in self.laws])

    def _mixed(self, parts: list[tuple[Array, Array]]) -> tuple[Array, Array]:
        """Mean, and half-width of the interval, over the means and variances of the laws."""
        weights = np.array(self.weights)
        means, variances = (np.stack([part[i] for part in parts]) for i in (0, 1))
        mean = weights @ means
        variance = weights @ (variances + (means - mean) ** 2)
        return mean, self.quantile * np.sqrt(variance)


def measure_misfit(
    fits: Mapping[str, ParametricFit], form: Form, points: Points, *, average: bool
) -> Misfit | None:
    """What the runs say about the error of the laws fitted to them.

    Args:
        fits: The fits of these runs by form.
        form: The form of the headline.
        points: The runs.
        average: Whether another form may count too; not if this one was asked for.

    Returns:
        The misfit; None where there are too few runs to see one.
    """
    weights = _weights(fits, form) if average and len(points) >= LEAST_RUNS else {form: 1.0}
    if any(len(points) - fits[name].num_free < LEAST_DOF for name in weights):
        return None
    try:
        laws = tuple(Kriging.of(fits[name], points) for name in weights)
    except np.linalg.LinAlgError as error:
        raise FitError(f"the misfit of the law cannot be measured: {error}") from error
    return Misfit(tuple(weights.values()), laws)


def _weights(fits: Mapping[str, ParametricFit], form: Form) -> dict[str, float]:
    """The weight of each form that counts."""
    straight = "five" if form == "bent" else form
    bent = fits.get("bent")
    if bent is None or not is_sound(bent):
        return {form: 1.0}
    n = bent.num_runs
    gain = n * float(np.log(max(fits[straight].objective, 1e-28) / max(bent.objective, 1e-28)))
    extra = bent.num_free - fits[straight].num_free
    odds = BENT_ODDS * np.exp(np.clip((gain - extra * np.log(n)) / 2, -50, 50))
    share = float(odds / (1 + odds))
    if not CLEAR[0] < share < CLEAR[1]:
        return {"bent" if share > 0.5 else straight: 1.0}
    return {straight: 1 - share, "bent": share}


def sums_at_optimum(law: Kriging, C: float, cost: FlopsPerToken) -> tuple[Array, Array, Array]:
    """The sums over models around the optimum of a budget whose errors are those of ln N and ln L.

    Returns:
        Centred ln N and ln D of the models, shape (m,) each, and what each model counts in ln N_opt
        and in the loss there, shape (2, m).
    """
    x, factors = _followed(law, np.array([C]), cost)
    at_x, at_y = _stencil(law, np.array([C]), cost, x)
    return at_x[0], at_y[0], np.stack([factors[0], (STENCIL == 0).astype(float)])


def _optimum(law: Kriging, C: Array, cost: FlopsPerToken) -> tuple[Array, Array]:
    """The log of the best N and its variance, shape (k,) each."""
    x, factors = _followed(law, C, cost)
    _, variance, _ = law.posterior(*_stencil(law, C, cost, x), factors)
    return x, variance


def _followed(law: Kriging, C: Array, cost: FlopsPerToken) -> tuple[Array, Array]:
    """The log of the best N, shape (k,), and what the loss of each model around it counts in it."""
    first = frontier(law.fit.law.vector[None], C, cost)[0][0]
    x = first
    for _ in range(STEPS):
        at_x, at_y = _stencil(law, C, cost, x)
        losses = _log_losses(law, at_x, at_y)
        # The parabola through the stencil: its slope and curvature at the middle.
        bend, slope, _ = np.polynomial.polynomial.polyfit(STENCIL, losses.T, 2)[::-1]
        step = np.where(bend > 0, -slope / (2 * np.maximum(bend, 1e-12)), -np.sign(slope))
        x = first + np.clip(x + np.clip(step, -MOST_STEP, MOST_STEP) - first, -FARTHEST, FARTHEST)
    ends = np.array([1.0, 0.0, 0.0, 0.0, -1.0]) / np.ptp(STENCIL)
    at_x, at_y = _stencil(law, C, cost, first)
    level = law.log_law(at_x.ravel(), at_y.ravel()).reshape(at_x.shape)
    if law.fit.space == "linear":
        level = np.exp(level)
    _, tilt, bend = np.polynomial.polynomial.polyfit(STENCIL, level.T, 2)
    curvature = 2 * bend
    # The parabola's own error: its vertex for the law alone, whose optimum is known.
    x = x + tilt / np.maximum(curvature, 1e-12)
    factors = ends / np.maximum(curvature, 1e-12)[:, None]
    return x, factors


def _stencil(law: Kriging, C: Array, cost: FlopsPerToken, x: Array) -> tuple[Array, Array]:
    """Centred ln N and ln D of models around ln N = x, for each budget, shape (k, 5) each."""
    mx, my = law.fit.centre[:2]
    at = x[:, None] + STENCIL
    y = np.log(C)[:, None] - log_flops_per_token(at.ravel(), cost).reshape(at.shape)
    return at - mx, y - my


def _log_losses(law: Kriging, x: Array, y: Array) -> Array:
    """The corrected loss of models, its log in log space, in the shape of x."""
    level = law.log_law(x.ravel(), y.ravel())
    if law.fit.space == "linear":
        level = np.exp(level)
    return np.asarray(level + law.mean(x.ravel(), y.ravel())).reshape(x.shape)
