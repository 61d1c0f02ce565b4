"""Checks of the answer: is it known, do the approaches agree, what does a wrong law do to it?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from flops_fit.laws.check import Check
from flops_fit.laws.checks.of_law import (
    check_approaches,
    check_lack_of_fit,
    without_consequences,
)
from flops_fit.laws.findings import Findings
from flops_fit.laws.inference.lack_of_fit import LackOfFit
from flops_fit.laws.predict.intervals import predict_intervals
from flops_fit.laws.predict.known import check_known
from flops_fit.laws.predict.paths import UNCONSTRAINED, law_ends
from flops_fit.laws.predict.witnesses import combined, find_witnesses

# The approaches are compared at the ends of the sweep, and at this multiple of its largest budget.
BEYOND = 10.0


def answer_checks(findings: Findings, checks: list[Check], lack: LackOfFit | None) -> list[Check]:
    """The checks with those of the answer.

    Args:
        findings: The fitted laws.
        checks: All other checks.
        lack: How far the law misses the rows; None if it holds.

    Returns:
        First what makes the answer unknown; where the law does not hold, that instead of the checks
        that it causes.
    """
    if findings.law is None:
        return checks
    C = np.array([findings.largest_budget])
    row = {str(k): float(v) for k, v in predict_intervals(findings, C).iloc[0].items()}
    if lack is not None:
        checks = without_consequences(checks)
    return [
        *check_known(row, within=True),
        *check_lack_of_fit(lack, _effect(findings, row)),
        *checks,
        *check_approaches(_levels(findings)),
    ]


def _effect(findings: Findings, row: Mapping[str, float]) -> dict[str, float]:
    """How the prediction at one budget differs from that of the law alone."""
    of_law = law_ends(findings, np.array([row["compute_budget"]]), UNCONSTRAINED)
    half = (row["loss_high"] - row["loss_low"]) / 2
    return {
        "num_params": row["num_params"],
        "law_num_params": float(np.exp(of_law.middle[0])),
        "loss": row["loss"],
        "law_loss": float(of_law.middle[2]),
        "wider": half / max(float(of_law.half[2]), 1e-300),
    }


def _levels(findings: Findings) -> pd.DataFrame:
    """N_opt by each approach, as `check_approaches` takes it."""
    budgets = findings.fitted_runs["compute_budget"].to_numpy(float)
    C = np.array([budgets.min(), budgets.max(), BEYOND * budgets.max()])
    witnesses = find_witnesses(findings, C, law_ends(findings, C, UNCONSTRAINED).half[: len(C)])
    weights = combined(witnesses)[1]
    parts = [
        pd.DataFrame(
            {
                "compute_budget": C,
                "approach": witness.name,
                "value": np.exp(witness.value),
                "low": np.exp(witness.value - witness.half),
                "high": np.exp(witness.value + witness.half),
                "weight": weight,
            }
        )
        for witness, weight in zip(witnesses, weights, strict=True)
    ]
    return pd.concat(parts, ignore_index=True)
