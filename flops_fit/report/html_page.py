"""The report: one self-contained HTML page with a verdict, a slider, a table, plots and checks.

The page needs no network and runs one script, `report.js`. Names in it come from users and may be
hostile, so the template escapes them, the script's data are JSON without a `<`, the script writes
only text, plots are images (which cannot run code), and the content security policy allows that
script and that style sheet by their hashes, and nothing else.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flops_fit.display import number_text
from flops_fit.display.page import Drawing, drawing, policy_hash, template, trusted
from flops_fit.errors import FitError
from flops_fit.laws.check import counted
from flops_fit.laws.findings import Findings
from flops_fit.laws.predict.paths import UNCONSTRAINED
from flops_fit.laws.predict.prediction import predict_budget
from flops_fit.laws.predict.tables import chinchilla_table
from flops_fit.report import decision_tables, outcomes, slider_data, summary, tables
from flops_fit.report.page_files import page_file
from flops_fit.report.plots.panels import figures
from flops_fit.report.train_this import train_this
from flops_fit.runtime.atomic_write import atomic_write
from flops_fit.version import __version__

# What stands before and after the section on forecasts; in text of users "<" is escaped.
FORECASTS = ("<!-- forecasts -->\n", "<!-- end of forecasts -->")
LIBRARIES = ("numpy", "scipy", "pandas", "matplotlib")
SEVERITIES = ("refuse", "warn", "note")  # the order in which checks are listed
OBJECTIVES = {
    "log": "least squares of ln L",
    "linear": "least squares of L",
    "huber": "Huber loss, all finished runs",
    "tied": "alpha = beta",
    "bent": "with gamma",
    "five": "gamma = 1",
}
# Facts about the sweep that are listed if the metadata have them.
FACTS = {
    "model": "model",
    "size_param": "size parameter",
    "data_unit": "D counts",
    "flops_convention": "FLOPs",
    "recipe": "recipe",
    "data_fingerprint": "data fingerprint",
    "setting": "setting (hash of model, data, loss and recipe)",
}


@dataclass(frozen=True)
class Plots:
    """The plots of a result.

    Attributes:
        drawn: The plots by name.
        missing: Why other plots cannot be drawn, by title.
    """

    drawn: Mapping[str, Drawing]
    missing: Mapping[str, str]


def write_report(findings: Findings, path: str | os.PathLike[str]) -> Path:
    """Write the page; a reader never sees half a file, because it is renamed into place.

    Args:
        findings: The fitted laws.
        path: The file to write, for example `report.html`.
    """
    target = Path(path)
    atomic_write(target, page(findings))
    return target


def page(findings: Findings, plots: Plots | None = None) -> str:
    """The page as text.

    Args:
        findings: The fitted laws.
        plots: Its plots, from `draw`; drawn here if None.
    """
    if plots is None:
        plots = draw(findings)
    style, script = page_file("report.css"), page_file("report.js")
    meta = findings.meta
    return str(
        template(page_file("report.html")).render(
            style=trusted(style),
            style_hash=policy_hash(style),
            script=trusted(script),
            script_hash=policy_hash(script),
            data={"grid": _grid(findings), "labels": _labels(findings)},
            plots=plots,
            num_runs=len(findings.sweep_runs),
            train_this=train_this(findings),
            bent=findings.law is not None and findings.law.gamma != 1,
            corrected=findings.misfit is not None,
            measured_cost=findings.law is not None and findings.law.curve is not None,
            meta=meta,
            name=meta.get("name") or _default_name(findings),
            unit=meta.get("data_unit", "tokens"),
            verdict=summary.verdict(findings),
            law=summary.law_and_predictions(findings),
            serious=_serious(findings),
            table=_table(findings),
            metrics=decision_tables.metrics_as_cells(findings),
            times=decision_tables.time_table(findings),
            rounds=decision_tables.rounds_as_cells(findings),
            goal_reached=summary.goal_reached(findings),
            **_forecasts(findings),
            checks=sorted(findings.checks, key=lambda check: SEVERITIES.index(check.severity)),
            excluded=_excluded(findings),
            fits=_fits(findings),
            facts={label: meta[key] for key, label in FACTS.items() if meta.get(key)},
            versions=_versions(meta),
            refusal=_refusal(findings),
            no_envelope=_no_envelope(findings),
        )
    )


def with_forecasts(shown: str, findings: Findings) -> str:
    """A page with its forecasts as they are now; all else stays, and nothing is drawn.

    Args:
        shown: The page, as `page` returned it for the same laws.
        findings: The laws, with their forecasts.
    """
    whole = template(page_file("report.html"))
    section = "".join(whole.blocks["forecasts"](whole.new_context(_forecasts(findings))))
    head, rest = shown.split(FORECASTS[0], 1)
    _, tail = rest.rsplit(FORECASTS[1], 1)
    return f"{head}{FORECASTS[0]}{section}{FORECASTS[1]}{tail}"


def _forecasts(findings: Findings) -> dict[str, Any]:
    """What the template needs for the section on forecasts."""
    line = outcomes.summary_line(findings.forecasts)
    return {
        "forecasts": outcomes.outcomes_as_cells(findings.forecasts),
        "text_columns": outcomes.TEXT_COLUMNS,
        "forecasts_summary": line.removeprefix("Forecasts: "),
    }


def draw(findings: Findings) -> Plots:
    """Draw every plot of a result; for those that cannot be drawn, say why."""
    drawn, missing = {}, {}
    for name, (title, figure) in figures(findings).items():
        if isinstance(figure, str):
            missing[title] = figure
        else:
            drawn[name] = drawing(title, figure)
    return Plots(drawn, missing)


def _default_name(findings: Findings) -> str:
    """The heading for a result without a name."""
    runs, budgets = len(findings.sweep_runs), len(findings.optima)
    return f"{counted(runs, 'run')} at {counted(budgets, 'budget')}"


def _no_envelope(findings: Findings) -> str:
    """Why no law is fitted to the envelope of training curves; empty if one is."""
    if findings.envelope_laws is not None:
        return ""
    if findings.curves.empty:
        return "not fitted, because no training curves were given."
    if any(check.code == "no-envelope" for check in findings.checks):
        return "not fitted; see the checks."
    return (
        "not fitted; the training curves are only drawn. In the middle of its schedule a run has a "
        "higher loss than a shorter run whose schedule ends there, which bends the envelope."
    )


def _grid(findings: Findings) -> dict[str, Any] | None:
    try:
        return slider_data.slider_grids(findings)
    except FitError:
        return None


def _refusal(findings: Findings) -> str:
    """Why predictions beyond the largest budget, or all predictions, are refused; else empty."""
    C = summary.BEYOND * findings.largest_budget
    try:
        predict_budget(findings, C, UNCONSTRAINED)
    except summary.NO_PREDICTION as error:
        return str(error)
    return ""


def _labels(findings: Findings) -> dict[str, str]:
    """Names that the script shows."""
    return {
        "unit": findings.meta.get("data_unit", "tokens"),
        "size": findings.meta.get("size_param", "size"),
        "no_loss": summary.no_loss(findings),
    }


def _serious(findings: Findings) -> str:
    """The number of checks that warn and refuse, in words; empty if there are none."""
    severities = [check.severity for check in findings.checks]
    counts = {"warning": severities.count("warn"), "refusal": severities.count("refuse")}
    return " and ".join(counted(n, noun) for noun, n in counts.items() if n)


def _table(findings: Findings) -> pd.DataFrame | None:
    try:
        table = chinchilla_table(findings)
        return tables.as_cells(table, findings.meta, findings.metrics.values())
    except FitError:
        return None


def _excluded(findings: Findings) -> list[dict[str, str]]:
    # Runs for the recipe have plots of their own.
    runs = findings.sweep_runs[findings.sweep_runs["excluded"] != ""]
    return [
        {
            "budget": number_text.flops(row["compute_budget"]),
            "size": "" if row["size"] is None else str(row["size"]),
            "params": number_text.count(row["num_params"]),
            "loss": number_text.loss(row["loss"]),
            "reason": row["excluded"],
            "trial": row["trial_id"],
        }
        for row in runs.to_dict("records")
    ]


def _fits(findings: Findings) -> list[dict[str, str]]:
    """The exponent of N_opt by every approach and objective."""
    rows = []
    if findings.law is not None:
        a = findings.intervals.loc[["a"]].to_dict("records")[0]
        rows.append(("parametric law, the headline", a["value"], a["low"], a["high"]))
    chosen = "" if findings.law is None else findings.fits["headline"].form
    for name, objective in OBJECTIVES.items():
        if name in findings.fits and name != chosen:
            # Only the headline has an interval.
            rows.append((f"parametric, {objective}", findings.fits[name].law.a, np.nan, np.nan))
    approaches = {"IsoFLOP optima": findings.power_laws, "envelope": findings.envelope_laws}
    for name, laws in approaches.items():
        if laws is not None and not laws.n_opt.refused:
            rows.append((f"power law, {name}", laws.n_opt.exponent, *laws.n_opt.exponent_interval))
    form = number_text.exponent
    return [
        {"name": name, "a": form(a), "interval": number_text.between(low, high, form)}
        for name, a, low, high in rows
    ]


def _versions(meta: Mapping[str, str]) -> str:
    libraries = ", ".join(f"{name} {metadata.version(name)}" for name in LIBRARIES)
    fitted = f"fitted with flops-fit {__version__}, {libraries}, Python {platform.python_version()}"
    return f"{meta['versions']}; {fitted}" if meta.get("versions") else fitted
