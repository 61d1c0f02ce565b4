"""The model of least loss that can be trained in a given time, at the speed of the runs.

Compute-optimal is not time-optimal: a small model leaves a device idle between its steps, so that
a larger one on fewer FLOPs' worth of data may reach a lower loss in the same time. With s(N) the
seconds of a token (`timing`), D = T / s(N), and N minimises L(N, T / s(N)).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flops_fit.display.number_text import count, times
from flops_fit.errors import FitError
from flops_fit.laws.check import Check, Checks, Severity
from flops_fit.laws.findings import Findings
from flops_fit.laws.inference.intervals import NORMAL
from flops_fit.laws.model.frontier import log_flops_per_token
from flops_fit.laws.predict.paths import Terms, WallTime, path
from flops_fit.laws.predict.prediction import Prediction, Spending, predict_budget
from flops_fit.laws.spending.request import Budget
from flops_fit.laws.timing.speed import Speed, speed_of
from flops_fit.validate import raise_problems

# Beyond so many times the largest model timed, its speed is no more a matter of small steps.
NEAR = 1.1
FAR = 10.0
# A speed that scatters so much says little.
WIDE = 0.3
_BRACKET, _HALVINGS = 60.0, 60  # of ln C, for the compute-optimal model


def predict_spending(
    findings: Findings,
    budget: Budget,
    terms: Terms,
    *,
    metric: str | None = None,
    anyway: bool = False,
) -> Prediction:
    """Predict the model to train for FLOPs, hours or money.

    Args:
        findings: The fitted laws.
        budget: What may be spent.
        terms: A constraint on the model, for a budget in FLOPs.
        metric: A metric to forecast too.
        anyway: Whether a prediction far beyond the runs is wanted nevertheless.

    Raises:
        ArgumentError: Listing everything that is wrong with the budget and the constraint.
        FitError: No law was fitted, none that reaches so far, or no run has its time.
    """
    raise_problems(budget.faults(terms))
    if budget.compute_budget is not None:
        C = budget.compute_budget
        return predict_budget(findings, C, terms, metric=metric, anyway=anyway)
    speed = speed_or_refuse(findings)
    seconds = 3600 * budget.total_hours * budget.devices
    terms = Terms(wall_time=WallTime(seconds, speed))
    C = flops_in(findings, speed, seconds)
    found = predict_budget(findings, C, terms, metric=metric, anyway=anyway)
    x = np.log(found.num_params)
    C = float(np.exp(log_flops_per_token(np.array(x), findings.cost)) * found.num_tokens)
    return replace(
        found,
        compute_budget=C,
        extrapolation=C / findings.largest_budget,
        spending=_spending(findings, budget, speed, found),
        checks=Checks([*found.checks, *_checks(speed, budget, found)]),
    )


def speed_or_refuse(findings: Findings) -> Speed:
    """How long models take to train, by the runs.

    Raises:
        FitError: No law was fitted, or no run has its time.
    """
    speed = speed_of(findings.runs)
    if findings.law is None:
        raise FitError("no law could be fitted to these runs: see the checks.", findings.checks)
    if speed is None:
        raise FitError(
            "no run has its time: expected a column of seconds, such as wall_time_s, beside the "
            "losses. Predict for FLOPs instead."
        )
    return speed


def flops_in(findings: Findings, speed: Speed, device_seconds: float) -> float:
    """C of the law's best model for a time."""
    terms = Terms(wall_time=WallTime(device_seconds, speed))
    x, y, _ = path(findings, findings.law_vector, np.ones(1), terms)
    return float(np.exp(log_flops_per_token(x, findings.cost) + y)[0, 0])


def _spending(findings: Findings, budget: Budget, speed: Speed, found: Prediction) -> Spending:
    x = np.log(np.array([found.num_params]))
    rate = budget.devices / float(np.exp(speed.log_seconds(x, findings.cost)[0]))
    error = NORMAL * float(speed.log_error(x, findings.cost)[0])
    seconds = 3600 * budget.total_hours * budget.devices
    return Spending(
        budget.total_hours,
        budget.devices,
        budget.total_price,
        budget.price_per_hour or np.nan,
        rate,
        (rate * np.exp(-error), rate * np.exp(error)),
        compute_optimal(findings, speed, seconds),
    )


def compute_optimal(findings: Findings, speed: Speed, device_seconds: float) -> tuple[float, float]:
    """N and loss, by the law, of the compute-optimal model that trains for a time."""
    law = findings.law
    assert law is not None
    low = np.log(findings.largest_budget) - _BRACKET
    high = low + 2 * _BRACKET
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        N, D = float(law.n_opt(np.exp(middle))), float(law.d_opt(np.exp(middle)))
        log_time = np.log(D) + float(speed.log_seconds(np.log(np.array([N])), findings.cost)[0])
        low, high = (middle, high) if log_time < np.log(device_seconds) else (low, middle)
    return N, float(law.loss(N, D))


def _checks(speed: Speed, budget: Budget, found: Prediction) -> list[Check]:
    """What is doubtful of the time."""
    checks = []
    factor = found.num_params / speed.largest
    if factor > NEAR:
        severity: Severity = "warn" if factor > FAR else "note"
        message = (
            f"the speed is extrapolated: N is {times(factor)} times the largest model timed, "
            f"{count(speed.largest)}."
        )
        advice = "Time a few steps of a model of this size."
        checks.append(Check("speed-extrapolated", severity, message, advice))
    if budget.devices > 1:
        message = (
            f"{budget.devices} devices are assumed to train {budget.devices} times as fast as what "
            "trained each run: no run measured that."
        )
        advice = "Data-parallel training scales less; time a few steps on all devices."
        checks.append(Check("scaling-assumed", "warn", message, advice))
    if speed.step.scatter > WIDE:
        message = (
            f"the times of the runs scatter by {100 * speed.step.scatter:.0f} % about any law of "
            "their size, so that the speed is hardly known."
        )
        advice = "Runs that shared their device, or different devices, do that."
        checks.append(Check("speed-scatters", "warn", message, advice))
    return checks
