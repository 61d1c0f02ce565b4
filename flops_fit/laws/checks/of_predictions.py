"""flops_fit.laws.check.of_predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flops_fit.laws.check import Check

if TYPE_CHECKING:
    pass


FAR, TOO_FAR = 100.0, 1000.0


def check_prediction(
    factor: float, *, has_interval: bool, cost_extrapolated: bool = False
) -> list[Check]:
    """Doubts about one prediction.

    Args:
        factor: C over the largest budget.
        has_interval: Whether it comes with an interval.
        cost_extrapolated: Whether FLOPs per token are extrapolated at its N.
    """
    checks = []
    if factor > FAR:
        grave = factor > TOO_FAR and not has_interval
        message = f"{factor:.3g} times the largest budget of the sweep."
        advice = "Add a budget nearer to it."
        checks.append(Check("far-extrapolation", "refuse" if grave else "warn", message, advice))
    if cost_extrapolated:
        message = "FLOPs per token at this size are extrapolated from the sizes trained."
        checks.append(
            Check("cost-extrapolated", "note", message, "Build the model and count them.")
        )
    return checks
