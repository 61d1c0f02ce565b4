"""`flops-fit analyze`, `predict` and `report`: they read runs, and do not import the model."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

import pandas as pd

from flops_fit.analysis import analyze_ledger, fit_ledger
from flops_fit.cli import as_json as shown_as_json
from flops_fit.errors import ArgumentError, FitError
from flops_fit.examples.show import show
from flops_fit.result import Result
from flops_fit.tracking.experiments import find_ledger


def analyze(name: str, tracking_uri: str | None, as_json: bool) -> None:
    """Fit a sweep, log the results, and print them."""
    result = analyze_ledger(find_ledger(name, tracking_uri))
    if as_json:
        print(shown_as_json.dumps(shown_as_json.of_result(result, _table(result))))
    else:
        show(result)


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
    path = output or Path(re.sub(r"[^-.\w]+", "_", name) + ".html")
    if not path.parent.is_dir():
        raise ArgumentError(f"output: the folder {path.parent} does not exist")
    result = fit_ledger(find_ledger(name, tracking_uri), curves=True)
    result.report(path)
    print(path)


def exit_code(result: Result, compute_budgets: Collection[float]) -> int:
    """1 if a trial of these budgets failed, else 0."""
    failed = result.runs[result.runs["state"] == "failed"]
    return int(failed["compute_budget"].isin(compute_budgets).any())


def _table(result: Result) -> pd.DataFrame | None:
    try:
        return result.chinchilla_table()
    except FitError:
        return None
