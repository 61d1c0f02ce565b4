"""How forecasts came out: each is compared with the runs of its size.

`matching` finds the runs. The forecast of a budget can also be compared with the minimum of that
budget's IsoFLOP curve.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Protocol, cast

import numpy as np
import pandas as pd

from flops_fit.errors import ArgumentError
from flops_fit.forecasts.files import Source, gather
from flops_fit.forecasts.making import fitted_by, is_same
from flops_fit.forecasts.matching import Came, came_of, is_possible, named_in
from flops_fit.forecasts.record import Forecast
from flops_fit.laws.check import Check
from flops_fit.laws.findings import Findings
from flops_fit.laws.runs.formats import Runs, open_table
from flops_fit.laws.runs.table import read_runs
from flops_fit.report.outcomes import (
    AMBIGUOUS,
    IN_DATA,
    NOT_RUN,
    OTHER_SETTING,
    SCORED,
    summary_line,
)
from flops_fit.validate import is_number
from flops_fit.warn import warn_user


class HasFindings(Protocol):
    """A `Result`, as far as this module reads it."""

    @property
    def findings(self) -> Findings:
        """The runs, fits, intervals and checks."""


def score(
    forecasts: Source | Iterable[Source],
    runs: Runs | HasFindings | Mapping[Any, HasFindings] | None = None,
    *,
    loss: float | None = None,
) -> pd.DataFrame:
    """Compare forecasts with what came out.

    A run is of a forecast's size if N and D differ by 5 % at most; of several, the mean counts. For
    the forecast of a budget, and if `runs` is a `Result`, the minimum of that budget's IsoFLOP
    curve serves where no run is of that size.

    Args:
        forecasts: A `Forecast`, the path of its file, a folder of files, or several of these.
        runs: The runs that came: a table, in the forms that `fit` reads, a `Result`, or `Results`.
            Forecasts of `fit(..., by=...)` are compared with the runs of their own group.
        loss: Instead of runs, the loss that a single forecast came to.

    Returns:
        One row per forecast, oldest first: what was forecast; `status`; `outcome` (the loss that
        came), `losses` (of each run), `error` (forecast over outcome, less 1), `inside_loss` and
        `inside_run` (whether the outcome lies in the interval of the law and of one run), and for
        budgets `best_num_params` and `inside_num_params`. `attrs["summary"]` says it in one line;
        `attrs["checks"]` lists doubts about the table, which are warned of too.
        Forecasts made from data that already held such a run are not counted, nor runs that differ
        in a condition such as the data set ("ambiguous") or that repeat their data ("other data").

    Raises:
        ArgumentError: There is no forecast, or not one of `runs` and `loss`.
        TableError: A forecast or the table cannot be read.
    """
    if (runs is None) == (loss is None):
        raise ArgumentError("give runs, or loss=... for a single forecast")
    found = gather(forecasts)
    if loss is not None:
        if len(found) > 1:
            raise ArgumentError(f"loss: expected a single forecast, got {len(found)}: pass runs")
        if not is_number(loss) or not math.isfinite(loss):
            raise ArgumentError(f"loss: expected a number, got {loss!r}")
        if not is_possible(found[0], loss):
            raise ArgumentError(f"loss: expected a positive number, got {loss!r}")
        return _table([_row(found[0], Came((float(loss),)))])
    findings = getattr(runs, "findings", None)
    if isinstance(findings, Findings):
        return outcomes_in(found, findings)
    if isinstance(runs, Mapping) and (groups := _groups(runs)):
        return _table([_in_groups(forecast, groups) for forecast in found])
    table, checks = _read(found, cast(Runs, runs))
    doubts = [str(check) for check in checks if check.severity != "note"]
    if doubts:
        warn_user(f"the table of runs: {' '.join(doubts)}")
    return _table([_row(forecast, came_of(forecast, table)) for forecast in found], doubts)


def outcomes_in(forecasts: Iterable[Forecast], findings: Findings) -> pd.DataFrame:
    """One row per forecast, with how it came out in these runs; see `score`.

    Forecasts of a sweep whose model, data, loss or recipe has changed since are not counted.
    """
    return _table([_in_findings(forecast, findings) for forecast in forecasts])


def _in_findings(forecast: Forecast, findings: Findings) -> dict[str, Any]:
    setting = findings.meta.get("setting", "")
    if setting and forecast.setting and setting != forecast.setting:
        return _row(forecast, Came()) | {"status": OTHER_SETTING}
    group = fitted_by(findings)
    if forecast.by and group and group != forecast.by:
        return _row(forecast, Came())
    came = came_of(forecast, findings.runs)
    return _row(forecast, _with_best(forecast, came, findings.optima))


def _groups(results: Mapping[Any, Any]) -> list[Findings]:
    """What was found in each group of runs; nothing if these are not results."""
    found = [getattr(result, "findings", None) for result in results.values()]
    groups = [findings for findings in found if isinstance(findings, Findings)]
    return groups if len(groups) == len(found) else []


def _in_groups(forecast: Forecast, groups: Sequence[Findings]) -> dict[str, Any]:
    """How a forecast came out in its own group of runs, or in all if it is of none."""
    for findings in groups:
        if forecast.by and fitted_by(findings) == forecast.by:
            return _in_findings(forecast, findings)
    runs = pd.concat([findings.runs for findings in groups], ignore_index=True)
    return _row(forecast, came_of(forecast, runs))


def _read(forecasts: Sequence[Forecast], runs: Runs) -> tuple[pd.DataFrame, list[Check]]:
    """A table and its doubts; settings are not compared across groups of the forecasts."""
    if not any(forecast.by for forecast in forecasts):
        return read_runs(runs)
    frame = open_table(runs)[0]
    by = {column for forecast in forecasts for column in named_in(forecast, frame)}
    return read_runs(frame, sorted(by))


def _table(rows: list[dict[str, Any]], doubts: Sequence[str] = ()) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    table.attrs["checks"] = list(doubts)
    table.attrs["summary"] = summary_line(table)
    return table


def _with_best(forecast: Forecast, came: Came, optima: pd.DataFrame) -> Came:
    """The same with the optimum of the forecast's budget, by the budget's own IsoFLOP curve."""
    if not forecast.of_budget or optima.empty:
        return came
    rows = optima[is_same(optima["compute_budget"], forecast.compute_budget)]
    if rows.empty or came.status == AMBIGUOUS:
        return came
    best: dict[str, Any] = dict(rows.iloc[0])
    if best["refused"]:
        return came if came.losses else replace(came, why_not=f"no optimum, {best['refused']}")
    return replace(came, best=best)


def _row(forecast: Forecast, came: Came) -> dict[str, Any]:
    """What was forecast, and how it came out; a judgement only of what was not known before."""
    best_N = math.nan if came.best is None else float(came.best["num_params"])
    outcome, came_from = _outcome(came)
    status = SCORED
    if forecast.known_runs:
        status = IN_DATA
    elif math.isnan(outcome):
        status = came.status if came.why_not else NOT_RUN
    row = {
        **_said(forecast),
        "status": status,
        "outcome": outcome,
        "came_from": came_from,
        "losses": list(came.losses),
        "error": math.nan,
        "inside_loss": None,
        "inside_run": None,
        "best_num_params": best_N,
        "inside_num_params": None,
    }
    if status == SCORED:
        row["error"] = forecast.loss / outcome - 1 if outcome else math.inf
        row["inside_loss"] = _inside(outcome, forecast.loss_interval)
        row["inside_run"] = _inside(outcome, forecast.run_interval)
        if came.best is not None and forecast.num_params_interval is not None:
            row["inside_num_params"] = _inside(best_N, forecast.num_params_interval)
    return row


def _outcome(came: Came) -> tuple[float, str]:
    """The loss that came, and of what it is the loss."""
    if came.losses:
        n = len(came.losses)
        return float(np.mean(came.losses)), "run" if n == 1 else f"mean of {n} runs"
    if came.best is not None:
        return float(came.best["loss"]), "minimum of the budget's curve"
    return math.nan, came.why_not


def _said(forecast: Forecast) -> dict[str, Any]:
    """What was forecast, as columns."""
    plain = asdict(forecast)
    names = (
        "id", "made_at", "name", "note", "of_budget", "compute_budget", "num_params", "num_tokens",
        "data_unit", "loss",
    )  # fmt: skip
    columns = {name: plain[name] for name in names} | {"by": forecast.group}
    for name in ("loss", "run"):
        columns[f"{name}_low"], columns[f"{name}_high"] = plain[f"{name}_interval"]
    return columns


def _inside(value: float, interval: tuple[float, float]) -> bool:
    return interval[0] <= value <= interval[1]
