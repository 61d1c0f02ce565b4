"""`Results`: one result for each value of a column, as `fit(..., by="dataset")` returns them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

import pandas as pd

from flops_fit.display import html, number_text
from flops_fit.display.number_text import NumberFormat
from flops_fit.errors import ArgumentError, FitError
from flops_fit.laws.findings import Findings
from flops_fit.laws.predict.paths import UNCONSTRAINED
from flops_fit.laws.predict.prediction import predict_budget
from flops_fit.report.tables import INTERVAL, intervals

_INTERVALS = ("num_params", "num_tokens", "loss")


class HasFindings(Protocol):
    """A `Result`, as far as this module reads it."""

    @property
    def findings(self) -> Findings:
        """The runs, fits, intervals and checks."""


R = TypeVar("R", bound=HasFindings)


class Results(Mapping[Hashable, R], Generic[R]):
    """The results of a table that was fitted apart for each value of one or more columns.

    A mapping from the values (tuples of them for several columns) to `Result`s. Values whose runs
    cannot be fitted are in `failed`.

    Attributes:
        by: The columns.
        failed: Why there is no result, by value.
    """

    def __init__(
        self, by: Sequence[str], results: Mapping[Hashable, R], failed: Mapping[Hashable, str]
    ) -> None:
        self.by = tuple(by)
        self.failed = dict(failed)
        self._results = dict(results)

    def __getitem__(self, value: Hashable) -> R:
        return self._results[value]

    def __iter__(self) -> Iterator[Hashable]:
        return iter(self._results)

    def __len__(self) -> int:
        return len(self._results)

    @property
    def table(self) -> pd.DataFrame:
        """The laws side by side, one row per value.

        Predictions are at the largest budget that every value's runs reach, in FLOPs, with 95 %
        intervals; a value without a law has NaN there, and the reason in `remark`.
        """
        largest = [result.findings.largest_budget for result in self.values()]
        C = min(largest, default=float("nan"))
        rows = [self._row(value, result.findings, C) for value, result in self.items()]
        for value, reason in self.failed.items():
            rows.append({**self._named(value), "compute_budget": C, "remark": reason})
        return pd.DataFrame(rows)

    def _row(self, value: Hashable, findings: Findings, C: float) -> dict[str, Any]:
        row = {**self._named(value), "runs": len(findings.fitted_runs)}
        if findings.law is not None:
            a = findings.intervals.loc["a"]
            row |= {"a": a["value"], "a_low": a["low"], "a_high": a["high"]}
        row["compute_budget"] = C
        try:
            prediction = predict_budget(findings, C, UNCONSTRAINED)
        except (FitError, ArgumentError) as error:
            return {**row, "remark": str(error).splitlines()[0]}
        for name in _INTERVALS:
            low, high = getattr(prediction, f"{name}_interval")
            row |= {name: getattr(prediction, name), f"{name}_low": low, f"{name}_high": high}
        refused = [check.message for check in findings.checks if check.severity == "refuse"]
        return {**row, "remark": refused[0] if refused else ""}

    def _named(self, value: Hashable) -> dict[str, Any]:
        values = value if isinstance(value, tuple) and len(self.by) > 1 else (value,)
        return dict(zip(self.by, values, strict=True))

    def __repr__(self) -> str:
        head = f"Results by {', '.join(self.by)}: {len(self)} fitted, {len(self.failed)} not"
        table = self._cells().to_string(index=False)
        return f"{head}\n{table}"

    def _repr_html_(self) -> str:
        return html.block([repr(self).splitlines()[0]], html.frame(self._cells()))

    def _cells(self) -> pd.DataFrame:
        """The table as text cells; empty where there is no number."""
        table = self.table
        metas = [result.findings.meta for result in self.values()]
        unit = next((meta["data_unit"] for meta in metas if "data_unit" in meta), "tokens")
        columns: dict[str, tuple[str, NumberFormat]] = {
            "runs": ("runs", "{:.0f}".format),
            "a": ("a", number_text.exponent),
            "compute_budget": ("C, FLOPs", number_text.flops),
            "num_params": ("N", number_text.count),
            "num_tokens": (f"D, {unit}", number_text.count),
            "loss": ("loss", number_text.loss),
        }
        cells = table[list(self.by)].copy()
        for name, (head, form) in columns.items():
            if name in table:
                cells[head] = ["" if pd.isna(value) else form(value) for value in table[name]]
            if f"{name}_low" in table:
                cells[f"{head}, {INTERVAL}"] = intervals(table, name, form)
        return cells.assign(remark=table["remark"])


def fit_each(
    table: pd.DataFrame, by: Sequence[str], fit_one: Callable[[pd.DataFrame], R]
) -> Results[R]:
    """Fit the runs of each value of some columns; a value that cannot be fitted stops no other.

    Args:
        table: A clean table.
        by: Its columns.
        fit_one: Fits a table.

    Raises:
        FitError: No value can be fitted.
    """
    columns = [table[name].astype(object).where(table[name].notna(), "none") for name in by]
    results: dict[Hashable, R] = {}
    failed: dict[Hashable, str] = {}
    for key, part in table.groupby(columns, sort=False):
        value = key[0] if len(by) == 1 and isinstance(key, tuple) else key
        try:
            results[value] = fit_one(part)
        except FitError as error:
            failed[value] = str(error)
    if not results:
        reasons = "; ".join(f"{value}: {reason}" for value, reason in failed.items())
        raise FitError(f"no value of {', '.join(by)} could be fitted: {reasons}")
    return Results(by, results, failed)
