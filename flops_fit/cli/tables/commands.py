"""The commands that read a table of runs: `flops-fit fit` and `flops-fit suggest`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from flops_fit.cli import options

if TYPE_CHECKING:
    from flops_fit.laws.options import FormOption

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.argument("table", type=_FILE)
@click.option("--by", multiple=True, help="Fit the runs of each value of this column apart.")
@click.option(
    "--form",
    type=click.Choice(["auto", "five", "tied", "bent"]),
    default="auto",
    help="The law: five parameters, alpha = beta, one that bends, or what the runs ask for (auto).",
)
@click.option("--metric", multiple=True, help="Column of a metric to forecast. Repeatable.")
@options.json
def fit(
    table: Path, by: tuple[str, ...], form: FormOption, metric: tuple[str, ...], as_json: bool
) -> int:
    """Fit a table of runs that were trained elsewhere.

    The table is a CSV, TSV, JSON, JSONL, Parquet or Excel file with columns for N, D and loss, and
    for C in FLOPs if you have it. Without D, it is C / (6 N). The exit code is 1 if no law stands.

    \b
    Example:
      flops-fit fit runs.csv --by dataset
    """
    from flops_fit.cli.tables.fit_file import fit_file

    return fit_file(table, by, form, metric, as_json)


@click.argument("table", type=_FILE)
@click.option(
    "--target",
    type=float,
    required=True,
    metavar="FLOPS",
    help="Compute budget that the answer is for.",
)
@click.option("-n", type=int, default=5, show_default=True, help="Largest number of runs.")
@click.option(
    "--candidates",
    type=_FILE,
    help="Table of the runs that can be made, with columns for N, and C or D. Default: any size.",
)
@click.option(
    "--aim",
    type=click.Choice(["num_params", "loss"]),
    default="num_params",
    show_default=True,
    help="Whose interval at the target is to become narrower.",
)
@click.option(
    "--max-budget",
    type=float,
    metavar="FLOPS",
    help="Largest budget to train, without --candidates. Default: 3.16 times the largest.",
)
@click.option(
    "--out",
    "--output",
    "-o",
    "out",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="CSV file to write the runs to.",
)
@options.json
def suggest(
    table: Path,
    target: float,
    n: int,
    candidates: Path | None,
    aim: str,
    max_budget: float | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Suggest which runs to train next, for a table of runs.

    The runs are those that narrow the interval at the target most for their FLOPs. TABLE is as for
    `fit`; rows whose state is that of a run under way (running, queued, ...) count as being
    trained.

    \b
    Examples:
      flops-fit suggest runs.csv --target 1e21
      flops-fit suggest runs.csv --target 1e21 --candidates possible.csv --out next.csv
    """
    from flops_fit.cli.tables.suggest_runs import suggest_runs

    suggest_runs(
        table,
        {"target": target, "n": n, "candidates": candidates, "aim": aim, "max_budget": max_budget},
        out,
        as_json,
    )
