"""Print a result; used by the examples and the commands."""

from __future__ import annotations

from flops_fit.errors import FitError
from flops_fit.report.tables import as_cells
from flops_fit.result import Result


def show(result: Result) -> None:
    """Print the summary and the table of what to train."""
    print(result, end="\n\n")
    try:
        metrics = result.findings.metrics.values()
        cells = as_cells(result.chinchilla_table(), result.meta, metrics)
        print(cells.to_string(index=False))
    except FitError as error:
        print(f"No table: {error}")
