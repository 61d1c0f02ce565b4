"""From a clean table of runs to everything that is known from it.

The parametric fit is the headline; the other objectives, the IsoFLOP curves and the envelope are
its witnesses; the checks say where they disagree, and what else is doubtful.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd

from flops_fit.errors import FitError
from flops_fit.laws.check import NOT_TOLD_APART, Check
from flops_fit.laws.checks.of_fits import check_fits
from flops_fit.laws.checks.of_runs import check_runs, check_seed_noise
from flops_fit.laws.findings import Findings
from flops_fit.laws.fitting.envelope import fit_envelope
from flops_fit.laws.fitting.isoflop import fit_isoflop, fit_power_laws
from flops_fit.laws.fitting.parametric import FEW_STARTS, ParametricFit
from flops_fit.laws.model.arrays import Space
from flops_fit.laws.options import Options
from flops_fit.laws.pipeline.fit_data import Data
from flops_fit.laws.pipeline.headline import Headline, headline
from flops_fit.laws.pipeline.parameter_table import parameter_table
from flops_fit.laws.runs.exclusions import MOST_EPOCHS, epochs, exclude_bad, exclude_repeated


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
