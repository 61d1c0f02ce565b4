"""Tables of the report on decisions: metrics to expect, what to train in some hours, and rounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from flops_fit.display import number_text
from flops_fit.errors import ArgumentError, FitError
from flops_fit.laws.findings import Findings
from flops_fit.laws.metrics.law import MetricLaw
from flops_fit.laws.predict.paths import UNCONSTRAINED
from flops_fit.laws.predict.prediction import Prediction, predict_budget
from flops_fit.laws.spending.request import Budget
from flops_fit.laws.spending.time_optimal import flops_in, predict_spending
from flops_fit.laws.timing.speed import speed_of

FACTORS = (1.0, 10.0, 100.0)  # of the largest budget, for metrics
# Times of the table, in hours; those whose budget lies in a range about the largest one are shown.
HOURS = (1 / 360, 1 / 60, 1 / 6, 1.0, 8.0, 24.0, 168.0, 720.0)
MOST_ROWS = 4
LEAST_FACTOR = 0.5


@dataclass(frozen=True)
class TimeTable:
    """What to train in some hours.

    Attributes:
        speed: How fast the runs trained, as text.
        cells: One row per time.
    """

    speed: str
    cells: pd.DataFrame


def metrics_as_cells(findings: Findings) -> pd.DataFrame:
    """What each metric will be at a few budgets, as text; why not, where it has no forecast."""
    budgets = [factor * findings.largest_budget for factor in FACTORS]
    rows = []
    for law in findings.metrics.values():
        row = {"metric": law.name}
        for C in budgets:
            row[f"{number_text.flops(C)} FLOPs"] = _value(findings, law, C)
        row["by"] = law.refused or ", ".join(
            f"{name} {number_text.percent(share)}" if len(law.forms) > 1 else name
            for name, share in law.approaches.items()
        )
        row["back-test"] = _backtest(law)
        rows.append(row)
    return pd.DataFrame(rows)


def _value(findings: Findings, law: MetricLaw, C: float) -> str:
    if law.refused:
        return ""
    try:
        metric = predict_budget(findings, C, UNCONSTRAINED, metric=law.name).metric
    except (FitError, ArgumentError):
        return number_text.NOT_KNOWN
    assert metric is not None
    return number_text.with_interval(metric.value, metric.interval, number_text.loss)


def _backtest(law: MetricLaw) -> str:
    """The error on the held-out largest budget."""
    tested = law.backtest
    if law.refused or not len(tested) or law.chosen not in set(tested["form"]):
        return ""
    first = tested[tested["form"] == law.chosen].iloc[0]
    error = first["rmse"]
    if law.in_log:
        return f"{number_text.percent(error)} off"
    return f"{error:.2g} off"


def time_table(findings: Findings) -> TimeTable | None:
    """What to train in some hours on one device; None where the times of the runs are not known."""
    speed = speed_of(findings.runs)
    if speed is None or findings.law is None:
        return None
    found: list[Prediction] = []
    for hours in HOURS:
        C = flops_in(findings, speed, 3600 * hours)
        if len(found) == MOST_ROWS or LEAST_FACTOR * findings.largest_budget > C:
            continue
        try:
            found.append(predict_spending(findings, Budget(hours=hours), UNCONSTRAINED))
        except (FitError, ArgumentError):
            break
    if not found:
        return None
    slowest = float(np.exp(speed.log_seconds(np.log(np.array([speed.largest])), findings.cost)[0]))
    unit = findings.meta.get("data_unit", "tokens")
    text = (
        f"{speed.num_runs} runs were timed. The largest model, {number_text.count(speed.largest)} "
        f"parameters, trains on {number_text.count(1 / slowest)} {unit} a second; times scatter "
        f"by {number_text.percent(speed.step.scatter)}."
    )
    return TimeTable(text, pd.DataFrame([_time_row(one, unit) for one in found]))


def _time_row(prediction: Prediction, unit: str) -> dict[str, str]:
    spending = prediction.spending
    assert spending is not None
    count, loss = number_text.count, number_text.loss
    size, other_loss = spending.compute_optimal
    row = {
        "time on one device": number_text.duration(3600 * spending.hours),
        "N, parameters": number_text.with_interval(
            prediction.num_params, prediction.num_params_interval, count
        ),
        f"D, {unit}": number_text.with_interval(
            prediction.num_tokens, prediction.num_tokens_interval, count
        ),
        "loss": number_text.with_interval(prediction.loss, prediction.loss_interval, loss),
    }
    if prediction.size is not None:
        row[prediction.size_param] = str(prediction.size)
    return {
        **row,
        "C, FLOPs": number_text.flops(prediction.compute_budget),
        "compute-optimal N": count(size),
        "its loss": loss(other_loss),
    }


def rounds_as_cells(findings: Findings) -> pd.DataFrame:
    """How precise the answer was at each round, and what came next and why, as text."""
    rows = []
    for row in findings.rounds.to_dict("records"):
        spans = (row["span"], row["loss_span"])
        N, loss = (number_text.ratio(s) if np.isfinite(s) else number_text.NOT_KNOWN for s in spans)
        rows.append(
            {
                "FLOPs spent": number_text.flops(row["flops"]),
                "runs": number_text.whole(row["num_runs"]),
                "N_opt spans": N,
                "loss spans": loss,
                "then": "; ".join(row["next"]) or row["message"].rpartition(". ")[2],
            }
        )
    return pd.DataFrame(rows)
