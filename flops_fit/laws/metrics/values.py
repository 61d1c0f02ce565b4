"""Metrics at predicted models: the value, its 95 % interval, and that of one new run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from flops_fit.display.number_text import between, loss, percent
from flops_fit.errors import ArgumentError, FitError
from flops_fit.laws.metrics.forms import Places
from flops_fit.laws.metrics.law import Losses, MetricForecast, MetricLaw
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.frontier import log_flops_per_token
from flops_fit.laws.model.parametric_law import ParametricLaw

NOTHING = (
    "its 95 % interval spans nearly all that the metric can be: the runs do not determine it there"
)


@dataclass(frozen=True)
class MetricValue:
    """A metric of a predicted model. Intervals are (low, high) at 95 %.

    Attributes:
        name: The metric.
        value: Its expected value.
        interval: Interval of its mean over runs.
        new_run_interval: Interval of one further run.
        form: The form of its law, chosen by back-test.
        approaches: How much each form counts in the interval.
    """

    name: str
    value: float
    interval: tuple[float, float]
    new_run_interval: tuple[float, float]
    form: str
    approaches: Mapping[str, float] = field(default_factory=dict)

    @property
    def source(self) -> str:
        """Where it comes from, as text."""
        shares = ", ".join(f"{name} {percent(share)}" for name, share in self.approaches.items())
        run = between(*self.new_run_interval, loss)
        return f"{self.name} by {shares if len(self.approaches) > 1 else self.form}; one run {run}"


def law_of(metrics: Mapping[str, MetricLaw], name: str) -> MetricLaw:
    """The law of a metric, by its name or by its column.

    Raises:
        ArgumentError: There is no such metric.
        FitError: It has no forecast.
    """
    by_name = {**{law.column: law for law in metrics.values()}, **metrics}
    law = by_name.get(name) if isinstance(name, str) else None
    if law is None:
        known = ", ".join(metrics) or (
            "none: pass find_optimal(..., metrics={...}) or fit(..., metrics=[...])"
        )
        raise ArgumentError(f"metric: expected one of the result's metrics, got {name!r}: {known}")
    if law.refused:
        raise FitError(f"no forecast of the metric {law.name!r}: {law.refused}")
    return law


def metric_value(
    metrics: Mapping[str, MetricLaw],
    loss_law: ParametricLaw | None,
    name: str,
    row: Mapping[str, float],
    *,
    repeats: bool = False,
) -> MetricValue:
    """A metric of the model in one row of the predictions.

    Args:
        metrics: The laws of the metrics.
        loss_law: The law of the loss; None if none could be fitted, and so none of a metric.
        name: The metric.
        row: The prediction.
        repeats: Whether the model sees its data more than once, which compute does not tell.

    Raises:
        ArgumentError: There is no such metric.
        FitError: It has no forecast, or none that says anything of this model.
    """
    law = law_of(metrics, name)
    assert loss_law is not None
    if repeats:
        law = law.through_the_loss()
    found = forecast(law, loss_law, pd.DataFrame([row]))
    low, high, run_low, run_high = (
        float(end[0]) for end in (found.low, found.high, found.run_low, found.run_high)
    )
    if np.isnan(low):
        C = row["compute_budget"]
        raise FitError(f"no forecast of the metric {law.name!r} at {C:.3g} FLOPs: {NOTHING}.")
    return MetricValue(
        law.name,
        float(found.value[0]),
        (low, high),
        (run_low, run_high),
        law.chosen,
        law.approaches,
    )


def forecast(law: MetricLaw, loss_law: ParametricLaw, frame: pd.DataFrame) -> MetricForecast:
    """A metric of each model of a table of predictions.

    Args:
        law: The law of the metric.
        loss_law: The law of the loss.
        frame: Predictions, as `predict_intervals` returns.
    """
    N, D = (frame[name].to_numpy(float) for name in ("num_params", "num_tokens"))
    # What training alone costs: a budget may pay for serving too.
    log_C = log_flops_per_token(np.log(N), loss_law.cost) + np.log(D)
    off = np.log(N) - np.log(loss_law.n_opt(np.exp(log_C)))
    ends = ("loss", "loss_low", "loss_high", "new_run_low", "new_run_high")
    losses = Losses(*(frame[name].to_numpy(float) for name in ends))
    with np.errstate(all="ignore"):
        return law.forecast(Places(losses.value, log_C, off), losses)


def at_losses(law: MetricLaw, losses: Array) -> MetricForecast:
    """A metric at given losses, by its forms of the loss, without an error of the loss.

    Args:
        law: The law of the metric.
        losses: Losses, shape (k,).
    """
    log_C = np.full_like(losses, law.largest[1])
    places = Places(losses, log_C, np.zeros_like(losses))
    return law.through_the_loss().forecast(places, Losses(*([losses] * 5)))


def with_metrics(
    metrics: Mapping[str, MetricLaw], loss_law: ParametricLaw | None, frame: pd.DataFrame
) -> tuple[pd.DataFrame, list[str]]:
    """A table of predictions with its metrics, and the names of their columns.

    Args:
        metrics: The laws of the metrics.
        loss_law: The law of the loss; None if none could be fitted.
        frame: Predictions, as `predict_intervals` returns.
    """
    columns: dict[str, np.ndarray] = {}
    for law in metrics.values():
        if loss_law is not None and not law.refused:
            found = forecast(law, loss_law, frame)
            ends = {"": found.value, "_low": found.low, "_high": found.high}
            columns |= {f"{law.column}{end}": values for end, values in ends.items()}
    return frame.assign(**columns), list(columns)
