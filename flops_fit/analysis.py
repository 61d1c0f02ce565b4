"""From finished MLflow runs to a `Result`; report, table, plots and laws become artifacts."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from flops_fit import tracking
from flops_fit.errors import FitError, NoRunsError, StoreError, TableError, in_short
from flops_fit.fit_table import fit
from flops_fit.forecasts.record import from_json
from flops_fit.forecasts.scoring import outcomes_in
from flops_fit.records import Size
from flops_fit.report import html_page
from flops_fit.report.outcomes import UNREADABLE
from flops_fit.result import Result
from flops_fit.runtime import distributed
from flops_fit.runtime.announce import announce_if_slow
from flops_fit.store.retry import wait_for_store
from flops_fit.tracking.ledger import Ledger
from flops_fit.tracking.parent_run import REPORT
from flops_fit.warn import warn_user

_HEADLINE = (
    "E",
    "A",
    "B",
    "alpha",
    "beta",
    "gamma",
    "a",
)  # rows of `Result.intervals` that are logged
_MOST_REASONS = 3


def analyze_ledger(
    ledger: Ledger, *, build_size: Callable[[float], Size | None] | None = None
) -> Result:
    """Fit the runs of a sweep's latest setting, and log the result on its parent run.

    A server that goes away meanwhile is waited for, up to `FLOPS_FIT_TIMEOUT` seconds. A store that
    can be read but not written gives a warning.

    Args:
        ledger: The sweep.
        build_size: Gives the size value for N parameters; by default found by interpolation.

    Raises:
        StoreError: The store cannot be read, or is away for longer.
        NoRunsError: If no run has finished.
        FitError: If the runs do not carry a fit.
    """
    timeout_s = 0.0 if ledger.home else distributed.timeout().total_seconds()
    fit_runs = partial(fit_ledger, ledger, build_size=build_size, curves=True)
    with announce_if_slow(f"Fitting scaling laws to the runs of {ledger.name!r}"):
        result = wait_for_store(fit_runs, timeout_s)
    slow = announce_if_slow("Drawing the report, and logging it to the store")
    with slow, tempfile.TemporaryDirectory() as folder:
        write_files(result, Path(folder))
        log = partial(tracking.log_analysis, ledger, Path(folder), _headline(result))
        try:
            wait_for_store(log, timeout_s)
        except StoreError as error:
            warn_user(
                "the result is complete, but its report, tables and laws could not be logged "
                f"({error}); result.save(...) and result.report(...) write them elsewhere"
            )
            result = _without_report(result)
    _say_where(result)
    return result


def _say_where(result: Result) -> None:
    """Tell where the report and the runs are."""
    if report := result.meta.get("report"):
        print(f"Report:\n  {report}", file=sys.stderr)
    print(f"Runs:\n  {result.meta['where_to_look']}", file=sys.stderr)


def _without_report(result: Result) -> Result:
    """The result, whose report was not logged."""
    meta = {key: value for key, value in result.meta.items() if key != "report"}
    return replace(result, findings=replace(result.findings, meta=meta))


def fit_ledger(
    ledger: Ledger,
    *,
    build_size: Callable[[float], Size | None] | None = None,
    curves: bool = False,
) -> Result:
    """Fit the runs of a sweep's latest setting; nothing is written.

    Args:
        ledger: The sweep.
        build_size: Gives the size value for N parameters; by default found by interpolation.
        curves: Whether to fetch the training curves too, which the report draws.

    Raises:
        NoRunsError: If no run has finished.
        FitError: If the runs do not carry a fit.
    """
    meta = tracking.read_meta(ledger)
    runs = tracking.fetch_runs(ledger, meta.get("setting"))
    if not any(run.state == "complete" for run in runs):
        advice = "call find_optimal(...) again to go on"
        if runs and all(run.state == "diverged" for run in runs):
            advice = (
                "lower Recipe(learning_rate=...) or check the loss function; "
                "the same call runs none of them again"
            )
        reasons = "; ".join(sorted({run.excluded for run in runs})[:_MOST_REASONS])
        reasons = reasons or "none was started"
        raise NoRunsError(
            f"sweep {ledger.name!r}: none of its {len(runs)} runs has finished "
            f"({reasons}); {advice}"
        )
    meta["where_to_look"] = ledger.where_to_look()
    meta["report"] = tracking.artifact_address(ledger, REPORT)
    result = fit(tracking.runs_frame(runs), name=ledger.name, meta=meta, build_size=build_size)
    findings = replace(result.findings, forecasts=_forecasts(ledger, result))
    if curves:
        # Training losses before the end of the schedule are drawn, but neither fitted nor checked.
        findings = replace(findings, curves=tracking.fetch_curves(ledger, runs))
    return Result(findings, partial(_log_forecast, ledger))


def _log_forecast(ledger: Ledger, forecast_id: str, text: str) -> str:
    """Log a forecast on the parent run, and return where; a server that is away is asked once."""
    return wait_for_store(partial(tracking.log_forecast, ledger, forecast_id, text), 0.0)


def _forecasts(ledger: Ledger, result: Result) -> pd.DataFrame:
    """The forecasts that were made of the sweep, with their outcomes."""
    try:
        texts = tracking.fetch_forecasts(ledger)
    except StoreError:
        raise
    except Exception as error:  # an artifact store may fail in any way; the fit does without it
        warn_user(f"forecasts of the sweep {ledger.name!r} cannot be read ({in_short(error)})")
        return pd.DataFrame()
    found, faults = [], []
    for name, text in texts.items():
        try:
            found.append(from_json(text, name))
        except TableError as error:
            faults.append(str(error))
    if faults:
        warn_user(f"left out of the forecasts of the sweep {ledger.name!r}: {'; '.join(faults)}")
    found.sort(key=lambda forecast: forecast.made_at)
    outcomes = outcomes_in(found, result.findings) if found else pd.DataFrame()
    outcomes.attrs[UNREADABLE] = len(faults)
    return outcomes


def write_files(result: Result, folder: Path) -> None:
    """Write a result's report, table, plots and laws.

    Args:
        result: The result.
        folder: Where to; holds afterwards `report.html`, `chinchilla_table` (CSV, Markdown and
            LaTeX), `summary.txt`, `plots/` (SVG, PNG) and `laws/` (JSON and CSV).
    """
    try:
        table = result.chinchilla_table()
        table.to_csv(folder / "chinchilla_table.csv", index=False)
        text = table.to_markdown(index=False, floatfmt=".4g")
        (folder / "chinchilla_table.md").write_text(text + "\n", encoding="utf-8")
        (folder / "chinchilla_table.tex").write_text(result.to_latex(), encoding="utf-8")
    except FitError as error:
        (folder / "chinchilla_table.md").write_text(f"No table: {error}\n", encoding="utf-8")
    (folder / "summary.txt").write_text(f"{result!r}\n", encoding="utf-8")
    result.save(folder / "laws")
    try:
        _write_report(result, folder)
    except Exception as error:  # a fault of a plot must not lose days of training
        reason = f"{type(error).__name__}: {error}"
        warn_user(f"the report could not be drawn ({reason}); tables and laws are logged")


def _write_report(result: Result, folder: Path) -> None:
    plots = html_page.draw(result.findings)
    (folder / "plots").mkdir()
    for name, drawing in plots.drawn.items():
        (folder / "plots" / f"{name}.{drawing.kind}").write_bytes(drawing.content)
    (folder / REPORT).write_text(html_page.page(result.findings, plots), encoding="utf-8")


def _headline(result: Result) -> dict[str, float]:
    """The law's parameters as metrics of the parent run, to sort and compare sweeps by."""
    if result.law is None:
        return {}
    values = result.intervals["value"]  # NaN, and not logged, where the data do not tell it
    return {f"law_{name}": float(values[name]) for name in _HEADLINE if name in values}
