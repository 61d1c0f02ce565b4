"""One self-contained page that says what a result says: no network, and one script only.

Names come from users and may be hostile: the template escapes them, the data of the script are JSON
without a single `<`, the script writes text only, plots are images (which cannot run anything), and
the page's own policy (CSP) allows that script and that style by their hashes and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from flops_fit.errors import FitError
from flops_fit.laws.check import counted
from flops_fit.report import number_text, slider_data, summary, tables
from flops_fit.report.plots.panels import figures
from flops_fit.runtime.atomic_write import atomic_write
from flops_fit.version import __version__

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILES = "page_files"
LIBRARIES = ("numpy", "scipy", "pandas", "matplotlib")
GRAVITY = ("refuse", "warn", "note")
OBJECTIVES = {
    "log": "least squares of ln L",
    "linear": "least squares of L",
    "huber": "Huber loss, all finished runs",
    "tied": "alpha = beta",
}
LARGEST_SVG = 110_000  # bytes: eight of them, as text, keep the page under 1.5 MB
DOTS_PER_INCH = 160


@dataclass(frozen=True)
class Drawing:
    """A plot as a file: SVG, or PNG where very many points would make a large SVG.

    Attributes:
        title: What it shows.
        kind: "svg" or "png".
        content: The file's bytes.
    """

    title: str
    kind: Literal["svg", "png"]
    content: bytes

    @property
    def address(self) -> str:
        """The image as an address that holds it whole: nothing in an image can run."""
        mime = "image/svg+xml" if self.kind == "svg" else "image/png"
        return f"data:{mime};base64,{base64.b64encode(self.content).decode()}"


@dataclass(frozen=True)
class Plots:
    """The plots of a result.

    Attributes:
        drawn: By name.
        missing: Why others have nothing to show, by title.
    """

    drawn: Mapping[str, Drawing]
    missing: Mapping[str, str]


def write_report(result: Any, path: str | os.PathLike[str]) -> Path:
    """Write the page of a result; it is written beside its place and renamed into it.

    Args:
        result: A `Result`.
        path: Where to, by custom `report.html`.
    """
    place = Path(path)
    atomic_write(place, page(result))
    return place


def page(result: Any, plots: Plots | None = None) -> str:
    """The page as text.

    Args:
        result: A `Result`.
        plots: Its plots, as `draw` gives them; drawn here if None.
    """
    if plots is None:
        plots = draw(result)
    style, script = _file("report.css"), _file("report.js")
    return str(
        _template().render(
            style=_trusted(style),
            style_hash=_hash(style),
            script=_trusted(script),
            script_hash=_hash(script),
            data={"grid": _grid(result), "words": _words(result)},
            plots=plots,
            result=result,
            meta=result.meta,
            name=result.meta.get("name") or _unnamed(result),
            unit=result.meta.get("data_unit", "tokens"),
            verdict=summary.verdict(result),
            lines=summary.findings(result),
            doubts=_counts(result),
            table=_table(result),
            checks=sorted(result.checks, key=lambda check: GRAVITY.index(check.severity)),
            excluded=_excluded(result),
            fits=_fits(result),
            versions=_versions(result.meta),
            why_not=_why_not(result),
            no_envelope=_no_envelope(result),
        )
    )


def draw(result: Any) -> Plots:
    """Every plot of a result, or why it has nothing to show."""
    drawn, missing = {}, {}
    for name, (title, shown) in figures(result).items():
        if isinstance(shown, str):
            missing[title] = shown
        else:
            drawn[name] = _drawing(title, shown)
    return Plots(drawn, missing)


def _drawing(title: str, figure: Figure) -> Drawing:
    import matplotlib

    content = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "flops-fit"}):
        figure.savefig(content, format="svg", metadata={"Date": None})
    if len(content.getvalue()) <= LARGEST_SVG:
        return Drawing(title, "svg", content.getvalue())
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=DOTS_PER_INCH)
    return Drawing(title, "png", content.getvalue())


def _unnamed(result: Any) -> str:
    """What to call a result that was given no name."""
    runs, budgets = len(result.runs), len(result.optima)
    return f"{counted(runs, 'run')} at {counted(budgets, 'budget')}"


def _no_envelope(result: Any) -> str:
    """Why the envelope of training curves, an approach of its own, is not fitted."""
    if result.envelope_laws is not None:
        return ""
    if result.curves.empty:
        return "no training curves were given."
    if any(check.code == "no-envelope" for check in result.checks):
        return "see the checks."
    return (
        "the training curves are drawn, but not fitted: within its schedule a run has a higher "
        "loss than a shorter run whose schedule ends there, which bends the envelope."
    )


def _grid(result: Any) -> dict[str, Any] | None:
    try:
        return slider_data.grids(result)
    except FitError:
        return None


def _why_not(result: Any) -> str:
    """Why nothing is said beyond the largest budget, or nothing at all; empty where it is."""
    try:
        result.predict(summary.BEYOND * result.largest_budget)
    except summary.NOT_TOLD as error:
        return str(error)
    return ""


def _words(result: Any) -> dict[str, str]:
    """What the script needs to call things by."""
    return {
        "unit": result.meta.get("data_unit", "tokens"),
        "size": result.meta.get("size_param", "size"),
        "no_loss": summary.no_loss(result),
    }


def _counts(result: Any) -> str:
    """How many checks warn and refuse; empty where none does."""
    severities = [check.severity for check in result.checks]
    warnings, refusals = severities.count("warn"), severities.count("refuse")
    said = [counted(n, noun) for n, noun in ((warnings, "warning"), (refusals, "refusal")) if n]
    return " and ".join(said)


def _table(result: Any) -> pd.DataFrame | None:
    try:
        return tables.shown(result.chinchilla_table(), result.meta)
    except FitError:
        return None


def _excluded(result: Any) -> list[dict[str, str]]:
    out = result.runs[result.runs["excluded"] != ""]
    return [
        {
            "budget": number_text.flops(row["compute_budget"]),
            "size": "" if row["size"] is None else str(row["size"]),
            "params": number_text.count(row["num_params"]),
            "loss": number_text.loss(row["loss"]),
            "why": row["excluded"],
            "trial": row["trial_id"],
        }
        for row in out.to_dict("records")
    ]


def _fits(result: Any) -> list[dict[str, str]]:
    """The exponent of N_opt by every approach and objective."""
    rows = []
    if result.law is not None:
        a = result.intervals.loc["a"]
        rows.append(("parametric law, the headline", a["value"], a["low"], a["high"]))
    for name, spoken in OBJECTIVES.items():
        if name in result.fits:
            rows.append((f"parametric, {spoken}", result.fits[name].law.a, np.nan, np.nan))
    witnesses = {"IsoFLOP optima": result.power_laws, "envelope": result.envelope_laws}
    for name, laws in witnesses.items():
        if laws is not None and not laws.n_opt.refused:
            rows.append((f"power law, {name}", laws.n_opt.exponent, *laws.n_opt.exponent_interval))
    return [
        {"name": name, "a": f"{a:.3f}", "between": number_text.between(low, high, "{:.3f}".format)}
        for name, a, low, high in rows
    ]


def _versions(meta: Mapping[str, str]) -> str:
    libraries = [f"{name} {metadata.version(name)}" for name in LIBRARIES]
    own, python = f"flops-fit {__version__}", f"Python {platform.python_version()}"
    fitted = f"fitted with {', '.join([own, *libraries, python])}"
    return f"{meta['versions']}; {fitted}" if meta.get("versions") else fitted


def _hash(text: str) -> str:
    """What the page's policy knows a script or a style by."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@cache
def _file(name: str) -> str:
    return resources.files("flops_fit.report").joinpath(FILES, name).read_text(encoding="utf-8")


def _trusted(text: str) -> Any:
    """A file of our own, put in as it is."""
    from markupsafe import Markup

    return Markup(text)


@cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(_file("report.html"))
