"""`analyse`: from a clean table of runs to `Findings`.

The headline is the parametric fit. The fits with other objectives, the IsoFLOP curves and the
envelope of the training curves serve as cross-checks. The checks report where they disagree, and
what else is doubtful.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from flops_fit.errors import FitError
from flops_fit.laws.check import NOT_SEPARABLE, Check
from flops_fit.laws.checks.of_conditions import check_conditions
from flops_fit.laws.checks.of_fits import check_fits
from flops_fit.laws.checks.of_metrics import check_metrics
from flops_fit.laws.checks.of_runs import check_cost, check_runs, check_seed_noise
from flops_fit.laws.findings import TUNED_FIT, Findings
from flops_fit.laws.fitting.envelope import fit_envelope
from flops_fit.laws.fitting.isoflop import fit_isoflop, fit_power_laws
from flops_fit.laws.fitting.parametric import FEW_STARTS, ParametricFit
from flops_fit.laws.inference.lack_of_fit import lack_of_fit
from flops_fit.laws.metrics.columns import MetricColumn
from flops_fit.laws.model.arrays import Space
from flops_fit.laws.options import Options
from flops_fit.laws.pipeline.answer_checks import answer_checks
from flops_fit.laws.pipeline.counted_runs import exclude_outliers, sees_data_too_often
from flops_fit.laws.pipeline.fit_data import FitData
from flops_fit.laws.pipeline.found_recipe import find_recipe, fit_without_excess
from flops_fit.laws.pipeline.headline import Headline, headline
from flops_fit.laws.pipeline.metric_laws import fit_metrics
from flops_fit.laws.pipeline.parameter_table import parameter_table
from flops_fit.laws.runs.exclusions import exclude_bad, exclude_repeated


def analyse(
    runs: pd.DataFrame,
    options: Options | None = None,
    *,
    curves: pd.DataFrame | None = None,
    tokens_per_example: float = 1.0,
    metrics: Sequence[MetricColumn] = (),
) -> Findings:
    """Fit all laws and run all checks.

    Args:
        runs: A clean table, as `table.read_runs` returns.
        options: How to fit.
        curves: Points of training curves: `trial_id num_tokens loss`, and `ended` where known.
        tokens_per_example: Units of D in an example, by which batches are counted.
        metrics: Metrics to forecast.

    Raises:
        FitError: No run has finished.
    """
    options = options or Options()
    runs, found = _headline(exclude_bad(runs, curves), options)
    data, fits = found.data, dict(found.fits)
    if found.form:
        chosen = fits[found.form]
        fits |= {**_other_objectives(data, chosen), "headline": chosen}
    optima = fit_isoflop(
        data.C,
        data.counted.N,
        data.counted.loss,
        curve=options.curve,
        cost=data.cost,
        tolerance=options.tolerance,
    )
    findings = Findings(
        runs=exclude_outliers(runs, found.screened.side),
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
        misfit=found.misfit,
    )
    findings = _with_envelope(findings, curves, options)
    findings = _with_recipe(findings, data, tokens_per_example)
    findings = replace(findings, metrics=fit_metrics(findings, data, metrics, options.tolerance))
    lack = None
    if found.form:
        lack = lack_of_fit(fits["headline"], data.points, data.C, options.tolerance)
    checks = answer_checks(findings, _checks(findings, options), lack)
    intervals = _withhold_inseparable(findings.intervals, checks)
    return replace(findings, checks=checks, intervals=intervals)


def _headline(runs: pd.DataFrame, options: Options) -> tuple[pd.DataFrame, Headline]:
    """The runs and their headline.

    Runs with very many passes over their data are excluded if it has no law of repeated data.
    """
    found = headline(runs, options)
    if not sees_data_too_often(runs, found.data):
        return runs, found
    runs = exclude_repeated(runs)
    return runs, headline(runs, options)


def _other_objectives(data: FitData, chosen: ParametricFit) -> dict[str, ParametricFit]:
    """Least-squares fits of L, and of ln L if the losses allow it, by their space.

    They bend if the headline does, and then start where it ended.
    """
    spaces: tuple[Space, ...] = ("linear", "log") if data.space == "log" else ("linear",)
    if chosen.form == "bent":
        starts = np.array([chosen.theta])
        return {space: data.fit("bent", None, space, starts=starts) for space in spaces}
    return {space: data.fit("five", None, space, FEW_STARTS) for space in spaces}


def _with_envelope(findings: Findings, curves: pd.DataFrame | None, options: Options) -> Findings:
    """The findings with the envelope, or a check that states why there is none."""
    if curves is None:
        return findings
    checks = list(findings.checks)
    if options.unfinished_curves:
        message = "training curves were used in mid-schedule, where losses are too high."
        advice = "Trust the other approaches more."
        checks.append(Check("unfinished-curves", "warn", message, advice))
    findings = replace(findings, curves=curves, checks=checks)
    sizes = findings.fitted_runs.set_index("trial_id")["num_params"]
    points = curves.assign(num_params=curves["trial_id"].map(sizes[~sizes.index.duplicated()]))
    try:
        if points["num_params"].isna().all():
            raise FitError("no trial_id of a training curve is that of a run")
        envelope, laws = fit_envelope(
            points, cost=findings.cost, unfinished=options.unfinished_curves
        )
    except FitError as error:
        message = f"no lower envelope of the training curves: {error}."
        advice = "Give each run its curve's trial_id."
        return replace(findings, checks=[*checks, Check("no-envelope", "warn", message, advice)])
    return replace(findings, envelope=envelope, envelope_laws=laws)


def _with_recipe(findings: Findings, data: FitData, tokens_per_example: float) -> Findings:
    """The findings with the recipe law, if runs were trained to find one."""
    recipe = find_recipe(findings.runs, tokens_per_example)
    fits = dict(findings.fits)
    if recipe is not None and "headline" in fits:
        tuned = fit_without_excess(recipe, fits["headline"], data.points, findings.fitted_runs)
        fits |= {} if tuned is None else {TUNED_FIT: tuned}
    return replace(findings, recipe_law=recipe, fits=fits)


def _checks(findings: Findings, options: Options) -> list[Check]:
    """The checks so far, then those of the runs and of the fits."""
    checks = [*check_conditions(findings), *findings.checks]
    checks += check_metrics(findings.metrics.values())
    checks += check_runs(findings.runs, options.tolerance)
    checks += check_cost(findings.cost, findings.fitted_runs)
    if "headline" in findings.fits:
        checks += check_seed_noise(findings.fitted_runs, findings.fits["headline"].residual_std)
    return [*checks, *check_fits(findings)]


def _withhold_inseparable(intervals: pd.DataFrame, checks: list[Check]) -> pd.DataFrame:
    """The table of parameters, with NaN for E, A and B if the runs do not separate them."""
    if NOT_SEPARABLE.isdisjoint(check.code for check in checks):
        return intervals
    intervals = intervals.copy()
    intervals.loc[["E", "A", "B"]] = np.nan
    return intervals
