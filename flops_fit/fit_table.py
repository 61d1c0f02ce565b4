"""`fit`: scaling laws from any table of runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack, overload

import numpy as np
import pandas as pd

from flops_fit.laws.check import Check
from flops_fit.laws.checks.of_conditions import as_levels
from flops_fit.laws.findings import FITTED_BY, Findings
from flops_fit.laws.metrics.columns import Bounds, MetricColumn, read_metrics
from flops_fit.laws.options import (
    Curve,
    FitArguments,
    FormOption,
    Method,
    Options,
    Outliers,
    SharedErrors,
)
from flops_fit.laws.pipeline.analyse import analyse
from flops_fit.laws.pipeline.found_recipe import tokens_per_example
from flops_fit.laws.predict.tables import TABLE_COLUMNS
from flops_fit.laws.runs.formats import Runs
from flops_fit.laws.runs.table import find_columns, find_metrics, read_curves, read_runs
from flops_fit.records import RUN_COLUMNS, Size
from flops_fit.result import Result
from flops_fit.results_by import Results, fit_each


@overload
def fit(runs: Runs, *, by: None = None, **options: Unpack[FitArguments]) -> Result: ...
@overload
def fit(
    runs: Runs, *, by: str | Sequence[str], **options: Unpack[FitArguments]
) -> Results[Result]: ...
def fit(
    runs: Runs,
    *,
    by: str | Sequence[str] | None = None,
    delta: float | None = None,
    method: Method | None = None,
    form: FormOption = "auto",
    curve: Curve = "parabola",
    outliers: Outliers = "residuals",
    shared_errors: SharedErrors = "auto",
    tolerance: float = 0.1,
    num_draws: int = 600,
    seed: int = 0,
    curves: pd.DataFrame | Iterable[Mapping[str, Any]] | None = None,
    metrics: Sequence[str] | Mapping[str, Bounds | None] | None = None,
    unfinished_curves: bool = False,
    name: str = "",
    meta: Mapping[str, str] | None = None,
    build_size: Callable[[float], Size | None] | None = None,
) -> Result | Results[Result]:
    """Fit scaling laws to any table of runs.

    Args:
        runs: A DataFrame, the path of a file (CSV, TSV, JSON, JSONL, Parquet, Excel), columns or a
            list of dicts, one row per run, with loss, N, and D in tokens or C in FLOPs, or both
            (C = 6 N D gives the one that is missing). Common column names are recognised; the guide
            lists them.
        by: Fit the runs of each value of this column, or of these, apart. Returns `Results`, a
            mapping from the values to a `Result` each, with a `table` of them.
        delta: Fit with the Huber loss of ln L and this threshold, without screening outliers, as
            published fits do with 1e-3. Default: screen outliers, then refit.
        method: "screened" (the default), "huber", "log" or "linear": see `Options`.
        form: "five" parameters, "tied" with alpha = beta, "bent" with the exponent gamma of their
            sum, or "auto" to choose by tests and back-test.
        curve: The IsoFLOP curve: "parabola", or "cubic" for budgets with seven runs or more.
        outliers: "residuals", "iqr" (Tukey's fences), or "keep".
        shared_errors: Whether runs of one size share an error: "size", "none", or "auto" to test.
        tolerance: Budgets whose relative difference is smaller are treated as one.
        num_draws: Number of bootstrap refits for the intervals.
        seed: Random seed of the bootstrap.
        curves: Points of training curves (a DataFrame or dicts), for the envelope and to find runs
            that diverged: `trial_id` as in `runs`, `num_tokens` so far, `loss`, and optionally
            `ended` (whether the schedule ended there).
        metrics: Columns of other measures on held-out data, such as "accuracy", that the result is
            to forecast beside the loss; or a mapping from them to their bounds, as
            `{"accuracy": (0.25, 1)}` with None for none. By default a metric whose values all lie
            between 0 and 1 has these as bounds, and any other none.
        unfinished_curves: Use points in the middle of a schedule for the envelope too; a check then
            reports it.
        name: Name of the result.
        meta: Further metadata as text (data unit, FLOPs convention, ...).
        build_size: Gives the size value for N parameters. Default: interpolate recorded sizes.

    Raises:
        ArgumentError: An option is invalid.
        TableError: The table cannot be read; every problem is listed.
        FitError: No run has finished.
    """
    options = Options(
        # A threshold alone asks for the plain Huber fit of the papers.
        method=method or ("screened" if delta is None else "huber"),
        delta=1e-3 if delta is None else delta,
        form=form,
        curve=curve,
        outliers=outliers,
        shared_errors=shared_errors,
        tolerance=tolerance,
        num_draws=num_draws,
        seed=seed,
        unfinished_curves=unfinished_curves,
    )
    options.require_sound()
    metadata = {"name": name, **{key: str(value) for key, value in (meta or {}).items()}}
    columns = [] if by is None else list(by) if isinstance(by, list | tuple) else [str(by)]
    asked = read_metrics(metrics, (*RUN_COLUMNS, *TABLE_COLUMNS))
    table, found = read_runs(runs, columns, asked)
    measures = [
        MetricColumn(metric, column, bounds)
        for (metric, bounds), column in zip(asked.items(), find_metrics(table, asked), strict=True)
    ]
    points = None if curves is None else read_curves(curves)

    apart = find_columns(table, columns)

    per_example = tokens_per_example(metadata)

    def fit_one(part: pd.DataFrame) -> Result:
        findings = _analysed(part, found, options, points, per_example, measures)
        group = {name: as_levels(part[name]).iloc[0] for name in apart}
        own = {**metadata, FITTED_BY: json.dumps(group)} if group else metadata
        return Result(replace(findings, meta=own, build_size=build_size))

    return fit_each(table, apart, fit_one) if apart else fit_one(table)


def _analysed(
    table: pd.DataFrame,
    found: list[Check],
    options: Options,
    curves: pd.DataFrame | None,
    per_example: float,
    metrics: Sequence[MetricColumn],
) -> Findings:
    # Poor tables overflow or divide by zero in trial fits; the checks report what matters.
    with np.errstate(all="ignore"):
        findings = analyse(
            table, options, curves=curves, tokens_per_example=per_example, metrics=metrics
        )
    doubts = [check for check in found if check.severity != "note"]
    notes = [check for check in found if check.severity == "note"]
    return replace(findings, checks=[*doubts, *findings.checks, *notes])
