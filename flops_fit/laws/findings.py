"""`Findings`: the laws fitted to one table of runs, with their uncertainty and checks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from flops_fit.laws.check import Check, not_beyond
from flops_fit.laws.distributions import t_quantile
from flops_fit.laws.fitting.parametric import ParametricFit
from flops_fit.laws.inference.intervals import STEP, Method, Quantity, Spread, hull
from flops_fit.laws.inference.misfit import Misfit
from flops_fit.laws.metrics.law import MetricLaw
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.cost import FlopsPerToken
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.model.power_law import PowerLaws
from flops_fit.laws.model.recipe_law import RecipeLaw
from flops_fit.laws.model.repetition_law import RepetitionLaw
from flops_fit.laws.runs.exclusions import of_sweep
from flops_fit.records import Size

# Key of `Findings.meta`: columns and values of the runs, as JSON, where others were fitted apart.
FITTED_BY = "fitted_by"
# Name of the headline's form fitted to the losses less what the recipe cost each run.
TUNED_FIT = "best recipe"


@dataclass(frozen=True)
class Findings:
    """The result of fitting one table of runs.

    Attributes:
        runs: One row per run; `excluded` states why a run took no part in the fits.
        optima: One row per budget, from the IsoFLOP curves.
        law: The headline law; None if no parametric law could be fitted.
        power_laws: The power laws through the optima.
        fits: Every parametric fit, by name; "headline" is the one behind `law`, "best recipe" the
            same with the losses that the runs would have reached with the best recipe.
        spreads: Uncertainty of the headline; also of the same form without suspected outliers, and
            of the five-parameter fit if the tied form was chosen by the back-test.
        intervals: One row per parameter (E, A, B, alpha, beta, gamma if the law is bent, a, and
            fitted constants of repetition): value, low, high, standard_error. E, A and B are NaN if
            the runs do not separate them.
        checks: Everything that is doubtful.
        backtest: Errors on held-out budgets.
        cost: FLOPs per token.
        choice: The form of the headline, and why it was chosen.
        envelope: The lower envelope of the training curves; empty if no curves were given.
        envelope_laws: Power laws through the envelope.
        curves: Points of training curves: `trial_id num_tokens loss`; empty if none were given.
        misfit: What the law misses, and the laws that count in predictions; None where there are
            too few runs to see it.
        repetition: The data-constrained law, if the headline is a law of effective tokens; None if
            all data was new.
        recipe_law: The best learning rate and batch size for N and D; None where no pilot ran.
        forecasts: Forecasts that were made of the sweep, with their outcomes, as `flops_fit.score`
            returns them; empty if there are none.
        rounds: Of a sweep with a goal, how precise the answer was at each round, and the trials
            that came next: `flops num_runs span loss_span next message`; else empty.
        metrics: The laws of metrics other than the loss, by name.
        meta: Name, data unit, FLOPs convention and the like: plain strings.
        build_size: Returns the size value for N parameters by building models; not saved. None:
            sizes are interpolated between those of the runs.
    """

    runs: pd.DataFrame
    optima: pd.DataFrame
    law: ParametricLaw | None
    power_laws: PowerLaws
    fits: dict[str, ParametricFit]
    spreads: tuple[Spread, ...]
    intervals: pd.DataFrame
    checks: list[Check]
    backtest: pd.DataFrame
    cost: FlopsPerToken
    choice: str = ""
    envelope: pd.DataFrame = field(default_factory=pd.DataFrame)
    envelope_laws: PowerLaws | None = None
    curves: pd.DataFrame = field(default_factory=pd.DataFrame)
    repetition: RepetitionLaw | None = None
    misfit: Misfit | None = None
    recipe_law: RecipeLaw | None = None
    forecasts: pd.DataFrame = field(default_factory=pd.DataFrame)
    rounds: pd.DataFrame = field(default_factory=pd.DataFrame)
    metrics: Mapping[str, MetricLaw] = field(default_factory=dict)
    meta: Mapping[str, str] = field(default_factory=dict)
    build_size: Callable[[float], Size | None] | None = field(default=None, compare=False)

    @property
    def target(self) -> float | None:
        """Of a sweep with a goal, the budget that its answer is for, in FLOPs; else None."""
        target = float(self.rounds["target"].iloc[-1]) if len(self.rounds) else math.nan
        return target if math.isfinite(target) else None

    @cached_property
    def fitted_runs(self) -> pd.DataFrame:
        """The runs that take part in the fits."""
        return self.runs[self.runs["excluded"] == ""]

    @cached_property
    def sweep_runs(self) -> pd.DataFrame:
        """The runs of the sweep proper, without those that found or checked the recipe."""
        return of_sweep(self.runs)

    @cached_property
    def largest_budget(self) -> float:
        """The largest budget among the runs that take part in the fits, FLOPs."""
        return float(self.fitted_runs["compute_budget"].max())

    @property
    def not_beyond(self) -> list[Check]:
        """The refusals that withhold every prediction beyond the largest budget."""
        return not_beyond(self.checks)

    @cached_property
    def least_loss(self) -> float:
        """A lower bound of the law's loss: the low end of E's interval, and at least zero.

        It is -inf if there is no headline, or if losses are not all positive.
        """
        if "headline" not in self.fits or self.fits["headline"].centre[3] != 0:
            return -math.inf
        return max(float(self.interval(lambda laws: laws[:, :1])[0][0]), 0.0)

    def interval(self, quantity: Quantity, step: float = STEP) -> tuple[Array, Array]:
        """95 % interval of a quantity of the law.

        It contains the intervals of all `spreads`; arguments are as for `Spread.interval`.
        """
        return hull(self.spreads, quantity, step)

    def parameter_error(self, quantity: Quantity) -> Array:
        """Half-width of a 95 % interval by independent errors of the law's parameters, shape (k,).

        Intervals are wider where runs share errors, or a bootstrap finds more.
        """
        spread = self.spreads[0]
        method: Method = "pairs" if "pairs" in spread.draws else "delta"
        low, high = spread.interval(quantity, method=method)
        return (high - low) / 2

    @property
    def law_vector(self) -> Array:
        """The vector of the headline law, shape (1, 6)."""
        assert self.law is not None
        return self.law.vector[None]

    def run_noise(self, losses: Array) -> Array:
        """How far the loss of one run lies from its mean at 95 %, by the headline's residuals.

        Args:
            losses: The mean, shape (k,).

        Returns:
            Shape (k,).
        """
        spread, fit = self.spreads[0], self.fits["headline"]
        # The residual standard deviation is relative: to the loss, or in linear space to its mean.
        level = np.exp(fit.centre[2]) if fit.space == "linear" else np.abs(losses)
        quantile = t_quantile(0.975, max(spread.dof, 1))
        return np.asarray(quantile * spread.residual_std * level * np.ones_like(losses))
