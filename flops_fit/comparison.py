"""`compare`: two or more sweeps beside each other, with an error bar on every difference."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from flops_fit.display import html
from flops_fit.display.number_text import folded
from flops_fit.errors import ArgumentError, FitError, in_short
from flops_fit.forecasts.files import slug
from flops_fit.laws.check import Check, Checks
from flops_fit.laws.comparison.comparable import doubts, incomparable, require_not_below
from flops_fit.laws.comparison.contrast import Contrast
from flops_fit.laws.findings import FITTED_BY
from flops_fit.laws.predict.intervals import predict_intervals
from flops_fit.laws.predict.reach import require_narrow, require_reach
from flops_fit.laws.predict.tables import read_budgets
from flops_fit.report.comparison import text
from flops_fit.report.tables import WholeTable
from flops_fit.result import Result
from flops_fit.runtime.atomic_write import atomic_write
from flops_fit.validate import is_positive, raise_problems
from flops_fit.warn import warn_user

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LETTERS = "abcdefghijklmnopqrstuvwxyz"
LONGEST_NAME = 60
FOLDER = "comparisons"  # among the artifacts of a sweep's parent run; a stored name


@dataclass(frozen=True, repr=False)
class Comparison:
    """Sweeps compared with a first one, at equal compute and at equal loss.

    Attributes:
        names: Of the first sweep, and of each that is compared with it.
        contrasts: The comparisons with the first.
        checks: What is to be minded.
        written_to: Where the page is on the sweeps' parent runs; empty for tables of runs.
    """

    names: tuple[str, ...]
    contrasts: tuple[Contrast, ...]
    checks: Checks
    written_to: tuple[str, ...] = field(default=(), compare=False)

    @cached_property
    def verdicts(self) -> tuple[str, ...]:
        """For each compared sweep: which is better, by how much, and where that changes."""
        return tuple(
            text.verdict((self.names[0], name), contrast)
            for name, contrast in zip(self.names[1:], self.contrasts, strict=True)
        )

    @property
    def verdict(self) -> str:
        """Which sweep is better, by how much, and where that changes; a line for each compared."""
        return "\n".join(self.verdicts)

    def at(self, compute_budgets: ArrayLike | None = None, *, anyway: bool = False) -> pd.DataFrame:
        """The multiplier and the difference of the loss at some budgets, with 95 % intervals.

        The multiplier is C_a / C_b at equal loss, a being the first sweep and C_a the budget: over
        1, the other sweep is better. The loss difference is L_b - L_a at equal compute.

        Args:
            compute_budgets: Budgets in FLOPs, shape (k,). Default: those that both sweeps have, and
                powers of ten beyond, as far as both predict.
            anyway: Compare however far beyond the runs.

        Returns:
            One row per budget: `compute_budget multiplier multiplier_low multiplier_high
            loss_difference loss_difference_low loss_difference_high probability_better
            extrapolation`. The last is C over the largest budget of the sweep that ends first. A
            multiplier of 0 is a loss that is not reached, and inf one that is reached at once. With
            more than two sweeps, `sweep` names the other.

        Raises:
            ArgumentError: A budget is not a positive number.
            FitError: Predictions so far beyond the runs are refused.
        """
        tables = []
        for name, contrast in zip(self.names[1:], self.contrasts, strict=True):
            C = contrast.default_budgets()
            if compute_budgets is not None:
                C = read_budgets(contrast.first, compute_budgets)
                for findings in (contrast.first, contrast.second):
                    require_not_below(findings, C, anyway=anyway)
                    require_reach(findings, C, anyway=anyway)
                    require_narrow(findings, predict_intervals(findings, C), anyway=anyway)
            table = contrast.at(C)
            if len(self.contrasts) > 1:
                table.insert(0, "sweep", name)
            tables.append(table)
        return WholeTable.shown(pd.concat(tables, ignore_index=True), text.cells)

    def plot(self) -> Figure:
        """Both laws with their 95 % bands, and the multiplier against compute."""
        from flops_fit.report.comparison.plot import plot_comparison

        return plot_comparison(self.names, self.contrasts)

    def report(self, path: str | PathLike[str] = "comparison.html") -> Path:
        """Write one self-contained HTML page: verdict, table, plots and checks.

        Args:
            path: The file to write; its folder must exist.

        Returns:
            The path.
        """
        atomic_write(Path(path), self._page())
        return Path(path)

    def _page(self) -> str:
        from flops_fit.report.comparison.page import page

        return page(self.names, self.contrasts, self.verdicts, self._cells(), self.checks)

    def _cells(self) -> pd.DataFrame | str:
        try:
            return text.cells(self.at())
        except FitError as error:
            return str(error)

    def text(self, table: pd.DataFrame | None = None) -> str:
        """Verdict, table and checks as text.

        Args:
            table: What `at` returned; by default for the default budgets.
        """
        cells = self._cells() if table is None else text.cells(table)
        shown = cells if isinstance(cells, str) else cells.to_string(index=False)
        lines = [f"Comparison of {', '.join(map(repr, self.names))}", *self.verdicts, shown]
        return "\n".join([*lines, *(f"  {c.severity}: {c.message}" for c in self.checks)])

    def __repr__(self) -> str:
        return "\n".join([self.text(), *(f"Page: {where}" for where in self.written_to)])

    def _repr_html_(self) -> str:
        cells = self._cells()
        table = cells if isinstance(cells, str) else html.frame(cells)
        remarks = html.remarks((c.severity, c.message, c.advice) for c in self.checks)
        return html.block(self.verdicts, table, remarks)


def compare(
    first: Result | str,
    second: Result | str,
    *others: Result | str,
    tracking_uri: str | PathLike[str] | None = None,
    bytes_per_token: Mapping[str, float] | Sequence[float] | None = None,
    anyway: bool = False,
) -> Comparison:
    """Compare sweeps: which needs less compute for the same loss, and how sure that is.

    Each sweep answers with its own best model at every budget. Where runs of two sweeps share their
    randomness (`find_optimal(..., paired_with=...)`), what they share cancels. The page and the
    table are logged on the parent runs of all sweeps.

    Args:
        first: A result, or the name of a sweep in the store: what the others are compared with.
        second: Another.
        others: More of them.
        tracking_uri: MLflow store of the names; by default `MLFLOW_TRACKING_URI`, else
            `mlruns/mlflow.db`.
        bytes_per_token: Mean bytes of held-out text in a token, by name of the sweep or in the
            order of the sweeps, where they split the same text into different tokens: losses are
            then compared per byte.
        anyway: Compare even where the sweeps differ in loss, data or units.

    Raises:
        ArgumentError: The sweeps cannot be compared: says in what they differ.
        SweepError: There is no such sweep.
        FitError: One of them has no law.

    References:
        Davidson et al. 2023 (the multiplier, as "compute-equivalent gain").
    """
    results = [_result(sweep, tracking_uri) for sweep in (first, second, *others)]
    names = _names(results)
    per = _bytes_per_token(bytes_per_token, names)
    faults, checks = [], []
    for name, result in zip(names[1:], results[1:], strict=True):
        both = (names[0], name)
        findings = (results[0].findings, result.findings)
        faults += incomparable(both, findings, per_byte=per is not None)
        checks += doubts(both, findings, per_byte=per is not None)
    if not anyway:
        raise_problems(faults)
    checks = [Check("incomparable", "warn", f"{fault}.", "") for fault in faults] + checks
    per = per or [1.0] * len(names)
    contrasts = tuple(
        Contrast.of(results[0].findings, result.findings, (per[0], per[i]))
        for i, result in enumerate(results[1:], 1)
    )
    for contrast in contrasts:
        contrast.difference(np.array([contrast.common[1]]))  # refuses if there is no law
    comparison = Comparison(names, contrasts, Checks(dict.fromkeys(checks)))
    return _logged(comparison, results)


def _result(sweep: object, tracking_uri: str | PathLike[str] | None) -> Result:
    """A result, or that of a sweep in the store."""
    if isinstance(sweep, Result):
        return sweep
    if not isinstance(sweep, str):
        raise ArgumentError(f"expected results or names of sweeps, got {sweep!r:.80}")
    from flops_fit.analysis import fit_ledger  # needs MLflow, which a table of runs does not
    from flops_fit.tracking.experiments import find_ledger

    return fit_ledger(find_ledger(sweep, tracking_uri))


def _names(results: Sequence[Result]) -> tuple[str, ...]:
    """A name for each result; letters where they have none, numbers where they share one."""
    given = [_name(result) or LETTERS[i % len(LETTERS)] for i, result in enumerate(results)]
    return tuple(
        name if given.count(name) == 1 else f"{name} ({given[: i + 1].count(name)})"
        for i, name in enumerate(given)
    )


def _name(result: Result) -> str:
    """The name of a result, with the value of the column by which its table was divided."""
    values = json.loads(result.meta.get(FITTED_BY, "{}")).values()
    parts = [result.meta.get("name", ""), *map(str, values)]
    return folded(" ".join(filter(None, parts)), LONGEST_NAME)


def _bytes_per_token(given: object, names: tuple[str, ...]) -> list[float] | None:
    """Bytes per token of each sweep; None if none are given."""
    if given is None:
        return None
    values = [given.get(name) for name in names] if isinstance(given, Mapping) else given
    if (
        not isinstance(values, Sequence)
        or len(values) != len(names)
        or not all(map(is_positive, values))
    ):
        raise ArgumentError(
            "bytes_per_token: expected a positive number for each of "
            f"{', '.join(map(repr, names))}, got {given!r:.120}"
        )
    return [float(value) for value in values]


def _logged(comparison: Comparison, results: Sequence[Result]) -> Comparison:
    """The comparison, once its page and table are logged on the parent runs of its sweeps."""
    logs = [result.log_text for result in results if result.log_text is not None]
    if not logs:
        return comparison
    stem = f"{FOLDER}/{'-vs-'.join(map(slug, comparison.names))}"
    table = comparison._cells()
    files = {f"{stem}.html": comparison._page()}
    if not isinstance(table, str):
        files[f"{stem}.csv"] = comparison.at().to_csv(index=False)
    written = []
    for log in logs:
        try:
            where = [log(name, content) for name, content in files.items()]
            written.append(where[0])
        except Exception as error:  # whatever ails an artifact store: the comparison is made
            warn_user(f"the comparison is not logged to a sweep ({in_short(error)})")
    return Comparison(comparison.names, comparison.contrasts, comparison.checks, tuple(written))
