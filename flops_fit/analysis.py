"""From finished MLflow runs to a `Result`; report, table, plots and laws become artifacts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import pandas as pd

from flops_fit import tracking
from flops_fit.display.notebook import tell
from flops_fit.errors import FitError, NoRunsError, StoreError, TableError, in_short
from flops_fit.fit_table import fit
from flops_fit.forecasts.record import from_json
from flops_fit.forecasts.scoring import outcomes_in
from flops_fit.laws.findings import Findings
from flops_fit.laws.pipeline import seal
from flops_fit.records import Run, Size
from flops_fit.report import html_page
from flops_fit.report.outcomes import UNREADABLE
from flops_fit.report.tables import as_cells, to_markdown
from flops_fit.result import Result
from flops_fit.runtime import distributed
from flops_fit.runtime.announce import announce_if_slow
from flops_fit.store.retry import wait_for_store
from flops_fit.sweep.growth.rounds_file import ROUNDS, read_rounds
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
LAWS = "laws"  # folder among the artifacts; a stored name
_T = TypeVar("_T")
_MOST_REASONS = 3


@dataclass(frozen=True)
class _Fitted:
    """A result, and what tells whether it need be made again.

    Attributes:
        result: The result.
        key: Hash of what it was fitted to.
        shown: A function from the report's bytes to a hash of what it shows, forecasts apart.
        is_logged: Whether the store holds the report, tables and laws of this result already.
        report: The report, where only forecasts are new in it; None if it is to be drawn.
    """

    result: Result
    key: str
    shown: Callable[[bytes], str]
    is_logged: bool
    report: bytes | None = None


def analyze_ledger(
    ledger: Ledger, *, build_size: Callable[[float], Size | None] | None = None
) -> Result:
    """Fit the runs of a sweep's latest setting, and log the result on its parent run.

    Runs that were fitted before, by this version of flops-fit, are not fitted again: the laws that
    were logged are read, and a report that would be the same is not drawn again.

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
    fit_runs = partial(_fit, ledger, build_size=build_size, curves=True)
    with announce_if_slow(f"Fitting scaling laws to the runs of {ledger.name!r}"):
        fitted = wait_for_store(fit_runs, timeout_s)
    result = fitted.result if fitted.is_logged else _logged(ledger, fitted, timeout_s)
    _say_where(result)
    return result


def analyze_on_every_rank(
    find_ledger: Callable[[], Ledger], build_size: Callable[[float], Size | None] | None
) -> Result:
    """Analyse on rank 0, and return the result on every rank."""

    def analyze_here() -> Result:
        result = analyze_ledger(find_ledger(), build_size=build_size)
        return _with_build_size(result, None)  # it holds the user's model, which is not sent

    return _with_build_size(distributed.from_main(analyze_here), build_size)


def _with_build_size(result: Result, build_size: Callable[[float], Size | None] | None) -> Result:
    return replace(result, findings=replace(result.findings, build_size=build_size))


def _logged(ledger: Ledger, fitted: _Fitted, timeout_s: float) -> Result:
    """The result, once its report, tables, plots and laws are logged."""
    result = fitted.result
    slow = announce_if_slow("Drawing the report, and logging it to the store")
    with slow, tempfile.TemporaryDirectory() as folder:
        if fitted.report is None:
            write_files(result, Path(folder))
        else:
            _write_laws(result, Path(folder))
            (Path(folder) / REPORT).write_bytes(fitted.report)
        report = Path(folder) / REPORT
        shown = fitted.shown(report.read_bytes()) if report.exists() else ""
        seal.seal(Path(folder) / LAWS, fitted.key, shown)
        log = partial(tracking.log_analysis, ledger, Path(folder), _headline(result))
        try:
            wait_for_store(log, timeout_s)
        except StoreError as error:
            warn_user(
                "the result is complete, but its report, tables and laws could not be logged "
                f"({error}); result.save(...) and result.report(...) write them elsewhere"
            )
            return _without_report(result)
    return result


def _say_where(result: Result) -> None:
    """Tell where the report and the runs are."""
    if report := result.meta.get("report"):
        tell(f"Report:\n  {report}")
    if where := result.meta.get("where_to_look"):
        tell(f"Runs:\n  {where}")


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
    """Fit the runs of a sweep's latest setting, or read the laws of the same fit; writes nothing.

    Args:
        ledger: The sweep.
        build_size: Gives the size value for N parameters; by default found by interpolation.
        curves: Whether to fetch the training curves too, which the report draws.

    Raises:
        NoRunsError: If no run has finished.
        FitError: If the runs do not carry a fit.
    """
    return _fit(ledger, build_size=build_size, curves=curves).result


def _fit(
    ledger: Ledger, *, build_size: Callable[[float], Size | None] | None, curves: bool
) -> _Fitted:
    meta = {"name": ledger.name, **tracking.read_meta(ledger)}
    runs = _finished(ledger, meta.get("setting"))
    table = tracking.runs_frame(runs)
    key = seal.key_of(table, meta)
    meta["where_to_look"] = ledger.where_to_look()
    meta["report"] = tracking.artifact_address(ledger, REPORT)
    kept = _read(ledger, LAWS, lambda folder: seal.open_sealed(folder, key))
    if kept is None:
        metrics = tracking.metric_names(runs)
        fitted = fit(table, name=ledger.name, meta=meta, build_size=build_size, metrics=metrics)
        findings = fitted.findings
    else:
        findings = replace(kept.findings, meta=meta, build_size=build_size)
    if not curves:
        findings = replace(findings, curves=pd.DataFrame())
    elif kept is None:
        # Training losses before the end of the schedule are drawn, but neither fitted nor checked.
        findings = replace(findings, curves=tracking.fetch_curves(ledger, runs))
    texts = _forecast_texts(ledger)
    rounds = _read(ledger, ROUNDS, read_rounds)
    rounds = pd.DataFrame() if rounds is None else rounds
    forecasts = _forecasts(ledger.name, texts, findings)
    findings = replace(findings, forecasts=forecasts, rounds=rounds)

    def shown(report: bytes) -> str:
        of_rounds = [] if rounds.empty else [rounds.to_json()]
        return seal.hash_of(meta, *of_rounds, report.hex())

    report = _read(ledger, REPORT, Path.read_bytes) if kept else None
    current = None
    if kept is not None and report is not None and kept.shown == shown(report):
        current = html_page.with_forecasts(report.decode(), findings).encode()
    result = Result(findings, partial(_log_text, ledger))
    return _Fitted(result, key, shown, current is not None and current == report, current)


def _finished(ledger: Ledger, setting: str | None) -> list[Run]:
    """The runs of a setting.

    Raises:
        NoRunsError: None of them has finished.
    """
    runs = tracking.fetch_runs(ledger, setting)
    if any(run.state == "complete" for run in runs):
        return runs
    advice = "call find_optimal(...) again to go on"
    if runs and all(run.state == "diverged" for run in runs):
        advice = (
            "lower Recipe(learning_rate=...) or check the loss function; "
            "the same call runs none of them again"
        )
    reasons = "; ".join(sorted({run.excluded for run in runs})[:_MOST_REASONS])
    reasons = reasons or "none was started"
    raise NoRunsError(
        f"sweep {ledger.name!r}: none of its {len(runs)} runs has finished ({reasons}); {advice}"
    )


def _read(ledger: Ledger, name: str, read: Callable[[Path], _T | None]) -> _T | None:
    """What is read of an artifact; None if it cannot be read."""
    try:
        return tracking.read_artifact(ledger, name, read)
    except StoreError:
        raise
    except Exception:  # an artifact store may fail in any way: what it holds is made again
        return None


def _log_text(ledger: Ledger, name: str, text: str) -> str:
    """Log a text on the parent run, and return where; a server that is away is asked once."""
    return wait_for_store(partial(tracking.log_text, ledger, name, text), 0.0)


def _forecast_texts(ledger: Ledger) -> dict[str, str]:
    """The forecasts that were made of the sweep, by the names of their files."""
    try:
        return tracking.fetch_forecasts(ledger)
    except StoreError:
        raise
    except Exception as error:  # an artifact store may fail in any way; the fit does without it
        warn_user(f"forecasts of the sweep {ledger.name!r} cannot be read ({in_short(error)})")
        return {}


def _forecasts(name: str, texts: Mapping[str, str], findings: Findings) -> pd.DataFrame:
    """The forecasts that were made of the sweep of this name, with their outcomes."""
    found, faults = [], []
    for file, text in texts.items():
        try:
            found.append(from_json(text, file))
        except TableError as error:
            faults.append(str(error))
    if faults:
        warn_user(f"left out of the forecasts of the sweep {name!r}: {'; '.join(faults)}")
    found.sort(key=lambda forecast: forecast.made_at)
    outcomes = outcomes_in(found, findings) if found else pd.DataFrame()
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
        text = to_markdown(as_cells(table, result.meta, result.findings.metrics.values()))
        (folder / "chinchilla_table.md").write_text(text + "\n", encoding="utf-8")
        (folder / "chinchilla_table.tex").write_text(result.to_latex(), encoding="utf-8")
    except FitError as error:
        (folder / "chinchilla_table.md").write_text(f"No table: {error}\n", encoding="utf-8")
    _write_laws(result, folder)
    try:
        _write_report(result, folder)
    except Exception as error:  # a fault of a plot must not lose days of training
        reason = f"{type(error).__name__}: {error}"
        warn_user(f"the report could not be drawn ({reason}); tables and laws are logged")


def _write_laws(result: Result, folder: Path) -> None:
    (folder / "summary.txt").write_text(f"{result!r}\n", encoding="utf-8")
    result.save(folder / LAWS)


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
