"""`Result`: what a sweep says. `Prediction`: what it says of one budget. `fit`: from any table."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from html import escape
from os import PathLike
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from flops_fit.errors import ArgumentError, FitError
from flops_fit.laws import archive, predict, sizes
from flops_fit.laws.check_fits import check_prediction
from flops_fit.laws.checks import Check
from flops_fit.laws.isoflop import Curve
from flops_fit.laws.options import Method, Options
from flops_fit.laws.parametric import ParametricFit, ParametricLaw
from flops_fit.laws.pipeline import Findings, analyse
from flops_fit.laws.power import PowerLaws
from flops_fit.laws.repetition import RepetitionLaw
from flops_fit.laws.solver import Array
from flops_fit.laws.table import Runs, read_runs
from flops_fit.records import Size

TABLE_COLUMNS = (
    "compute_budget",
    "num_params",
    "num_params_low",
    "num_params_high",
    "num_tokens",
    "num_tokens_low",
    "num_tokens_high",
    "tokens_per_param",
    "loss",
    "loss_low",
    "loss_high",
    "size",
    "extrapolation",
)
DECADES_BEYOND = 3


@dataclass(frozen=True)
class Prediction:
    """The model to train for one budget. Intervals are (low, high) at 95 %.

    Attributes:
        compute_budget: C, FLOPs.
        num_params: N.
        num_tokens: D, tokens or examples.
        tokens_per_param: D / N.
        loss: Loss it should reach.
        size: Value of the size parameter to build; None where none is recorded.
        extrapolation: C over the largest budget of the sweep.
        num_params_interval: Of N.
        num_tokens_interval: Of D.
        loss_interval: Of the law's loss there.
        new_run_interval: Of the loss that one more run there would show.
        checks: Doubts about this prediction.
    """

    compute_budget: float
    num_params: float
    num_tokens: float
    tokens_per_param: float
    loss: float
    size: Size | None
    extrapolation: float
    num_params_interval: tuple[float, float]
    num_tokens_interval: tuple[float, float]
    loss_interval: tuple[float, float]
    new_run_interval: tuple[float, float]
    checks: tuple[Check, ...] = ()


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

    @cached_property
    def largest_budget(self) -> float:
        """The largest budget that took part, FLOPs."""
        standing = self.runs[self.runs["excluded"] == ""]
        return float(standing["compute_budget"].max())

    def chinchilla_table(self, compute_budgets: ArrayLike | None = None) -> pd.DataFrame:
        """What to train for each budget.

        Args:
            compute_budgets: Budgets in FLOPs, shape (k,). Default: those of the sweep, and on in
                decades to a thousand times the largest.

        Returns:
            A row a budget; intervals at 95 %.
        """
        C = self._budgets(compute_budgets)
        band = self.band(C)
        band["size"] = pd.Series([self.size_for(N) for N in band["num_params"]], dtype=object)
        band["extrapolation"] = C / self.largest_budget
        return band[list(TABLE_COLUMNS)]

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
        options = {
            "tokens_per_param": tokens_per_param,
            "inference_tokens": inference_tokens,
            "unique_tokens": unique_tokens,
        }
        _require_positive({"compute_budget": compute_budget, **options})
        C = np.array([float(compute_budget)])
        row = self._band(C, **options).iloc[0]
        N, factor = float(row["num_params"]), float(C[0] / self.largest_budget)
        _require_affordable(row, options)
        return Prediction(
            compute_budget=float(C[0]),
            num_params=N,
            num_tokens=float(row["num_tokens"]),
            tokens_per_param=float(row["tokens_per_param"]),
            loss=float(row["loss"]),
            size=self.size_for(N),
            extrapolation=factor,
            num_params_interval=(float(row["num_params_low"]), float(row["num_params_high"])),
            num_tokens_interval=(float(row["num_tokens_low"]), float(row["num_tokens_high"])),
            loss_interval=(float(row["loss_low"]), float(row["loss_high"])),
            new_run_interval=(float(row["new_run_low"]), float(row["new_run_high"])),
            checks=tuple(self._doubts(C, N, factor)),
        )

    def band(self, compute_budgets: ArrayLike) -> pd.DataFrame:
        """The frontier with its 95 % intervals, for drawing: a row a budget.

        Args:
            compute_budgets: Budgets in FLOPs, shape (k,).
        """
        return self._band(self._budgets(compute_budgets))

    def size_for(self, num_params: float) -> Size | None:
        """The value of the size parameter that gives a model of N parameters."""
        built = self.build_size(num_params) if self.build_size else None
        return built if built is not None else sizes.size_for(self.runs, num_params)

    def plot(self, kind: str | None = None) -> Any:
        """A Matplotlib figure.

        Args:
            kind: "isoflops", "scaling", or None for both.
        """
        from flops_fit.report import plots

        return plots.plot_result(self, kind)

    def save(self, directory: str | PathLike[str]) -> None:
        """Write JSON and CSV files into a directory, made if need be."""
        archive.save(directory, self.findings, self.meta)

    @classmethod
    def load(cls, directory: str | PathLike[str]) -> Result:
        """Read what `save` wrote; predictions are the same to the bit."""
        findings, meta = archive.load(directory)
        return cls(findings, meta)

    def _budgets(self, compute_budgets: ArrayLike | None) -> Array:
        if compute_budgets is None:
            own = self.optima["compute_budget"].to_numpy(float)
            beyond = own.max() * 10.0 ** np.arange(1, DECADES_BEYOND + 1)
            return np.concatenate([own, beyond])
        try:
            C = np.atleast_1d(np.asarray(compute_budgets, float)).ravel()
        except (TypeError, ValueError) as error:
            raise ArgumentError(f"expected budgets in FLOPs, got {compute_budgets!r}") from error
        if not C.size or not (np.isfinite(C) & (C > 0)).all():
            raise ArgumentError(f"expected positive, finite FLOPs, got {compute_budgets!r}")
        return C

    def _band(
        self,
        C: Array,
        *,
        tokens_per_param: float | None = None,
        inference_tokens: float | None = None,
        unique_tokens: float | None = None,
    ) -> pd.DataFrame:
        law, cost = self.law, self.findings.cost
        if law is None:
            plain = tokens_per_param is inference_tokens is unique_tokens is None
            return self._band_of_power_laws(C, plain=plain)

        def path(laws: Array) -> tuple[Array, Array, Array]:
            if tokens_per_param is not None:
                return predict.at_ratio(laws, C, cost, tokens_per_param=tokens_per_param)
            if inference_tokens is not None:
                return predict.with_inference(laws, C, cost, inference_tokens=inference_tokens)
            if unique_tokens is not None:
                return RepetitionLaw(law).capped(laws, C, cost, unique_tokens)
            return predict.optimum(laws, C, cost)

        with np.errstate(all="ignore"):
            middle = path(law.row)
            low, high = self.findings.interval(lambda laws: np.hstack(path(laws)))
            noise = self.findings.noise_around(low, high, len(C))
        return _band_frame(C, np.hstack(middle)[0], low, high, noise)

    def _band_of_power_laws(self, C: Array, *, plain: bool) -> pd.DataFrame:
        """The IsoFLOP witness alone: no intervals."""
        laws = self.power_laws
        if laws.n_opt.refused or not plain:
            why = [check.message for check in self.checks if check.severity == "refuse"]
            raise FitError(f"no law stands on these runs: {'; '.join(why)}", self.checks)
        middle = np.concatenate([np.log(laws.n_opt(C)), np.log(laws.d_opt(C)), laws.l_opt(C)])
        nothing = np.full_like(middle, math.nan)
        return _band_frame(C, middle, nothing, nothing, nothing[: len(C)])

    def _doubts(self, C: Array, N: float, factor: float) -> list[Check]:
        curve = self.findings.cost.curve
        doubts = check_prediction(
            factor,
            has_interval=self.law is not None,
            cost_extrapolated=curve is not None and bool(curve.extrapolates(N)),
        )
        grave = [doubt for doubt in doubts if doubt.severity == "refuse"]
        if grave:
            raise FitError(f"no prediction without an interval: {grave[0].message}", doubts)
        if self.law is None:
            said = "from the IsoFLOP power laws alone, without intervals."
            doubts.append(Check("no-parametric-law", "warn", said, "See the checks of the result."))
        return doubts

    def __repr__(self) -> str:
        return "\n".join(self._summary())

    def _repr_html_(self) -> str:
        head = "<br>".join(escape(line) for line in self._summary())
        try:
            table = self.chinchilla_table().to_html(index=False, float_format="{:.4g}".format)
        except FitError:
            table = ""
        return f"<div><p>{head}</p>{table}</div>"

    def _summary(self) -> list[str]:
        excluded = int((self.runs["excluded"] != "").sum())
        name = self.meta.get("name", "")
        lines = [
            f"Result{f' {name!r}' if name else ''}: {len(self.runs)} runs, {excluded} excluded"
        ]
        if self.law is not None:
            a = self.intervals.loc["a"]
            law = self.law
            lines.append(
                f"L = {law.E:.4g} + {law.A:.4g} / N^{law.alpha:.4g} + "
                f"{law.B:.4g} / D^{law.beta:.4g}"
            )
            lines.append(
                f"N_opt ~ C^{law.a:.3f} (95 %: {a['low']:.3f} to {a['high']:.3f}); "
                f"{self.findings.choice}"
            )
        grave = [check for check in self.checks if check.severity != "note"]
        lines += [f"  {check.severity}: {check.message}" for check in grave[:8]]
        if len(grave) > 8:
            lines.append(f"  and {len(grave) - 8} more: see .checks")
        return lines


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
    curves: pd.DataFrame | None = None,
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
        curves: Points of training curves, for the envelope and for runs that diverged: `trial_id`,
            `num_tokens` by then, `loss`, and `ended` where known (the schedule had ended there).
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
    options.require_sound()
    table, notes = read_runs(runs)
    with np.errstate(all="ignore"):
        findings = analyse(table, options, curves=curves)
    said = [Check("assumed", "note", note) for note in notes]
    findings = replace(findings, checks=[*findings.checks, *said])
    kept = {"name": name, **({k: str(v) for k, v in meta.items()} if meta else {})}
    return Result(findings, kept, build_size)


def _band_frame(C: Array, middle: Array, low: Array, high: Array, noise: Array) -> pd.DataFrame:
    """Columns from (ln N, ln D, L) side by side, each of shape (3 k,)."""
    k = len(C)
    columns: dict[str, Array] = {"compute_budget": C}
    with np.errstate(over="ignore"):
        for i, name in enumerate(("num_params", "num_tokens", "loss")):
            cut = slice(i * k, (i + 1) * k)
            scale: Callable[[Array], Array] = np.exp if i < 2 else np.asarray
            columns[name] = scale(middle[cut])
            columns[f"{name}_low"], columns[f"{name}_high"] = scale(low[cut]), scale(high[cut])
    columns["tokens_per_param"] = columns["num_tokens"] / columns["num_params"]
    columns["new_run_low"] = columns["loss_low"] - noise
    columns["new_run_high"] = columns["loss_high"] + noise
    return pd.DataFrame(columns)


def _require_affordable(row: pd.Series, options: Mapping[str, float | None]) -> None:
    if not (row["num_tokens"] >= 1 and row["num_params"] >= 1):
        asked = ", ".join(f"{name}={value:g}" for name, value in options.items() if value)
        raise ArgumentError(
            f"{row['compute_budget']:.3g} FLOPs do not pay for {asked or 'one token'}: raise the "
            "budget"
        )


def _require_positive(given: Mapping[str, object]) -> None:
    faults = []
    for name, value in given.items():
        if value is None and name != "compute_budget":
            continue
        number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if not number or not 0 < float(value) < math.inf:  # type: ignore[arg-type]
            faults.append(f"{name}: expected a positive number, got {value!r}")
    asked = [name for name, value in given.items() if value is not None][1:]
    if len(asked) > 1:
        faults.append(f"give one of {', '.join(asked)}, not several")
    if faults:
        raise ArgumentError(faults)
