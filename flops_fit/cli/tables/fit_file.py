"""`flops-fit fit`: laws from a file of runs. It needs neither torch, MLflow nor Optuna."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from flops_fit.cli import as_json as shown_as_json
from flops_fit.examples.show import show
from flops_fit.fit_table import fit
from flops_fit.laws.options import FormOption
from flops_fit.result import Result


def fit_file(
    path: Path, by: Sequence[str], form: FormOption, metrics: Sequence[str], as_json: bool
) -> int:
    """Fit the runs in a file, or those of each value of its columns `by`, and print the results.

    Returns:
        The exit code: 1 where no law stands, of one value at least.
    """
    if not by:
        result = fit(path, form=form, metrics=metrics)
        print_result(result, as_json)
        return int(result.law is None)
    results = fit(path, by=by, form=form, metrics=metrics)
    lawless = int(bool(results.failed) or any(result.law is None for result in results.values()))
    if as_json:
        shown = {str(value): shown_as_json.of_result(result) for value, result in results.items()}
        failed = {str(value): reason for value, reason in results.failed.items()}
        print(shown_as_json.dumps({"by": results.by, "results": shown, "failed": failed}))
        return lawless
    print(results)
    for value, result in results.items():
        print(f"\n{value}")
        show(result)
    return lawless


def print_result(result: Result, as_json: bool) -> None:
    """Print a result, or its JSON."""
    if as_json:
        print(shown_as_json.dumps(shown_as_json.of_result(result)))
    else:
        show(result)
