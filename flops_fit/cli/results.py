"""The commands that read the runs of a sweep, `analyze` to `report`; the model is not imported."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from flops_fit.analysis import analyze_ledger, fit_ledger
from flops_fit.cli import as_json as shown_as_json
from flops_fit.cli.tables.fit_file import print_result
from flops_fit.comparison import compare
from flops_fit.display.number_text import folded
from flops_fit.errors import ArgumentError
from flops_fit.forecasts.files import slug
from flops_fit.forecasts.scoring import score
from flops_fit.report.outcomes import outcomes_as_cells
from flops_fit.report.tables import losses_as_cells
from flops_fit.result import Result
from flops_fit.tracking.experiments import find_ledger
from flops_fit.validate import raise_problems

_SHORT = 40  # characters of a note in a terminal


def analyze(name: str | None, tracking_uri: str | None, as_json: bool) -> None:
    """Fit a sweep, log the results, and print them."""
    print_result(analyze_ledger(find_ledger(name, tracking_uri)), as_json)


@dataclass(frozen=True)
class Wanted:
    """What is to be predicted: the model for a budget, or the losses of models.

    Attributes:
        compute_budget: C in FLOPs; `terms` may hold hours or a price instead.
        num_params: N of models, instead of a budget.
        num_tokens: D of the models.
        terms: Constraints on the model for the budget; of them, models take `unique_tokens`.
        anyway: Whether what is far beyond the runs is wanted nevertheless.
    """

    compute_budget: float | None
    num_params: Sequence[float] | None = None
    num_tokens: Sequence[float] | None = None
    terms: Mapping[str, Any] = field(default_factory=dict)
    anyway: bool = False

    def models(self) -> list[tuple[float, float]]:
        """N and D of each model; one number goes with all of the other.

        Raises:
            ArgumentError: There are several of both, and not equally many.
        """
        N, D = list(self.num_params or ()), list(self.num_tokens or ())
        k = max(len(N), len(D))
        N, D = (part * k if len(part) == 1 else part for part in (N, D))
        if len(N) != len(D):
            raise ArgumentError(f"expected as many --tokens as --params, got {len(D)} and {len(N)}")
        return list(zip(N, D, strict=True))

    def require_clear(self, budget: str = "a compute budget") -> None:
        """Raise ArgumentError unless there is a budget, or there are N and D.

        Args:
            budget: What counts as one, in words.
        """
        of_models = self.num_params is not None or self.num_tokens is not None
        spends = self.compute_budget is not None or bool({"hours", "price"} & set(self.terms))
        problems = []
        if of_models and (self.num_params is None or self.num_tokens is None):
            problems.append("give --params and --tokens together")
        if of_models == spends:
            problems.append(f"give {budget}, or --params and --tokens")
        if of_models:
            problems += [
                f"--{term.replace('_', '-')} goes with a compute budget only"
                for term in self.terms
                if term != "unique_tokens"
            ]
        raise_problems(problems)


def predict(wanted: Wanted, name: str | None, tracking_uri: str | None, as_json: bool) -> None:
    """Fit a sweep and print a prediction; nothing is written to the store.

    Raises:
        ArgumentError: It is not clear what to predict.
    """
    wanted.require_clear("a compute budget, --hours or --price")
    result = fit_ledger(find_ledger(name, tracking_uri))
    if wanted.num_params is not None:
        N, D = wanted.num_params or (), wanted.num_tokens or ()
        losses = result.predict_loss(N, D, anyway=wanted.anyway, **wanted.terms)
        _print_losses(losses, result, as_json)
        return
    prediction = result.predict(wanted.compute_budget, anyway=wanted.anyway, **wanted.terms)
    if as_json:
        print(shown_as_json.dumps(shown_as_json.of_prediction(prediction, result)))
    else:
        print(prediction)


def _print_losses(losses: pd.DataFrame, result: Result, as_json: bool) -> None:
    checks = losses.attrs["checks"]
    if as_json:
        unit = result.meta.get("data_unit")
        print(shown_as_json.dumps({"losses": losses, "checks": checks, "data_unit": unit}))
        return
    print(losses_as_cells(losses, result.meta).to_string(index=False))
    for check in checks:
        print(check)


def forecast(
    wanted: Wanted, name: str | None, tracking_uri: str | None, note: str, output: Path | None
) -> None:
    """Fit a sweep, and write forecasts to files and to its parent run.

    Raises:
        ArgumentError: It is not clear what to forecast.
    """
    wanted.require_clear()
    result = fit_ledger(find_ledger(name, tracking_uri))
    options: dict[str, Any] = {"note": note, "path": output, "anyway": wanted.anyway}
    if wanted.compute_budget is not None:
        print(result.forecast(wanted.compute_budget, **options))
        return
    for N, D in wanted.models():
        print(result.forecast(num_params=N, num_tokens=D, **options))


def score_forecasts(
    paths: Sequence[Path],
    runs: Path | None,
    name: str | None,
    tracking_uri: str | None,
    loss: float | None,
    as_json: bool,
) -> None:
    """Compare forecasts with the runs of a table or of a sweep, or with a loss."""
    given = {"--runs": runs, "--name": name, "--loss": loss}
    if sum(value is not None for value in given.values()) != 1:
        raise ArgumentError(f"give one of {', '.join(given)}")
    came = runs if name is None else fit_ledger(find_ledger(name, tracking_uri))
    scores = score(paths, came, loss=loss)
    if as_json:
        summary = scores.attrs["summary"]
        checks = scores.attrs["checks"]
        print(shown_as_json.dumps({"summary": summary, "checks": checks, "forecasts": scores}))
        return
    cells = outcomes_as_cells(scores)
    cells["note"] = [folded(note, _SHORT) for note in cells["note"]]
    print(cells.to_string(index=False))
    print(scores.attrs["summary"])


def compare_sweeps(
    names: Sequence[str],
    tracking_uri: str | None,
    compute_budgets: Sequence[float] | None,
    bytes_per_token: Mapping[str, float] | None,
    output: Path | None,
    anyway: bool,
    as_json: bool,
) -> None:
    """Compare sweeps, log the page on their parent runs, and print the verdict and the table.

    Raises:
        ArgumentError: There is one name only, the sweeps cannot be compared, or the folder of
            `output` does not exist.
    """
    names = [name for name in names if name]  # `mlflow run` gives an empty text for none
    if len(names) < 2:
        raise ArgumentError(f"compare: expected the names of two sweeps or more, got {names}")
    _require_folder(output)
    found = compare(
        *names, tracking_uri=tracking_uri, bytes_per_token=bytes_per_token, anyway=anyway
    )
    table = found.at(compute_budgets, anyway=anyway)
    if output is not None:
        found.report(output)
    if as_json:
        fields = {"names": found.names, "verdicts": found.verdicts, "checks": found.checks}
        print(shown_as_json.dumps({**fields, "table": table, "pages": found.written_to}))
        return
    print(found.text(table))
    for where in (*([output] if output else []), *found.written_to):
        print(f"Page: {where}")


def _require_folder(output: Path | None) -> None:
    """Raise ArgumentError if a file cannot be written because its folder does not exist."""
    if output is not None and not output.parent.is_dir():
        raise ArgumentError(f"output: the folder {output.parent} does not exist")


def report(name: str | None, tracking_uri: str | None, output: Path | None) -> None:
    """Fit a sweep and write its report.

    Raises:
        ArgumentError: The folder of `output` does not exist.
    """
    # The name of a sweep may contain characters that a file name cannot.
    _require_folder(output)
    # Training curves take time to fetch; only the report shows them.
    ledger = find_ledger(name, tracking_uri)
    result = fit_ledger(ledger, curves=True)
    path = output or Path(f"{slug(ledger.name) or 'report'}.html")
    result.report(path)
    print(path)


def exit_code(result: Result, compute_budgets: Collection[float]) -> int:
    """1 if a trial of these budgets failed, or if nothing is predicted beyond them, else 0."""
    failed = result.runs[result.runs["state"] == "failed"]
    no_law = result.law is None or bool(result.findings.not_beyond)
    return int(no_law or failed["compute_budget"].isin(compute_budgets).any())
