"""`Result`: the laws and predictions of a sweep. `fit`: the same from any table of runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack, overload

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from flops_fit.laws.check import Check
from flops_fit.laws.findings import Findings
from flops_fit.laws.fitting.parametric import ParametricFit
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.model.power_law import PowerLaws
from flops_fit.laws.options import (
    Curve,
    FitArguments,
    FormOption,
    Method,
    Options,
    Outliers,
    SharedErrors,
)
from flops_fit.laws.pipeline import archive
from flops_fit.laws.pipeline.analyse import analyse
from flops_fit.laws.predict import tables
from flops_fit.laws.predict.intervals import Terms
from flops_fit.laws.predict.prediction import Prediction, predict_budget
from flops_fit.laws.predict.size_lookup import size_to_build
from flops_fit.laws.runs.formats import Runs
from flops_fit.laws.runs.table import find_columns, read_curves, read_runs
from flops_fit.records import Size
from flops_fit.report import summary
from flops_fit.results_by import Results, fit_each

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Prediction", "Result", "Results", "fit"]


@dataclass(frozen=True, repr=False)
class Result:
    """The compute-optimal scaling laws of a sweep, or of any table of runs.

    Attributes:
        findings: The runs, fits, intervals and checks.
    """

    findings: Findings

    @property
    def meta(self) -> Mapping[str, str]:
        """Metadata as text: name, data unit, FLOPs convention and others."""
        return self.findings.meta

    @property
    def build_size(self) -> Callable[[float], Size | None] | None:
        """A function from N to the size value, found by building models; not saved."""
        return self.findings.build_size

    @property
    def runs(self) -> pd.DataFrame:
        """One row per run; `excluded` is the reason why a run takes no part in the fits, or ""."""
        return self.findings.runs

    @property
    def optima(self) -> pd.DataFrame:
        """One row per budget: the minimum of its IsoFLOP curve, and the curve."""
        return self.findings.optima

    @property
    def law(self) -> ParametricLaw | None:
        """The headline law; None if no parametric fit succeeded (`checks` has the reason)."""
        return self.findings.law

    @property
    def power_laws(self) -> PowerLaws:
        """Power laws N_opt(C), D_opt(C) and L_opt(C), fitted to the optima."""
        return self.findings.power_laws

    @property
    def fits(self) -> dict[str, ParametricFit]:
        """All parametric fits by name; "headline" is the one of `law`."""
        return self.findings.fits

    @property
    def intervals(self) -> pd.DataFrame:
        """One row per parameter: value, low and high at 95 %, standard error."""
        return self.findings.intervals

    @property
    def checks(self) -> list[Check]:
        """Problems found in runs and fits: severity, message and advice."""
        return self.findings.checks

    @property
    def backtest(self) -> pd.DataFrame:
        """Errors on the held-out largest budgets, by form of the law."""
        return self.findings.backtest

    @property
    def envelope(self) -> pd.DataFrame:
        """The lower envelope of the training curves; empty if none were given."""
        return self.findings.envelope

    @property
    def envelope_laws(self) -> PowerLaws | None:
        """Power laws N_opt(C), D_opt(C) and L_opt(C), fitted to the envelope."""
        return self.findings.envelope_laws

    @property
    def curves(self) -> pd.DataFrame:
        """Points of training curves (`trial_id num_tokens loss`); empty if there are none."""
        return self.findings.curves

    @property
    def largest_budget(self) -> float:
        """The largest budget among the runs in the fits, FLOPs."""
        return self.findings.largest_budget

    def chinchilla_table(self, compute_budgets: ArrayLike | None = None) -> pd.DataFrame:
        """The compute-optimal model for each budget.

        Args:
            compute_budgets: Budgets in FLOPs, shape (k,). Default: those of the sweep, then every
                power of ten up to a thousand times the largest, unless a check refuses to
                extrapolate.

        Returns:
            One row per budget: C in FLOPs, N, D and loss with 95 % intervals, D / N, the size
            value to build, and C over the largest budget.

        Raises:
            ArgumentError: A budget is not a positive number.
            FitError: No law was fitted, or predictions so far beyond the runs are refused.
        """
        return tables.chinchilla_table(self.findings, compute_budgets)

    def predict(
        self,
        compute_budget: float,
        *,
        tokens_per_param: float | None = None,
        inference_tokens: float | None = None,
        unique_tokens: float | None = None,
    ) -> Prediction:
        """The model to train for one budget, with 95 % intervals.

        Args:
            compute_budget: C in FLOPs.
            tokens_per_param: Train at this ratio D / N instead of the optimal one.
            inference_tokens: Tokens that the model will serve. C then pays for training and
                serving: a served token costs a third of a training token.
            unique_tokens: Tokens available. Training on more repeats data, which are then worth
                less.

        Raises:
            ArgumentError: An argument is not a positive number, or the constraint cannot be met.
            FitError: No law was fitted, or a prediction so far beyond the runs is refused.

        References:
            Sardana & Frankle 2024, section 2 (inference); Muennighoff et al. 2023, section 3
            (repeated data).
        """
        terms = Terms(tokens_per_param, inference_tokens, unique_tokens)
        return predict_budget(self.findings, compute_budget, terms)

    def band(self, compute_budgets: ArrayLike) -> pd.DataFrame:
        """The compute-optimal frontier with its 95 % intervals, for plotting.

        Args:
            compute_budgets: Budgets in FLOPs, shape (k,).

        Returns:
            One row per budget; NaN beyond the largest budget if a check refuses to extrapolate.

        Raises:
            ArgumentError: A budget is not a positive number.
            FitError: No law was fitted.
        """
        return tables.frontier_to_draw(self.findings, compute_budgets)

    def size_for(self, num_params: float) -> Size | None:
        """The value of the size parameter that gives a model of about N parameters."""
        return size_to_build(self.findings, num_params)

    def plot(self, kind: str | None = None) -> Figure:
        """Plot the result as a Matplotlib figure.

        Args:
            kind: "isoflops", "scaling", "contours", "residuals", "curves" or "backtest"; None for
                IsoFLOP curves and scaling laws together.

        Raises:
            ArgumentError: The kind is unknown.
        """
        from flops_fit.report.plots import panels

        return panels.plot_findings(self.findings, kind)

    def report(self, path: str | PathLike[str] = "report.html") -> Path:
        """Write one self-contained HTML page: verdict, slider, table, plots, checks, methods.

        Args:
            path: The file to write; its folder must exist.

        Returns:
            The path.
        """
        from flops_fit.report import html_page

        return html_page.write_report(self.findings, path)

    def to_latex(self, compute_budgets: ArrayLike | None = None) -> str:
        """The table of `chinchilla_table` as LaTeX; the document needs the package `booktabs`.

        Args:
            compute_budgets: As for `chinchilla_table`.

        Raises:
            ArgumentError: A budget is not a positive number.
            FitError: No law was fitted, or predictions so far beyond the runs are refused.
        """
        from flops_fit.report.tables import to_latex

        return to_latex(self.findings, compute_budgets)

    def save(self, directory: str | PathLike[str]) -> None:
        """Write the result as JSON and CSV files into a directory, which is created if needed."""
        archive.save(directory, self.findings, self.meta)

    @classmethod
    def load(cls, directory: str | PathLike[str]) -> Result:
        """Read what `save` wrote; predictions are the same to the last bit.

        Raises:
            TableError: A file is missing or unreadable, or has an unknown schema version.
        """
        findings, meta = archive.load(directory)
        return cls(replace(findings, meta=meta))

    def __repr__(self) -> str:
        return "\n".join(summary.summary(self.findings))

    def _repr_html_(self) -> str:
        return summary.summary_html(self.findings)


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
    table, found = read_runs(runs, columns)
    points = None if curves is None else read_curves(curves)

    def fit_one(part: pd.DataFrame) -> Result:
        findings = _analysed(part, found, options, points)
        return Result(replace(findings, meta=metadata, build_size=build_size))

    return fit_each(table, find_columns(table, columns), fit_one) if columns else fit_one(table)


def _analysed(
    table: pd.DataFrame, found: list[Check], options: Options, curves: pd.DataFrame | None
) -> Findings:
    # Poor tables overflow or divide by zero in trial fits; the checks report what matters.
    with np.errstate(all="ignore"):
        findings = analyse(table, options, curves=curves)
    doubts = [check for check in found if check.severity != "note"]
    notes = [check for check in found if check.severity == "note"]
    return replace(findings, checks=[*doubts, *findings.checks, *notes])
