"""flops_fit.laws.findings."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import stats

from flops_fit.laws.check import Check, not_beyond
from flops_fit.laws.fitting.parametric import ParametricFit
from flops_fit.laws.inference.intervals import STEP, Quantity, Spread, hull
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.cost import FlopsPerToken
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.model.power_law import PowerLaws
from flops_fit.laws.model.repetition_law import RepetitionLaw
from flops_fit.records import Size


@dataclass(frozen=True)
class Findings:
    """Everything the laws say about one table of runs.

    Attributes:
        runs: A row a run; `excluded` says why a run took no part.
        optima: A row a budget, from the IsoFLOP curves.
        law: The headline law; None where no parametric fit stands.
        power_laws: Through the optima.
        fits: Every parametric fit made, by name; "headline" names the one `law` is from.
        spreads: Uncertainty of the headline, and of the five-parameter fit where tied was chosen.
        intervals: A row a parameter (E, A, B, alpha, beta, a): value, low, high, standard_error;
            NaN where the runs do not tell E, A and B apart.
        checks: What is doubtful.
        backtest: Errors on held-out budgets.
        cost: FLOPs per token.
        choice: Which form the headline has, and why.
        envelope: The lower envelope of training curves, where curves were given; else empty.
        envelope_laws: Power laws through it.
        curves: Points of training curves: `trial_id num_tokens loss`; empty where none were given.
        repetition: The data-constrained law where the headline holds in effective tokens; None
            where all data was new.
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
    meta: Mapping[str, str] = field(default_factory=dict)
    build_size: Callable[[float], Size | None] | None = field(default=None, compare=False)

    @cached_property
    def fitted_runs(self) -> pd.DataFrame:
        """The runs that take part in the fits."""
        return self.runs[self.runs["excluded"] == ""]

    @cached_property
    def largest_budget(self) -> float:
        """The largest budget among the runs that take part in the fits, FLOPs."""
        return float(self.fitted_runs["compute_budget"].max())

    @property
    def not_beyond(self) -> list[Check]:
        """Why nothing is predicted beyond the largest budget; empty where something is."""
        return not_beyond(self.checks)

    @cached_property
    def least_loss(self) -> float:
        """What no law's loss lies below: the low end of E's interval, and zero if no loss does."""
        if "headline" not in self.fits or self.fits["headline"].centre[3] != 0:
            return -math.inf
        return max(float(self.interval(lambda laws: laws[:, :1])[0][0]), 0.0)

    def interval(self, quantity: Quantity, step: float = STEP) -> tuple[Array, Array]:
        """95 % interval: the headline's, widened to hold the five-parameter fit's."""
        return hull(self.spreads, quantity, step)

    def noise_around(self, low: Array, high: Array, k: int) -> Array:
        """What one run's own noise adds to half an interval of the last k losses, shape (k,)."""
        spread, fit = self.spreads[0], self.fits["headline"]
        reach = float(stats.t.ppf(0.975, max(spread.dof, 1)))
        half, level = (high[-k:] - low[-k:]) / 2, np.abs(high[-k:] + low[-k:]) / 2
        if fit.space == "linear":
            level = np.full(k, np.exp(fit.centre[2]))
        return np.hypot(half, reach * spread.residual_std * level) - half
