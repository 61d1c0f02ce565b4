"""The page of a comparison: verdict, table, plots and checks, in one file without scripts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from flops_fit.display.number_text import span
from flops_fit.display.page import drawing, policy_hash, template, trusted
from flops_fit.laws.check import Check
from flops_fit.laws.comparison.contrast import Contrast
from flops_fit.laws.findings import Findings
from flops_fit.report.comparison.plot import plot_comparison
from flops_fit.report.page_files import page_file
from flops_fit.report.summary import law_line

TITLE = "Left: the loss of each sweep's best model. Right: the compute multiplier. Bands are 95 %."


def page(
    names: Sequence[str],
    contrasts: Sequence[Contrast],
    verdicts: Sequence[str],
    table: pd.DataFrame | str,
    checks: Sequence[Check],
) -> str:
    """The page as text.

    Args:
        names: Of the first sweep, and of each that it is compared with.
        contrasts: The comparisons with the first.
        verdicts: What is found of each.
        table: Text cells, or why there are none.
        checks: What is to be minded.
    """
    style = page_file("report.css")
    sweeps = [contrasts[0].first, *(contrast.second for contrast in contrasts)]
    return str(
        template(page_file("comparison.html")).render(
            style=trusted(style),
            style_hash=policy_hash(style),
            names=list(names),
            verdicts=list(verdicts),
            table=None if isinstance(table, str) else table,
            no_table=table if isinstance(table, str) else "",
            drawing=drawing(TITLE, plot_comparison(names, contrasts)),
            checks=list(checks),
            sweeps=[_facts(name, sweep) for name, sweep in zip(names, sweeps, strict=True)],
        )
    )


def _facts(name: str, findings: Findings) -> dict[str, Any]:
    """What the page says of one sweep."""
    runs = findings.fitted_runs
    return {
        "name": name,
        "runs": len(runs),
        "budgets": f"{span(runs['compute_budget'])} FLOPs",
        "law": law_line(findings),
        "report": findings.meta.get("report", ""),
    }
