"""How forecasts came out: each is compared with the runs of its size.

A run is of a forecast's size if its N and its D differ by 5 % at most. Its loss is moved along the
forecast's law to the forecast's own N and D, so that this difference is not taken for an error.
Several runs are seeds, and their mean counts; runs whose learning rate or setting was worse than
another's are left out. The forecast of a budget can also be compared with the minimum of that
budget's IsoFLOP curve.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Protocol

import numpy as np
import pandas as pd

from flops_fit.errors import ArgumentError
from flops_fit.forecasts.files import Source, gather
from flops_fit.forecasts.making import is_same
from flops_fit.forecasts.record import Forecast
from flops_fit.laws.findings import Findings
from flops_fit.laws.model.frontier import loss_at
from flops_fit.laws.runs.formats import Runs
from flops_fit.laws.runs.table import read_runs
from flops_fit.report.outcomes import IN_DATA, NOT_RUN, OTHER_SETTING, SCORED, summary_line
from flops_fit.validate import is_number

# Runs that the law's own screen calls outliers came out as they did: they count.
OUTLIER = "outlier"


class HasFindings(Protocol):
    """A `Result`, as far as this module reads it."""

    @property
    def findings(self) -> Findings:
        """The runs, fits, intervals and checks."""


def score(
    forecasts: Source | Iterable[Source],
    runs: Runs | HasFindings | None = None,
    *,
    loss: float | None = None,
) -> pd.DataFrame:
    """Compare forecasts with what came out.

    A run is of a forecast's size if N and D differ by 5 % at most; of several, the mean counts. For
    the forecast of a budget, and if `runs` is a `Result`, the minimum of that budget's IsoFLOP
    curve serves where no run is of that size.

    Args:
        forecasts: A `Forecast`, the path of its file, a folder of files, or several of these.
        runs: The runs that came: a table, in the forms that `fit` reads, or a `Result`.
        loss: Instead of runs, the loss that a single forecast came to.

    Returns:
        One row per forecast, oldest first: what was forecast; `status`; `outcome` (the loss that
        came), `losses` (of each run), `error` (forecast over outcome, less 1), `inside_loss` and
        `inside_run` (whether the outcome lies in the interval of the law and of one run), and for
        budgets `best_num_params` and `inside_num_params`. `attrs["summary"]` says it in one line.
        Forecasts made from data that already held such a run are not counted.

    Raises:
        ArgumentError: There is no forecast, or not one of `runs` and `loss`.
        TableError: A forecast or the table cannot be read.
    """
    if (runs is None) == (loss is None):
        raise ArgumentError("give runs, or loss=... for a single forecast")
    found = gather(forecasts)
    if loss is not None:
        if not is_number(loss) or not math.isfinite(loss):
            raise ArgumentError(f"loss: expected a number, got {loss!r}")
        if len(found) > 1:
            raise ArgumentError(f"loss: expected a single forecast, got {len(found)}: pass runs")
        return _table([_row(found[0], [float(loss)], None)])
    findings = getattr(runs, "findings", None)
    if isinstance(findings, Findings):
        return outcomes_in(found, findings)
    came = _came(read_runs(runs)[0])  # type: ignore[arg-type]
    return _table([_row(forecast, _losses(forecast, came), None) for forecast in found])


def outcomes_in(forecasts: Iterable[Forecast], findings: Findings) -> pd.DataFrame:
    """One row per forecast, with how it came out in these runs; see `score`.

    Forecasts of a sweep whose model, data, loss or recipe has changed since are not counted.
    """
    came, setting = _came(findings.runs), findings.meta.get("setting", "")
    rows = []
    for forecast in forecasts:
        if setting and forecast.setting and setting != forecast.setting:
            rows.append({**_row(forecast, [], None), "status": OTHER_SETTING})
        else:
            losses, best = _losses(forecast, came), _best(forecast, findings.optima)
            rows.append(_row(forecast, losses, best))
    return _table(rows)


def _came(runs: pd.DataFrame) -> pd.DataFrame:
    """The finished runs that count."""
    excluded = runs["excluded"].astype(str)
    counts = (excluded == "") | excluded.str.startswith(OUTLIER)
    return runs[counts & np.isfinite(runs["loss"].astype(float))]


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows)
    table.attrs["summary"] = summary_line(table)
    return table


def _losses(forecast: Forecast, came: pd.DataFrame) -> list[float]:
    """The losses of the runs of a forecast's size, moved to its own N and D."""
    same = is_same(came["num_params"], forecast.num_params)
    same &= is_same(came["num_tokens"], forecast.num_tokens)
    found = came[same]
    N, D = (found[name].to_numpy(float) for name in ("num_params", "num_tokens"))
    moved = found["loss"].to_numpy(float) - _law(forecast, N, D)
    moved += _law(forecast, np.array([forecast.num_params]), np.array([forecast.num_tokens]))
    return [float(loss) for loss in moved]


def _law(forecast: Forecast, N: np.ndarray, D: np.ndarray) -> np.ndarray:
    return loss_at(np.array([forecast.law_vector]), np.log(N), np.log(D))[0]


def _best(forecast: Forecast, optima: pd.DataFrame) -> pd.Series | None:
    """The optimum of the forecast's budget, from the budget's own IsoFLOP curve."""
    if not forecast.of_budget or optima.empty:
        return None
    sound = (optima["refused"].astype(str) == "") & optima["interior"].astype(bool)
    rows = optima[sound & is_same(optima["compute_budget"], forecast.compute_budget)]
    return None if rows.empty else rows.iloc[0]


def _row(forecast: Forecast, losses: list[float], best: pd.Series | None) -> dict[str, Any]:
    outcome = float(np.mean(losses)) if losses else math.nan
    came_from = "" if not losses else "run" if len(losses) == 1 else f"mean of {len(losses)} runs"
    if not losses and best is not None:
        outcome, came_from = float(best["loss"]), "minimum of the budget's curve"
    status = IN_DATA if forecast.known_runs else NOT_RUN if math.isnan(outcome) else SCORED
    told = status == SCORED
    best_N = math.nan if best is None else float(best["num_params"])
    return {
        **_said(forecast),
        "status": status,
        "outcome": outcome,
        "came_from": came_from,
        "losses": losses,
        "error": forecast.loss / outcome - 1 if told else math.nan,
        "inside_loss": _inside(outcome, forecast.loss_interval) if told else None,
        "inside_run": _inside(outcome, forecast.run_interval) if told else None,
        "best_num_params": best_N,
        "inside_num_params": (
            _inside(best_N, forecast.num_params_interval)
            if told and best is not None and forecast.num_params_interval is not None
            else None
        ),
    }


def _said(forecast: Forecast) -> dict[str, Any]:
    """What was forecast, as columns."""
    plain = asdict(forecast)
    names = (
        "id", "made_at", "name", "note", "of_budget", "compute_budget", "num_params", "num_tokens",
        "data_unit", "loss",
    )  # fmt: skip
    columns = {name: plain[name] for name in names}
    for name in ("loss", "run"):
        columns[f"{name}_low"], columns[f"{name}_high"] = plain[f"{name}_interval"]
    return columns


def _inside(value: float, interval: tuple[float, float]) -> bool:
    return interval[0] <= value <= interval[1]
