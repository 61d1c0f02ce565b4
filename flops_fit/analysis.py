"""From finished MLflow runs to a `Result`; report, table, plots and laws are logged in MLflow."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from flops_fit import tracking
from flops_fit.errors import FitError, FlopsFitWarning, NoRunsError
from flops_fit.records import Size
from flops_fit.report import html_page
from flops_fit.result import Result, fit
from flops_fit.runtime import distributed
from flops_fit.store.retry import patiently
from flops_fit.tracking.ledger import Ledger

_HEADLINE = ("E", "A", "B", "alpha", "beta", "a")
REPORT = "report.html"


def analyze_ledger(
    ledger: Ledger, *, build_size: Callable[[float], Size | None] | None = None
) -> Result:
    """Fit the runs of a sweep's latest setting and log what comes of it on the parent run.

    A server that goes away meanwhile is waited for, as it is when a sweep's last trial ends.

    Raises:
        StoreError: The store cannot be used, or is away for longer.
        NoRunsError: If no run has finished.
        FitError: If the runs do not carry a fit.
    """
    patience = 0.0 if ledger.home else distributed.timeout().total_seconds()
    result = patiently(lambda: fit_ledger(ledger, build_size=build_size, curves=True), patience)
    with tempfile.TemporaryDirectory() as folder:
        write_files(result, Path(folder))
        said = partial(tracking.log_analysis, ledger, Path(folder), _headline(result))
        patiently(said, patience)
    return result


def fit_ledger(
    ledger: Ledger,
    *,
    build_size: Callable[[float], Size | None] | None = None,
    curves: bool = False,
) -> Result:
    """Fit the runs of a sweep's latest setting; nothing is written.

    Args:
        ledger: Whose runs.
        build_size: Gives the size value for N parameters; default: interpolation.
        curves: Fetch the training curves too, which the report draws.

    Raises:
        NoRunsError: If no run has finished.
        FitError: If the runs do not carry a fit.
    """
    meta = tracking.read_meta(ledger)
    runs = tracking.fetch_runs(ledger, meta.get("setting"))
    if not any(run.state == "complete" for run in runs):
        all_diverged = bool(runs) and all(run.state == "diverged" for run in runs)
        advice = (
            "lower the learning_rate of the recipe, or check the loss; diverged trials are not "
            "run again"
            if all_diverged
            else "run the sweep again to continue"
        )
        reasons = "; ".join(sorted({run.excluded for run in runs})[:3]) or "none was started"
        raise NoRunsError(
            f"sweep {ledger.name!r}: none of its {len(runs)} runs has finished "
            f"({reasons}); {advice}"
        )
    meta["where_to_look"] = ledger.where_to_look()
    meta["report"] = tracking.artifact_address(ledger, REPORT)
    result = fit(tracking.runs_frame(runs), name=ledger.name, meta=meta, build_size=build_size)
    if not curves:
        return result
    # Training losses, in mid-schedule: to be drawn, not to be fitted or to tell who diverged.
    points = tracking.fetch_curves(ledger, runs)
    return replace(result, findings=replace(result.findings, curves=points))


def write_files(result: Result, folder: Path) -> None:
    """Report (HTML), table (CSV, Markdown, LaTeX), plots (SVG, PNG), laws (JSON + CSV) as files."""
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
    except Exception as error:  # what was trained for days is not lost to a picture
        said = f"{type(error).__name__}: {error}"
        warnings.warn(
            f"the report could not be drawn ({said}); tables and laws are logged",
            FlopsFitWarning,
            stacklevel=2,
        )


def _write_report(result: Result, folder: Path) -> None:
    plots = html_page.draw(result.findings)
    (folder / "plots").mkdir()
    for name, drawing in plots.drawn.items():
        (folder / "plots" / f"{name}.{drawing.kind}").write_bytes(drawing.content)
    (folder / REPORT).write_text(html_page.page(result.findings, plots), encoding="utf-8")


def _headline(result: Result) -> dict[str, float]:
    """Numbers of the law as metrics of the parent run, to sort and compare sweeps by."""
    if result.law is None:
        return {}
    values = result.intervals["value"]  # NaN where parameters are not told apart: not logged
    return {f"law_{name}": float(values[name]) for name in _HEADLINE}
