"""`Prediction`: the model to train for one compute budget, and the doubts about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from flops_fit.display import html, number_text
from flops_fit.display.number_text import count, flops, percent
from flops_fit.errors import ArgumentError
from flops_fit.laws.check import Check, Checks
from flops_fit.laws.checks.of_predictions import (
    NOT_RELIABLE,
    check_prediction,
    check_published_constants,
    check_ratio,
    check_recipe,
    check_without_law,
    check_worn_out_data,
)
from flops_fit.laws.findings import Findings
from flops_fit.laws.metrics.values import MetricValue, metric_value
from flops_fit.laws.predict.intervals import PART, WEIGHT, predict_intervals
from flops_fit.laws.predict.known import check_known
from flops_fit.laws.predict.paths import Terms, repetition_law
from flops_fit.laws.predict.reach import is_vague, require_narrow, require_reach, vague_text
from flops_fit.laws.predict.size_lookup import size_to_build
from flops_fit.records import Size
from flops_fit.validate import is_positive, raise_problems

# The smallest cap on unique tokens that is accepted, as a share of the unconstrained D.
LEAST_SHARE = 1e-6


@dataclass(frozen=True)
class Spending:
    """What a prediction spends: time, and money if a price was given.

    Attributes:
        hours: From the start of training to its end, on all devices.
        devices: Number of devices, which are assumed to share the work without loss.
        price: In the currency of `price_per_hour`; NaN where none was given.
        price_per_hour: Of one device; NaN where none was given.
        tokens_per_second: Units of D trained on per second, on all devices.
        tokens_per_second_interval: Its 95 % interval, by the runs that were timed.
        compute_optimal: N and loss of the compute-optimal model that trains as long.
    """

    hours: float
    devices: int
    price: float
    price_per_hour: float
    tokens_per_second: float
    tokens_per_second_interval: tuple[float, float]
    compute_optimal: tuple[float, float]

    def __str__(self) -> str:
        devices = "1 device" if self.devices == 1 else f"{self.devices} devices"
        price = f" for {number_text.ratio(self.price)}" if np.isfinite(self.price) else ""
        return f"{number_text.duration(3600 * self.hours)} on {devices}{price}"

    def lines(self, unit: str) -> list[str]:
        """The speed, and what a compute-optimal model would reach, as text."""
        size, loss = self.compute_optimal
        speed = number_text.with_interval(
            self.tokens_per_second, self.tokens_per_second_interval, number_text.count
        )
        return [
            f"at {speed} {unit} a second",
            f"the compute-optimal model that trains as long: N {count(size)}, "
            f"loss {number_text.loss(loss)}",
        ]


@dataclass(frozen=True, repr=False)
class Prediction:
    """The model to train for one compute budget. Intervals are (low, high) at 95 %.

    An interval that says nothing is (0, inf): see the check `not-known`.

    Attributes:
        compute_budget: C, FLOPs.
        num_params: N.
        num_tokens: D, tokens or examples.
        tokens_per_param: D / N.
        loss: Expected loss.
        size: Value of the size parameter to build; None where the runs record no size.
        extrapolation: C over the largest budget of the sweep.
        num_params_interval: Interval of N.
        num_tokens_interval: Interval of D.
        loss_interval: Interval of the law's loss at N and D.
        new_run_interval: Interval of the loss that one further run there would reach.
        interval_parts: What the intervals consist of: half-widths at 95 % by "parameters" of the
            law, "misfit" of the law, "recipe" (what following an uncertain recipe costs) and, for a
            new run, "noise"; of the loss in its own unit under "loss", and of ln N under
            "log_num_params".
        approaches: How much each approach counts in N; empty if the law decides alone.
        checks: Doubts about this prediction.
        data_unit: What D counts.
        learning_rate: Peak learning rate for this batch size; None where no recipe was found.
        batch_size: Examples a step: the best, or fewer for 1,000 steps if that costs little.
        learning_rate_interval: Interval of the best learning rate at N and D.
        batch_size_interval: Interval of the best batch size at N and D.
        size_param: Name of the size parameter.
        metric: The metric that was asked for, with its intervals; else None.
        spending: What is spent, where a time or an amount of money was given; else None.
    """

    compute_budget: float
    num_params: float
    num_tokens: float
    tokens_per_param: float
    loss: float
    size: Size | None
    extrapolation: float
    num_params_interval: tuple[float, float]
    num_tokens_interval: tuple[float, float]
    loss_interval: tuple[float, float]
    new_run_interval: tuple[float, float]
    checks: Checks = field(default_factory=Checks)
    interval_parts: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    approaches: Mapping[str, float] = field(default_factory=dict)
    data_unit: str = "tokens"
    learning_rate: float | None = None
    batch_size: int | None = None
    learning_rate_interval: tuple[float, float] | None = None
    batch_size_interval: tuple[float, float] | None = None
    size_param: str = "size"
    metric: MetricValue | None = None
    spending: Spending | None = None

    def __repr__(self) -> str:
        rows = self._rows()
        width = max(11, *(len(name) + 1 for name, *_ in rows))
        lines = [
            self._headline,
            *(
                f"  {name:<{width}}{value}{f' (95 %: {interval})' if interval else ''}{remark}"
                for name, value, interval, remark in rows
            ),
            *(f"  {line}" for line in self._sources()),
            *(f"  {check}" for check in self.checks),
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        cells = [(name, value + remark, interval) for name, value, interval, remark in self._rows()]
        table = html.rows(cells, ("", "prediction", "95 %"))
        sources = html.block(self._sources())
        doubts = self.checks._repr_html_() if self.checks else ""
        return html.block([self._headline], table, sources, doubts)

    @property
    def _headline(self) -> str:
        beyond = number_text.times(self.extrapolation)
        text = f"{number_text.flops(self.compute_budget)} FLOPs, {beyond} times the largest budget"
        return text if self.spending is None else f"{self.spending}: {text}"

    def _rows(self) -> list[tuple[str, str, str, str]]:
        """What is predicted: name, value, interval and remark, as text."""
        count, loss, ratio = number_text.count, number_text.loss, number_text.ratio
        batch = number_text.whole
        size = "" if self.size is None else f", {self.size_param} {self.size}"
        unit = self.data_unit
        values = [
            ("parameters", self.num_params, self.num_params_interval, count, size),
            (unit, self.num_tokens, self.num_tokens_interval, count, ""),
            ("loss", self.loss, self.loss_interval, loss, ""),
            ("learning rate", self.learning_rate, self.learning_rate_interval, ratio, ""),
            ("batch", self.batch_size, self.batch_size_interval, batch, " examples a step"),
        ]
        rows = [
            (name, form(value), number_text.between(*interval, form), remark)
            for name, value, interval, form, remark in values
            if value is not None and interval is not None and np.isfinite(value)
        ]
        if self.metric is not None:
            interval = number_text.between(*self.metric.interval, loss)
            after = next((i + 1 for i, row in enumerate(rows) if row[0] == "loss"), len(rows))
            rows.insert(after, (self.metric.name, loss(self.metric.value), interval, ""))
        rows.insert(2, ("D / N", ratio(self.tokens_per_param), "", f" {unit} per parameter"))
        return rows

    def _sources(self) -> list[str]:
        """Where N and the interval of the loss come from, as text."""
        lines = []
        if len(self.approaches) > 1:
            counts = ", ".join(
                f"{name} {percent(share)}" for name, share in self.approaches.items()
            )
            lines.append(f"parameters by {counts}")
        parts = self.interval_parts.get("loss", {})
        if np.isfinite([self.loss, *self.loss_interval, *parts.values()]).all():
            listed = ", ".join(f"{part:.2g} {name}" for name, part in parts.items())
            lines += [f"loss ± {listed} of a new run"] if parts else []
        lines += [self.metric.source] if self.metric is not None else []
        return lines + (self.spending.lines(self.data_unit) if self.spending else [])


def predict_budget(
    findings: Findings,
    compute_budget: float,
    terms: Terms,
    *,
    metric: str | None = None,
    anyway: bool = False,
) -> Prediction:
    """Predict the model to train for one compute budget.

    Args:
        findings: The fitted laws.
        compute_budget: C in FLOPs.
        terms: The constraint to satisfy.
        metric: A metric to forecast too.
        anyway: Whether a prediction far beyond the runs is wanted nevertheless (`reach`).

    Raises:
        ArgumentError: The budget or the constraint is not a positive number, or cannot be met.
        FitError: No law was fitted, or none that reaches so far.
    """
    raise_problems(faults_of(compute_budget, terms))
    C = float(compute_budget)
    _require_enough_data(findings, C, terms)
    require_reach(findings, np.array([C]), anyway=anyway)
    frame = predict_intervals(findings, np.array([C]), terms)
    require_narrow(findings, frame, anyway=anyway)
    row = {str(column): float(value) for column, value in frame.iloc[0].items()}
    _require_affordable(row, terms)
    measure = None
    if metric is not None:
        repeats = terms.unique_tokens is not None and row["num_tokens"] > terms.unique_tokens
        measure = metric_value(findings.metrics, findings.law, metric, row, repeats=bool(repeats))
    return Prediction(
        compute_budget=C,
        num_params=row["num_params"],
        num_tokens=row["num_tokens"],
        tokens_per_param=row["tokens_per_param"],
        loss=row["loss"],
        size=size_to_build(findings, row["num_params"]),
        extrapolation=C / findings.largest_budget,
        num_params_interval=_interval(row, "num_params"),
        num_tokens_interval=_interval(row, "num_tokens"),
        loss_interval=_interval(row, "loss"),
        new_run_interval=_interval(row, "new_run"),
        checks=Checks(_checks(findings, row, terms)),
        interval_parts={
            "loss": _prefixed(row, f"{PART}loss_"),
            "log_num_params": _prefixed(row, f"{PART}num_params_"),
        },
        approaches=_prefixed(row, WEIGHT),
        data_unit=findings.meta.get("data_unit", "tokens"),
        size_param=findings.meta.get("size_param", "size"),
        metric=measure,
        **_recipe_fields(row),
    )


def _recipe_fields(row: Mapping[str, float]) -> dict[str, Any]:
    """Learning rate and batch size with their intervals, as far as they are known."""
    fields: dict[str, Any] = {}
    if "learning_rate" in row:
        fields["learning_rate"] = row["learning_rate"]
        fields["learning_rate_interval"] = _interval(row, "learning_rate")
    if "batch_size" in row:
        fields["batch_size"] = round(row["batch_size"])
        fields["batch_size_interval"] = _interval(row, "batch_size")
    return fields


def _checks(findings: Findings, row: Mapping[str, float], terms: Terms) -> list[Check]:
    """Every doubt about the prediction in `row`."""
    curve = findings.cost.curve
    checks = check_prediction(
        row["compute_budget"] / findings.largest_budget,
        has_interval=findings.law is not None,
        cost_extrapolated=curve is not None and bool(curve.extrapolates(row["num_params"])),
    )
    checks += check_known(row)
    if is_vague(findings, pd.DataFrame([row])).any():
        message = f"{vague_text()}, beyond the reach of the runs: {NOT_RELIABLE}."
        checks.append(Check("beyond-reach", "warn", message, "Add a budget nearer to it."))
    if findings.recipe_law is not None:
        checks += check_recipe(findings.recipe_law, row, findings.largest_budget)
    if findings.law is None:
        checks += check_without_law(findings.power_laws)
    unit = findings.meta.get("data_unit", "tokens")
    if terms.tokens_per_param is not None or terms.inference_tokens is not None:
        checks += check_ratio(row["tokens_per_param"], findings.fitted_runs, unit)
    if terms.unique_tokens is not None:
        law = repetition_law(findings)
        unique_tokens = float(terms.unique_tokens)
        checks += check_worn_out_data(law, row["num_tokens"], unique_tokens, unit)
        checks += check_published_constants(law, row["num_tokens"], unique_tokens)
    return checks


def _interval(row: Mapping[str, float], name: str) -> tuple[float, float]:
    return row[f"{name}_low"], row[f"{name}_high"]


def _prefixed(row: Mapping[str, float], prefix: str) -> dict[str, float]:
    """The cells of the columns that begin with a prefix, by the rest of their names."""
    return {
        name.removeprefix(prefix): value for name, value in row.items() if name.startswith(prefix)
    }


def faults_of(compute_budget: object, terms: Terms) -> list[str]:
    """What is wrong with a budget and a constraint."""
    given = {"compute_budget": compute_budget, **terms.given}
    given.pop("wall_time", None)
    faults = [
        f"{name}: expected a positive number, got {value!r}"
        for name, value in given.items()
        if not is_positive(value)
    ]
    if len(terms.given) > 1:
        faults.append(f"give one of {', '.join(terms.given)}, not several")
    return faults


def _require_enough_data(findings: Findings, C: float, terms: Terms) -> None:
    """Refuse a cap on unique tokens far below anything the repetition law was measured on."""
    if terms.unique_tokens is None or findings.law is None:
        return
    cap, unconstrained = float(terms.unique_tokens), float(findings.law.d_opt(C))
    least = max(LEAST_SHARE * unconstrained, 1.0)
    if cap < least:
        raise ArgumentError(
            f"unique_tokens: {count(cap)} are too few for {flops(C)} FLOPs, whose optimum without "
            f"repetition has {count(unconstrained)}: expected at least {count(least)}"
        )


def _require_affordable(row: Mapping[str, float], terms: Terms) -> None:
    if not (row["num_tokens"] >= 1 and row["num_params"] >= 1):
        asked = (
            "so short a time"
            if terms.wall_time
            else ", ".join(f"{name}={value:g}" for name, value in terms.given.items())
        )
        raise ArgumentError(
            f"{flops(row['compute_budget'])} FLOPs are too few for {asked or 'any model'}: use "
            "a larger budget"
        )
