"""`Result`: the laws and predictions of a sweep, or of any table of runs."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from numpy.typing import ArrayLike

from flops_fit.forecasts.files import keep
from flops_fit.forecasts.making import make_forecast
from flops_fit.forecasts.record import Forecast
from flops_fit.laws.check import Checks
from flops_fit.laws.findings import Findings
from flops_fit.laws.fitting.parametric import ParametricFit
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.model.power_law import PowerLaws
from flops_fit.laws.model.recipe_law import RecipeLaw
from flops_fit.laws.pipeline import archive
from flops_fit.laws.predict import losses, tables
from flops_fit.laws.predict.paths import Terms
from flops_fit.laws.predict.prediction import Prediction
from flops_fit.laws.predict.size_lookup import size_to_build
from flops_fit.laws.spending.request import Budget
from flops_fit.laws.spending.time_optimal import predict_spending
from flops_fit.records import Size
from flops_fit.report import summary
from flops_fit.report.coefficients import Summary, summarise
from flops_fit.report.tables import WholeTable, as_cells_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Prediction", "Result"]


@dataclass(frozen=True, repr=False)
class Result:
    """The compute-optimal scaling laws of a sweep, or of any table of runs.

    Attributes:
        findings: The runs, fits, intervals and checks.
        log_text: Writes a text as an artifact of the parent run, under a name, and returns where;
            None for a table of runs, and for a result that was saved.
    """

    findings: Findings
    log_text: Callable[[str, str], str] | None = field(default=None, compare=False)

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
    def recipe_law(self) -> RecipeLaw | None:
        """The best learning rate and batch size for N and D; None where no pilot found one."""
        return self.findings.recipe_law

    @property
    def fits(self) -> dict[str, ParametricFit]:
        """All parametric fits by name; "headline" is the one of `law`."""
        return self.findings.fits

    @property
    def intervals(self) -> pd.DataFrame:
        """One row per parameter: value, low and high at 95 %, standard error."""
        return self.findings.intervals

    @property
    def checks(self) -> Checks:
        """Problems found in runs and fits: severity, message and advice."""
        return Checks(self.findings.checks)

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
    def forecasts(self) -> pd.DataFrame:
        """Forecasts made before this analysis of the sweep, and outcomes; see `flops_fit.score`."""
        return self.findings.forecasts

    @property
    def largest_budget(self) -> float:
        """The largest budget among the runs in the fits, FLOPs."""
        return self.findings.largest_budget

    def chinchilla_table(
        self, compute_budgets: ArrayLike | None = None, *, anyway: bool = False
    ) -> pd.DataFrame:
        """The compute-optimal model for each budget.

        Args:
            compute_budgets: Budgets in FLOPs, shape (k,). Default: those of the sweep, every power
                of ten up to a thousand times the largest, and a goal's target, where N is known.
            anyway: Show budgets however far beyond the runs.

        Returns:
            A row per budget: C in FLOPs, N, D, loss, metrics and a found recipe with 95 %
            intervals, D / N, the size, C over the largest budget. It is shown as text cells.

        Raises:
            ArgumentError: A budget is not a positive number.
            FitError: No law was fitted, or predictions so far beyond the runs are refused.
        """
        table = tables.chinchilla_table(self.findings, compute_budgets, anyway=anyway)
        return WholeTable.shown(table, as_cells_of(self.findings))

    def predict(
        self,
        compute_budget: float | None = None,
        *,
        hours: float | None = None,
        price: float | None = None,
        price_per_hour: float | None = None,
        devices: int = 1,
        tokens_per_param: float | None = None,
        inference_tokens: float | None = None,
        unique_tokens: float | None = None,
        metric: str | None = None,
        anyway: bool = False,
    ) -> Prediction:
        """The model to train for one budget, with 95 % intervals.

        Refused beyond a thousand times the largest budget; and beyond ten times, where the interval
        of N spans more than a factor of 100.

        Args:
            compute_budget: C in FLOPs; or else `hours` or `price`.
            hours: Time to train in. The model of least loss in this time, at the speed of the runs.
            price: Money to train for, in the currency of `price_per_hour`.
            price_per_hour: Price of one device.
            devices: Devices that share the hours, without loss; each as fast as what trained a run.
            tokens_per_param: Train at this ratio D / N instead of the optimal one.
            inference_tokens: Tokens to be served, for which C pays too: a third of training ones.
            unique_tokens: Tokens available. Training on more repeats data, worth less.
            metric: A metric of the runs, such as "accuracy", to forecast too.
            anyway: Predict however far beyond the runs.

        Raises:
            ArgumentError: An argument is invalid, or the constraint cannot be met; lists all.
            FitError: No law was fitted, a prediction so far beyond the runs is refused, or the runs
                do not determine the metric or the speed.

        References:
            Sardana & Frankle 2024, section 2 (serving); Muennighoff et al. 2023 (repeated data).
        """
        budget = Budget(compute_budget, hours, price, price_per_hour, devices)
        terms = Terms(tokens_per_param, inference_tokens, unique_tokens)
        return predict_spending(self.findings, budget, terms, metric=metric, anyway=anyway)

    def predict_loss(
        self,
        num_params: ArrayLike,
        num_tokens: ArrayLike,
        *,
        unique_tokens: ArrayLike | None = None,
        anyway: bool = False,
    ) -> pd.DataFrame:
        """The loss of models of N parameters trained on D tokens, with 95 % intervals.

        Args:
            num_params: N, one number or an array.
            num_tokens: D, one number or an array; the arguments broadcast.
            unique_tokens: Unique tokens among D, where data is repeated. Default: all of D.
            anyway: Predict also beyond a thousand times the FLOPs of the largest budget.

        Returns:
            One row per model: `num_params num_tokens loss`, `loss_low loss_high` (the law's loss)
            and `run_low run_high` (the loss of one new run). `attrs["checks"]` lists the doubts.

        Raises:
            ArgumentError: An argument is not positive, or the shapes do not broadcast.
            FitError: No law was fitted, or predictions so far beyond the runs are refused.
        """
        return losses.predict_losses(
            self.findings, num_params, num_tokens, unique_tokens, anyway=anyway
        )

    def forecast(
        self,
        compute_budget: float | None = None,
        *,
        num_params: float | None = None,
        num_tokens: float | None = None,
        note: str = "",
        path: str | PathLike[str] | None = None,
        anyway: bool = False,
    ) -> Forecast:
        """Write a prediction down with its date, to be compared with what will come.

        A sweep's is logged on its parent run too, and every later analysis of the sweep lists it,
        with its outcome. In a launch of several processes, call this on one of them.

        Args:
            compute_budget: C in FLOPs: forecasts the best model, and its loss.
            num_params: N of a given model, instead of a budget: forecasts its loss.
            num_tokens: D of it.
            note: Text to keep with it.
            path: The file to write, or a folder. Default: `forecasts/<name>-<id>.json`.
            anyway: Forecast however far beyond the runs.

        Raises:
            ArgumentError: An argument is invalid, or the file exists or cannot be written.
            FitError: No law was fitted, or predictions so far beyond the runs are refused.
        """
        made = make_forecast(
            self.findings, compute_budget, num_params, num_tokens, note, anyway=anyway
        )
        return keep(made, path, self.log_text)

    def band(self, compute_budgets: ArrayLike) -> pd.DataFrame:
        """The compute-optimal frontier with its 95 % intervals, for plotting.

        Args:
            compute_budgets: Budgets in FLOPs, shape (k,).

        Returns:
            One row per budget, however far; NaN where a check refuses to extrapolate.

        Raises:
            ArgumentError: A budget is not a positive number.
            FitError: No law was fitted.
        """
        return tables.frontier_to_draw(self.findings, compute_budgets)

    def size_for(self, num_params: float) -> Size | None:
        """The value of the size parameter that gives a model of about N parameters."""
        return size_to_build(self.findings, num_params)

    def summary(self) -> Summary:
        """How the law was fitted, its coefficients with errors and 95 % intervals, and the checks.

        It prints as statsmodels prints a summary, and is tables in a notebook.
        """
        return summarise(self.findings)

    def plot(self, kind: str | None = None) -> Figure:
        """Plot the result as a Matplotlib figure, which a notebook shows.

        Args:
            kind: "isoflops", "scaling", "contours", "residuals", "curves", "backtest", "recipe" or
                "metrics"; None for IsoFLOP curves and scaling laws together.

        Raises:
            ArgumentError: The kind is unknown.
        """
        from flops_fit.report.plots import figure, panels

        return figure.for_the_reader(panels.plot_findings(self.findings, kind))

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


def __getattr__(name: str) -> Any:
    if name != "fit":  # its former place; it is above this module in the layers
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module("flops_fit.fit_table").fit
