"""`flops-fit fit`, `analyze`, `predict` and `report` read runs, and do not import the model."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import pandas as pd

from flops_fit.analysis import analyze_ledger, fit_ledger
from flops_fit.cli import as_json as shown_as_json
from flops_fit.errors import ArgumentError, FitError
from flops_fit.examples.show import show
from flops_fit.laws.options import FormOption
from flops_fit.result import Result, fit
from flops_fit.tracking.experiments import find_ledger


def fit_table(path: Path, by: Sequence[str], form: FormOption, as_json: bool) -> None:
    """Fit the runs in a file, or those of each value of its columns `by`, and print the results."""
    if not by:
        _print(fit(path, form=form), as_json)
        return
    results = fit(path, by=by, form=form)
    if as_json:
        shown = {
            str(value): shown_as_json.of_result(result, _table(result))
            for value, result in results.items()
        }
        failed = {str(value): reason for value, reason in results.failed.items()}
        print(shown_as_json.dumps({"by": results.by, "results": shown, "failed": failed}))
        return
    print(results)
    for value, result in results.items():
        print(f"\n{value}")
        show(result)


def analyze(name: str, tracking_uri: str | None, as_json: bool) -> None:
    """Fit a sweep, log the results, and print them."""
    _print(analyze_ledger(find_ledger(name, tracking_uri)), as_json)


def predict(
    compute_budget: float,
    name: str,
    tracking_uri: str | None,
    terms: Mapping[str, float | None],
    as_json: bool,
) -> None:
    """Fit a sweep and print a prediction; nothing is written to the store."""
    result = fit_ledger(find_ledger(name, tracking_uri))
    prediction = result.predict(compute_budget, **terms)
    if as_json:
        print(shown_as_json.dumps(shown_as_json.of_prediction(prediction, result)))
    else:
        print(prediction)


def report(name: str, tracking_uri: str | None, output: Path | None) -> None:
    """Fit a sweep and write its report.

    Raises:
        ArgumentError: The folder of `output` does not exist.
    """
    # The name of a sweep may contain characters that a file name cannot.
    path = output or Path(re.sub(r"[^-.\w]+", "_", name) + ".html")
    if not path.parent.is_dir():
        raise ArgumentError(f"output: the folder {path.parent} does not exist")
    # Training curves take time to fetch; only the report shows them.
    result = fit_ledger(find_ledger(name, tracking_uri), curves=True)
    result.report(path)
    print(path)


def exit_code(result: Result, compute_budgets: Collection[float]) -> int:
    """1 if a trial of these budgets failed, else 0."""
    failed = result.runs[result.runs["state"] == "failed"]
    return int(failed["compute_budget"].isin(compute_budgets).any())


def _print(result: Result, as_json: bool) -> None:
    if as_json:
        print(shown_as_json.dumps(shown_as_json.of_result(result, _table(result))))
    else:
        show(result)


def _table(result: Result) -> pd.DataFrame | None:
    try:
        return result.chinchilla_table()
    except FitError:
        return None
