"""`Result`: what a sweep says. `fit`: the same from any table of runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from flops_fit.laws.check import Check
from flops_fit.laws.findings import Findings
from flops_fit.laws.fitting.parametric import ParametricFit
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.model.power_law import PowerLaws
from flops_fit.laws.options import Curve, Method, Options
from flops_fit.laws.pipeline import archive
from flops_fit.laws.pipeline.analyse import analyse
from flops_fit.laws.predict import size_lookup, tables
from flops_fit.laws.predict.intervals import Terms
from flops_fit.laws.predict.prediction import Prediction, predict_budget
from flops_fit.laws.runs.table import Runs, read_curves, read_runs
from flops_fit.records import Size
from flops_fit.report import summary

__all__ = ["Prediction", "Result", "fit"]


@dataclass(frozen=True, repr=False)
class Result:
    """What a sweep, or any table of runs, says about compute-optimal training.

    Attributes:
        findings: All that was fitted.
        meta: Name, data unit, FLOPs convention and the like: plain strings.
        build_size: Gives the size value for N by building models; not saved.
    """

    findings: Findings
    meta: Mapping[str, str] = field(default_factory=dict)
    build_size: Callable[[float], Size | None] | None = None

    @property
    def runs(self) -> pd.DataFrame:
        """A row a run; `excluded` says why a run took no part in the fits."""
        return self.findings.runs

    @property
    def optima(self) -> pd.DataFrame:
        """A row a budget: the minimum of its IsoFLOP curve, and the curve."""
        return self.findings.optima

    @property
    def law(self) -> ParametricLaw | None:
        """The headline law; None where no parametric fit stands (`checks` says why)."""
        return self.findings.law

    @property
    def power_laws(self) -> PowerLaws:
        """N_opt, D_opt and L_opt against C, through the optima."""
        return self.findings.power_laws

    @property
    def fits(self) -> dict[str, ParametricFit]:
        """Every parametric fit made, by name."""
        return self.findings.fits

    @property
    def intervals(self) -> pd.DataFrame:
        """A row a parameter: value, low and high at 95 %, standard error."""
        return self.findings.intervals

    @property
    def checks(self) -> list[Check]:
        """What is doubtful, how badly, and what to do."""
        return self.findings.checks

    @property
    def backtest(self) -> pd.DataFrame:
        """Errors on held-out largest budgets, five parameters and tied."""
        return self.findings.backtest

    @property
    def envelope(self) -> pd.DataFrame:
        """The lower envelope of the training curves; empty where none were given."""
        return self.findings.envelope

    @property
    def envelope_laws(self) -> PowerLaws | None:
        """N_opt, D_opt and L_opt against C, through the envelope."""
        return self.findings.envelope_laws

    @property
    def curves(self) -> pd.DataFrame:
        """Points of training curves (`trial_id num_tokens loss`); empty where there are none."""
        return self.findings.curves

    @property
    def largest_budget(self) -> float:
        """The largest budget that took part, FLOPs."""
        return self.findings.largest_budget

    def chinchilla_table(self, compute_budgets: ArrayLike | None = None) -> pd.DataFrame:
        """What to train for each budget.

        Args:
            compute_budgets: Budgets in FLOPs, shape (k,). Default: those of the sweep, and on in
                decades to a thousand times the largest, unless a check refuses to go beyond.

        Returns:
            A row a budget; intervals at 95 %.

        Raises:
            ArgumentError: A budget is not a positive number.
            FitError: No law stands on these runs, or none that reaches so far.
        """
        return tables.chinchilla_table(self._findings, compute_budgets)

    def predict(
        self,
        compute_budget: float,
        *,
        tokens_per_param: float | None = None,
        inference_tokens: float | None = None,
        unique_tokens: float | None = None,
    ) -> Prediction:
        """The model to train for one budget.

        Args:
            compute_budget: C in FLOPs.
            tokens_per_param: Train at this ratio instead of the best one.
            inference_tokens: Tokens the model will serve; C then pays for both (2 N a token served
                where training costs 6 N).
            unique_tokens: Tokens there are; beyond, data is repeated and worth less.

        Raises:
            ArgumentError: The budget or an option is not a positive number, or cannot be met.
            FitError: No law stands on these runs, or none that reaches so far.

        References:
            Sardana & Frankle 2024, section 2 (inference); Muennighoff et al. 2023, section 3
            (repeated data).
        """
        terms = Terms(tokens_per_param, inference_tokens, unique_tokens)
        return predict_budget(self._findings, compute_budget, terms)

    def band(self, compute_budgets: ArrayLike) -> pd.DataFrame:
        """The frontier with its 95 % intervals, for drawing: a row a budget.

        Args:
            compute_budgets: Budgets in FLOPs, shape (k,).

        Returns:
            A row a budget; NaN beyond the largest where a check refuses to go there.

        Raises:
            FitError: No law stands on these runs.
        """
        return tables.frontier_to_draw(self.findings, compute_budgets)

    def size_for(self, num_params: float) -> Size | None:
        """The value of the size parameter that gives a model of N parameters."""
        return size_lookup.size_to_build(self._findings, num_params)

    def plot(self, kind: str | None = None) -> Any:
        """A Matplotlib figure.

        Args:
            kind: "isoflops" and "scaling" (None for both), "contours", "residuals", "curves" or
                "backtest".

        Raises:
            ArgumentError: The kind is none of these.
        """
        from flops_fit.report.plots import panels

        return panels.plot_result(self, kind)

    def report(self, path: str | PathLike[str] = "report.html") -> Path:
        """Write one self-contained HTML page: verdict, slider, table, plots, checks, methods.

        Args:
            path: Where to; its folder must exist.

        Returns:
            The path.
        """
        from flops_fit.report import html_page

        return html_page.write_report(self, path)

    def to_latex(self, compute_budgets: ArrayLike | None = None) -> str:
        """The table of `chinchilla_table` as LaTeX, which needs the package `booktabs`.

        Args:
            compute_budgets: As for `chinchilla_table`.

        Raises:
            ArgumentError: A budget is not a positive number.
            FitError: No law stands on these runs, or none that reaches so far.
        """
        from flops_fit.report import tables

        return tables.to_latex(self, compute_budgets)

    def save(self, directory: str | PathLike[str]) -> None:
        """Write JSON and CSV files into a directory, made if need be."""
        archive.save(directory, self.findings, self.meta)

    @classmethod
    def load(cls, directory: str | PathLike[str]) -> Result:
        """Read what `save` wrote; predictions are the same to the bit."""
        findings, meta = archive.load(directory)
        return cls(findings, meta)

    @property
    def _findings(self) -> Findings:
        return replace(self.findings, meta=self.meta, build_size=self.build_size)

    def __repr__(self) -> str:
        return "\n".join(summary.summary(self))

    def _repr_html_(self) -> str:
        return summary.summary_html(self)


def fit(
    runs: Runs,
    *,
    delta: float | None = None,
    method: Method | None = None,
    form: Literal["auto", "five", "tied"] = "auto",
    curve: Curve = "parabola",
    outliers: Literal["residuals", "iqr", "keep"] = "residuals",
    shared_errors: Literal["auto", "size", "none"] = "auto",
    tolerance: float = 0.1,
    num_draws: int = 600,
    seed: int = 0,
    curves: pd.DataFrame | Iterable[Mapping[str, Any]] | None = None,
    unfinished_curves: bool = False,
    name: str = "",
    meta: Mapping[str, str] | None = None,
    build_size: Callable[[float], Size | None] | None = None,
) -> Result:
    """Scaling laws from any table of runs.

    Args:
        runs: A DataFrame, the path of a CSV file or a list of dicts, a row a run, with N, D and
            loss and, if measured, C in FLOPs (else 6 N D). Usual names are recognised (`params`,
            `tokens`, `flops`, ...).
        delta: Fit by plain Huber with this threshold on ln L, as the papers do (1e-3), without
            screen and refit.
        method: "screened" (the default), "huber", "log" or "linear": see `Options`.
        form: "five" parameters, "tied" with alpha = beta, or "auto": by back-test.
        curve: IsoFLOP curve: "parabola", or "cubic" for budgets of seven runs or more.
        outliers: "residuals", "iqr" (Tukey's fence), or "keep".
        shared_errors: Whether runs of one size share an error: "size", "none", or "auto", by test.
        tolerance: Budgets this close (relative) are one.
        num_draws: Bootstrap refits behind the intervals.
        seed: Seed of the bootstrap.
        curves: Points of training curves (a DataFrame or dicts), for the envelope and for runs that
            diverged: `trial_id` as in `runs`, `num_tokens` by then, `loss`, and `ended` where known
            (the schedule had ended there).
        unfinished_curves: Use curves in mid-schedule too; a check then says so.
        name: What to call the result.
        meta: More plain strings to keep with it (data unit, FLOPs convention, ...).
        build_size: Gives the size value for N parameters; default: interpolation.

    Raises:
        ArgumentError: An option cannot work.
        TableError: The table cannot be read; every fault is listed.
        FitError: No run has finished.
    """
    options = Options(
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
    kept = {"name": name, **{key: str(value) for key, value in (meta or {}).items()}}
    return Result(_find(runs, options, curves), kept, build_size)


def _find(
    runs: Runs, options: Options, curves: pd.DataFrame | Iterable[Mapping[str, Any]] | None
) -> Findings:
    options.require_sound()
    table, notes = read_runs(runs)
    points = None if curves is None else read_curves(curves)
    with np.errstate(all="ignore"):
        findings = analyse(table, options, curves=points)
    said = [Check("assumed", "note", note) for note in notes]
    return replace(findings, checks=[*findings.checks, *said])
