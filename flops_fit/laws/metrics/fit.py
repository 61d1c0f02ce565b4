"""From the runs of a sweep to the law of one of their metrics."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from flops_fit.errors import FitError
from flops_fit.laws.distributions import correlation
from flops_fit.laws.fitting.parametric import ParametricFit, refit
from flops_fit.laws.inference.backtest import largest_cuts
from flops_fit.laws.metrics import trend
from flops_fit.laws.metrics.choice import Cut, choose
from flops_fit.laws.metrics.columns import MetricColumn
from flops_fit.laws.metrics.forms import LARGEST_E, Form, Places
from flops_fit.laws.metrics.law import MetricLaw
from flops_fit.laws.metrics.posterior import Limits
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.runs.budgets import group_budgets
from flops_fit.laws.runs.points import Points

# A positive metric that spans more than this factor is fitted in its logarithm.
FACTOR = 1.5
# Names of metrics that are percentages where their values exceed 1.
PERCENTAGE = re.compile(r"acc|percent|pct|%|recall|precision|f1", re.IGNORECASE)
LIFTS_OFF = (
    "without the largest budget there is no trend, and no form foresees the values there: it has "
    "only begun to leave its floor or its ceiling."
)
MISSED = (
    "fitted without the largest budget, its law misses the values there by more than the whole "
    "change that it forecasts. The interval is as much wider."
)


@dataclass(frozen=True)
class FittedRuns:
    """The runs that the law of the loss was fitted to, n of them, and that law.

    Attributes:
        points: The runs as the law sees them.
        N: Parameters as counted, shape (n,).
        C: Budgets in FLOPs, shape (n,).
        fit: The headline.
        irreducible: 95 % interval of E.
        repeated: Whether data was repeated.
        tolerance: Budgets that differ by less than this share are one.
    """

    points: Points
    N: Array
    C: Array
    fit: ParametricFit
    irreducible: tuple[float, float]
    repeated: bool
    tolerance: float

    def at(self, rows: np.ndarray) -> FittedRuns:
        """Some of the runs."""
        return FittedRuns(
            self.points.at(rows),
            self.N[rows],
            self.C[rows],
            self.fit,
            self.irreducible,
            self.repeated,
            self.tolerance,
        )

    def places(self, loss: Array) -> Places:
        """Where the runs are, with these losses."""
        off = np.log(self.N) - np.log(self.fit.law.n_opt(self.C))
        return Places(loss, np.log(self.C), off)


def fit_metric(metric: MetricColumn, values: Array, runs: FittedRuns) -> MetricLaw:
    """Fit the law of one metric.

    Args:
        metric: The metric, by default with bounds as `limits_of` finds them.
        values: The metric of each run, NaN where a run has none, shape (n,).
        runs: The runs.

    Returns:
        The law; with a reason in `refused` where the runs determine none.
    """
    has = np.isfinite(values)
    values, runs = values[has], runs.at(has)
    loss, labels = runs.points.loss, group_budgets(runs.C, runs.tolerance)
    refused = trend.refuse(values, loss, labels)
    observed = (float(values.min()), float(values.max())) if len(values) else (np.nan, np.nan)
    name, column = metric.name, metric.column
    known = MetricLaw(name, column, observed=observed, num_runs=len(values), refused=refused)
    if refused:
        return known
    limits = limits_of(values, loss, metric)
    if not (limits.low <= observed[0] and observed[1] <= limits.high):
        outside = f"its values, {observed[0]:.4g} to {observed[1]:.4g}, lie outside its bounds."
        return replace(known, refused=outside)
    in_log = spans_factors(values, limits)
    places, y = runs.places(loss), np.log(values) if in_log else values
    chosen = choose(_candidates(runs, limits), places, y, limits, _cuts(runs))
    if chosen is None:
        return replace(known, refused="no form that keeps to its bounds goes through the runs.")
    below = runs.C < _cut(runs)
    if chosen.missed and trend.trend_p(values[below], loss[below]) >= trend.LEVEL:
        return replace(known, backtest=chosen.table, refused=LIFTS_OFF)
    doubt = MISSED if chosen.missed else trend.remark(values, loss, labels)
    return replace(
        known,
        limits=limits,
        in_log=in_log,
        forms=tuple(fit.form for fit in chosen.fitted),
        shares=chosen.shares,
        draws=tuple(fit.draws for fit in chosen.fitted),
        scatter=chosen.fitted[0].scatter,
        dof=chosen.fitted[0].dof,
        drift=chosen.drift,
        largest=_largest(runs),
        backtest=chosen.table,
        remark=doubt,
    )


def _largest(runs: FittedRuns) -> tuple[float, float]:
    """The law's loss at the optimum of the largest budget, and ln of that budget."""
    law, C = runs.fit.law, float(runs.C.max())
    return float(law.l_opt(C)), float(np.log(C))


def limits_of(values: Array, loss: Array, metric: MetricColumn) -> Limits:
    """Bounds and direction of a metric.

    By default the bounds are 0 and 1 if all values lie between them; 0 and 100 for a metric that is
    named like a percentage, if they lie between those; and none otherwise.

    Args:
        values: The metric of the runs, shape (n,).
        loss: Their loss.
        metric: The metric, with its bounds if they were given.
    """
    bounds = metric.bounds
    rising = bool(correlation(values, loss)[0] < 0)
    if bounds is None:
        most = 1.0 if values.max() <= 1 else 100.0
        share = most == 1 or PERCENTAGE.search(metric.name)
        fits = share and values.min() >= 0 and values.max() <= most
        bounds = (0.0, most) if fits else (None, None)
    low, high = bounds
    return Limits(-np.inf if low is None else low, np.inf if high is None else high, rising)


def spans_factors(values: Array, limits: Limits) -> bool:
    """Whether a metric is fitted in its logarithm: a positive one without bounds, as perplexity.

    Args:
        values: The metric of the runs, shape (n,).
        limits: Its bounds.
    """
    if np.isfinite(limits.low) or np.isfinite(limits.high) or values.min() <= 0:
        return False
    return bool(values.max() > FACTOR * values.min())


def _candidates(runs: FittedRuns, limits: Limits) -> Callable[[Places], Sequence[Form]]:
    """The forms to try, for runs at some places."""

    def forms(places: Places) -> list[Form]:
        losses = float(places.loss.min()), float(places.loss.max())
        compute = float(places.log_compute.min()), float(places.log_compute.max())
        low, high = runs.irreducible
        most = losses[0] - (1 - LARGEST_E) * abs(losses[0])
        if np.isfinite(runs.fit.centre[3]) and runs.fit.centre[3] == 0:
            low = max(low, 0.0)
        high = min(high, most) if np.isfinite(high) else most
        E = (min(low, high) if np.isfinite(low) else high - 2 * (losses[1] - losses[0]), high)
        found = [Form("power", "loss", losses, compute, E)]
        shapes = ("sigmoid", "power") if limits.bounded else ("power",)
        if limits.bounded:
            found.append(Form("sigmoid", "loss", losses, compute))
        if not runs.repeated:  # compute alone does not tell what repeated data are worth
            found += [Form(shape, "compute", losses, compute) for shape in shapes]
        return found

    return forms


def _cut(runs: FittedRuns) -> float:
    """The smallest C of the largest budget."""
    return largest_cuts(runs.C, runs.tolerance)[0]


def _cuts(runs: FittedRuns) -> list[Cut]:
    """Back-tests: the law of the loss is fitted again without the largest budgets, too."""
    cuts = []
    for least in largest_cuts(runs.C, runs.tolerance):
        train = least > runs.C
        try:
            fit = refit(runs.fit, runs.points.at(train))
        except (FitError, np.linalg.LinAlgError):
            continue
        loss = np.asarray(fit.law.loss(runs.points.N, runs.points.D))
        cuts.append(Cut(train, runs.places(loss)))
    return cuts
