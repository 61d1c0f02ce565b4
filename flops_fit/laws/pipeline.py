"""From a clean table of runs to everything that is known from it.

The parametric fit is the headline; the other objectives, the IsoFLOP curves and the envelope are
its witnesses; the checks say where they disagree, and what else is doubtful.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd
from scipy import stats

from flops_fit.errors import FitError
from flops_fit.laws.check_fits import check_fits
from flops_fit.laws.check_runs import check_runs, check_seed_noise
from flops_fit.laws.checks import NOT_TOLD_APART, Check, not_beyond
from flops_fit.laws.cost import Cost
from flops_fit.laws.envelope import fit_envelope
from flops_fit.laws.exclude import MOST_EPOCHS, epochs, exclude_bad, exclude_repeated
from flops_fit.laws.headline import Data, Headline, headline, hull
from flops_fit.laws.isoflop import fit_isoflop, fit_power_laws
from flops_fit.laws.options import Options
from flops_fit.laws.parametric import FEW_STARTS, ParametricFit, ParametricLaw
from flops_fit.laws.power import PowerLaws
from flops_fit.laws.repetition import RepetitionLaw
from flops_fit.laws.solver import Array, Space
from flops_fit.laws.uncertainty import STEP, Quantity, Spread, log_parameters


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
    cost: Cost
    choice: str = ""
    envelope: pd.DataFrame = field(default_factory=pd.DataFrame)
    envelope_laws: PowerLaws | None = None
    curves: pd.DataFrame = field(default_factory=pd.DataFrame)
    repetition: RepetitionLaw | None = None

    @cached_property
    def largest_budget(self) -> float:
        """The largest budget that took part, FLOPs."""
        standing = self.runs[self.runs["excluded"] == ""]
        return float(standing["compute_budget"].max())

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


def analyse(
    runs: pd.DataFrame,
    options: Options | None = None,
    *,
    curves: pd.DataFrame | None = None,
) -> Findings:
    """Fit everything.

    Args:
        runs: A clean table, as `table.read_runs` gives.
        options: How to fit.
        curves: Points of training curves: `trial_id num_tokens loss`, and `ended` where known.

    Raises:
        FitError: No run has finished.
    """
    options = options or Options()
    runs, found = _headline(exclude_bad(runs, curves), options)
    data, fits = found.data, dict(found.fits)
    if found.form:
        fits |= {**_witnesses(data), "headline": fits[found.form]}
    optima = fit_isoflop(
        data.C,
        data.num_params,
        data.loss,
        curve=options.curve,
        cost=data.cost,
        tolerance=options.tolerance,
    )
    findings = Findings(
        runs=_exclude(runs, found.out),
        optima=optima,
        law=fits["headline"].law if found.form else None,
        power_laws=fit_power_laws(optima),
        fits=fits,
        spreads=found.spreads,
        intervals=parameter_table(fits.get("headline"), found.spreads, data.repetition),
        checks=list(found.checks),
        backtest=found.backtest,
        cost=data.cost,
        choice=found.choice,
        repetition=data.repetition if found.form else None,
    )
    findings = _with_envelope(findings, curves, options)
    checks = _checks(findings, options)
    return replace(findings, checks=checks, intervals=_told_apart(findings.intervals, checks))


def _told_apart(intervals: pd.DataFrame, checks: list[Check]) -> pd.DataFrame:
    """The table of parameters without E, A and B where these runs do not tell them apart."""
    if NOT_TOLD_APART.isdisjoint(check.code for check in checks):
        return intervals
    intervals = intervals.copy()
    intervals.loc[["E", "A", "B"]] = np.nan
    return intervals


def _headline(runs: pd.DataFrame, options: Options) -> tuple[pd.DataFrame, Headline]:
    """The headline, and the runs without those whose data was repeated too often for it."""
    found = headline(runs, options)
    if found.data.repetition is not None or not (epochs(runs) > MOST_EPOCHS).any():
        return runs, found
    runs = exclude_repeated(runs)
    return runs, headline(runs, options)


def _with_envelope(findings: Findings, curves: pd.DataFrame | None, options: Options) -> Findings:
    """The envelope as one more witness; where it cannot be drawn, a check says why."""
    if curves is None:
        return findings
    findings = replace(findings, curves=curves)
    said = []
    if options.unfinished_curves:
        message = "training curves were used in mid-schedule, where losses are too high."
        said = [Check("unfinished-curves", "warn", message, "Trust the other approaches more.")]
    sizes = findings.runs[findings.runs["excluded"] == ""].set_index("trial_id")["num_params"]
    points = curves.assign(num_params=curves["trial_id"].map(sizes[~sizes.index.duplicated()]))
    try:
        if points["num_params"].isna().all():
            raise FitError("no trial_id of a training curve is that of a run")
        envelope, laws = fit_envelope(
            points, cost=findings.cost, unfinished=options.unfinished_curves
        )
    except FitError as error:
        message = f"no lower envelope of the training curves: {error}."
        said.append(Check("no-envelope", "warn", message, "Give each run its curve's trial_id."))
        return replace(findings, checks=[*findings.checks, *said])
    checks = [*findings.checks, *said]
    return replace(findings, envelope=envelope, envelope_laws=laws, checks=checks)


def _checks(findings: Findings, options: Options) -> list[Check]:
    checks = [*findings.checks, *check_runs(findings.runs, options.tolerance)]
    if "headline" in findings.fits:
        good = findings.runs[findings.runs["excluded"] == ""]
        checks += check_seed_noise(good, findings.fits["headline"].residual_std)
    return [*checks, *check_fits(findings)]


def _exclude(runs: pd.DataFrame, out: np.ndarray) -> pd.DataFrame:
    """Write the reason on the runs left out."""
    runs = runs.copy()
    standing = runs.index[runs["excluded"] == ""]
    runs.loc[standing[out], "excluded"] = "outlier: loss far above the law"
    return runs


def _witnesses(data: Data) -> dict[str, ParametricFit]:
    """The law by other objectives, on the runs that are left."""
    spaces: tuple[Space, ...] = ("linear", "log") if data.space == "log" else ("linear",)
    return {space: data.fit("five", None, space, FEW_STARTS) for space in spaces}


def parameter_table(
    fit: ParametricFit | None,
    spreads: tuple[Spread, ...],
    repetition: RepetitionLaw | None = None,
) -> pd.DataFrame:
    """Value, 95 % interval, standard error of E, A, B, alpha, beta, a, R_D* and R_N* if fitted."""
    names = ["E", "A", "B", "alpha", "beta", "a"]
    columns = ["value", "low", "high", "standard_error"]
    if fit is None or not spreads:
        return pd.DataFrame(np.nan, index=names, columns=columns)
    low, high = hull(spreads, log_parameters)
    law = fit.law
    value = np.array([law.E, law.A, law.B, law.alpha, law.beta, law.a])
    error = spreads[-1].standard_error(log_parameters)
    with np.errstate(over="ignore"):
        low[1:3], high[1:3], error[1:3] = (
            np.exp(low[1:3]),
            np.exp(high[1:3]),
            error[1:3] * value[1:3],
        )
    if fit.centre[3] == 0:
        low[0] = max(low[0], 0.0)
    low[3:], high[5] = np.maximum(low[3:], 0.0), min(high[5], 1.0)
    table = pd.DataFrame(np.stack([value, low, high, error], axis=1), names, columns)
    if repetition is not None and repetition.fading_error is not None:
        table.loc["R_D*"] = _constant(spreads, repetition.r_data, 5)
    if repetition is not None and repetition.params_error is not None:
        table.loc["R_N*"] = _constant(spreads, repetition.r_params, 6)
    return table


def _constant(
    spreads: tuple[Spread, ...], value: float, column: int
) -> tuple[float, float, float, float]:
    """The same of R_D* or R_N*; infinite above where the runs allow that nothing fades."""

    def rate(laws: Array) -> Array:
        return laws[:, column : column + 1]

    low, high = (float(end[0]) for end in hull(spreads, rate))
    error = float(spreads[-1].standard_error(rate)[0])
    return value, 1 / high, 1 / low if low > 0 else math.inf, error * value**2
