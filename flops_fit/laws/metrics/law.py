"""`MetricLaw`: the law of one metric, and its forecasts with 95 % intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from flops_fit.errors import FitError
from flops_fit.laws.distributions import normal_quantile
from flops_fit.laws.metrics.forms import Form, Places
from flops_fit.laws.metrics.posterior import Limits
from flops_fit.laws.model.arrays import Array

TAIL = 0.025
# A forecast says nothing if its interval spans this share of all values that the metric can have;
# without bounds, this multiple of the range of the runs.
VAGUE_SHARE = 0.8
VAGUE_RANGES = 3.0


@dataclass(frozen=True)
class Losses:
    """The forecast loss at k places, with its 95 % interval and that of one new run."""

    value: Array
    low: Array
    high: Array
    run_low: Array
    run_high: Array

    @property
    def known(self) -> np.ndarray:
        """Where the loss has an interval that says something."""
        ends = np.stack([self.low, self.high, self.run_low, self.run_high])
        return np.asarray(np.isfinite(ends).all(axis=0))


@dataclass(frozen=True)
class MetricForecast:
    """A metric at k places, shape (k,) each; intervals are NaN where they say nothing.

    Attributes:
        value: The metric.
        low: Low end of the 95 % interval of its mean over runs.
        high: High end of it.
        run_low: Low end of the 95 % interval of one new run.
        run_high: High end of it.
    """

    value: Array
    low: Array
    high: Array
    run_low: Array
    run_high: Array


@dataclass(frozen=True)
class MetricLaw:
    """The law of one metric.

    Attributes:
        name: The metric, as the user names it.
        column: The column of the runs that holds it.
        limits: Its bounds, and whether it rises as the loss falls.
        in_log: Whether the forms are of its logarithm.
        forms: The forms that count.
        shares: How much each counts; the first is the chosen one.
        draws: Parameters of each form, shape (S, p).
        scatter: Standard deviation of the runs about the chosen form.
        dof: Its degrees of freedom.
        drift: Standard deviation of what the chosen form misses of a change beyond the runs, as a
            share of the change.
        observed: The least and the largest value of the runs.
        largest: Loss at the optimum of the largest budget, and ln of that budget.
        num_runs: Runs that have the metric.
        backtest: One row per form and cut: errors on the held-out largest budgets.
        refused: Why there is no forecast; empty if there is one.
        remark: What is doubtful of it; may be empty.
    """

    name: str
    column: str
    limits: Limits = field(default_factory=lambda: Limits(-np.inf, np.inf, True))
    in_log: bool = False
    forms: tuple[Form, ...] = ()
    shares: tuple[float, ...] = ()
    draws: tuple[Array, ...] = field(default=(), compare=False)
    scatter: float = np.nan
    dof: int = 0
    drift: float = 0.0
    observed: tuple[float, float] = (np.nan, np.nan)
    largest: tuple[float, float] = (np.nan, np.nan)
    num_runs: int = 0
    backtest: pd.DataFrame = field(default_factory=pd.DataFrame, compare=False)
    refused: str = ""
    remark: str = ""

    @property
    def chosen(self) -> str:
        """Name of the chosen form; empty if there is no forecast."""
        return self.forms[0].name if self.forms else ""

    @property
    def approaches(self) -> Mapping[str, float]:
        """How much each form counts in the interval."""
        return {form.name: share for form, share in zip(self.forms, self.shares, strict=True)}

    def through_the_loss(self) -> MetricLaw:
        """The law by its forms of the loss alone.

        Raises:
            FitError: It has none.
        """
        of_loss = [i for i, form in enumerate(self.forms) if form.of == "loss"]
        if not of_loss:
            raise FitError(
                f"the metric {self.name!r} is forecast by {self.chosen}, which does not tell what "
                "repeated data are worth."
            )
        total = sum(self.shares[i] for i in of_loss)
        return replace(
            self,
            forms=tuple(self.forms[i] for i in of_loss),
            shares=tuple(self.shares[i] / total for i in of_loss),
            draws=tuple(self.draws[i] for i in of_loss),
        )

    def forecast(self, places: Places, losses: Losses) -> MetricForecast:
        """The metric at k places.

        The value is that of the chosen form at the forecast loss. The interval is that of all
        forms that count, and holds the uncertainty of their parameters, that of the loss, and what
        the form has missed of held-out budgets; for a new run also its noise.

        Args:
            places: Where; `loss` is the forecast loss.
            losses: The forecast loss with its intervals.
        """
        value = np.asarray(np.median(self.forms[0].values(self.draws[0], places), axis=0))
        value = np.exp(value) if self.in_log else value
        rng = np.random.default_rng(0)
        means, runs = [], []
        loss, log_C = self.largest
        largest = Places(np.array([loss]), np.array([log_C]), np.zeros(1))
        beyond = places.log_compute > log_C
        for form, share, draws in zip(self.forms, self.shares, self.draws, strict=True):
            count = max(2, round(share * len(draws)))
            some = draws[:count]
            share_missed = self.drift * rng.standard_normal((count, 1))
            at = {
                end: Places(
                    _spread(losses, end, count, rng), places.log_compute, places.off_optimum
                )
                for end in ("", "run_")
            }
            noise = self.scatter * rng.standard_t(max(self.dof, 1), (count, 1))
            mean = form.values(some, at[""])
            missed = np.where(beyond, share_missed * (mean - form.values(some, largest)), 0.0)
            means.append(mean + missed)
            runs.append(form.values(some, at["run_"]) + missed + noise)
        low, high = self._ends(np.concatenate(means), value)
        run_low, run_high = self._ends(np.concatenate(runs), value)
        unknown = self._vague(low, high) | ~losses.known
        low, high, run_low, run_high = (
            np.where(unknown, np.nan, end)
            for end in (low, high, np.fmin(low, run_low), np.fmax(high, run_high))
        )
        return MetricForecast(value, low, high, run_low, run_high)

    def _ends(self, values: Array, value: Array) -> tuple[Array, Array]:
        values = np.exp(values) if self.in_log else values
        low, high = np.quantile(values, [TAIL, 1 - TAIL], axis=0)
        low = np.maximum(np.fmin(low, value), self.limits.low)
        return low, np.minimum(np.fmax(high, value), self.limits.high)

    def _vague(self, low: Array, high: Array) -> np.ndarray:
        """Which intervals say nothing."""
        seen = self.observed[1] - self.observed[0]
        most = VAGUE_RANGES * seen
        if self.limits.bounded:
            most = VAGUE_SHARE * (self.limits.high - self.limits.low)
        return np.asarray(high - low > most)


def _spread(losses: Losses, end: str, count: int, rng: np.random.Generator) -> Array:
    """Losses drawn from two half normals that have the interval's ends, shape (count, k)."""
    low, high = getattr(losses, f"{end}low"), getattr(losses, f"{end}high")
    # The same quantiles at every place, in a shuffled order.
    z = rng.permutation(normal_quantile((np.arange(count) + 0.5) / count))[:, None]
    quantile = normal_quantile(1 - TAIL)
    half = np.where(z < 0, losses.value - low, high - losses.value) / quantile
    return np.asarray(losses.value + z * np.where(np.isfinite(half), half, 0.0))
