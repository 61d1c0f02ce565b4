"""What an example, and a command, prints at its end."""

from __future__ import annotations

from flops_fit.errors import FitError
from flops_fit.result import Result


def show(result: Result) -> None:
    """Print what a sweep found, the table to build from, and where to look."""
    print(result, end="\n\n")
    try:
        table = result.chinchilla_table()
        print(table.to_string(index=False, float_format="{:.4g}".format))
    except FitError as error:
        print(f"No table: {error}")
    if report := result.meta.get("report"):
        print(f"\nReport:\n  {report}")
    if where := result.meta.get("where_to_look"):
        print(f"Look at the runs:\n  {where}")
