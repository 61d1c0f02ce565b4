"""Checks of the laws of metrics: which have no forecast and why, and which are doubtful."""

from __future__ import annotations

from collections.abc import Iterable

from flops_fit.laws.check import Check
from flops_fit.laws.metrics.law import MetricLaw


def check_metrics(laws: Iterable[MetricLaw]) -> list[Check]:
    """What is doubtful of the metrics.

    Args:
        laws: Their laws.
    """
    checks = []
    for law in laws:
        if law.refused:
            message = f"no forecast of the metric {law.name!r}: {law.refused}"
            advice = "Train larger budgets, or evaluate on more examples, until it moves."
            checks.append(Check("metric-refused", "warn", message, advice))
        elif law.remark:
            message = f"the metric {law.name!r}: {law.remark}"
            checks.append(Check("metric-doubtful", "warn", message, "Add a larger budget."))
    return checks
