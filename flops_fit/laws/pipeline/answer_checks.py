"""Checks of the answer: is it known, do the approaches agree, what does a wrong law do to it?"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from flops_fit.laws.check import Check
from flops_fit.laws.checks.of_law import (
    check_approaches,
    check_lack_of_fit,
    check_uneven_recipe,
    without_consequences,
)
from flops_fit.laws.findings import Findings
from flops_fit.laws.inference.lack_of_fit import LackOfFit
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.predict.intervals import predict_intervals
from flops_fit.laws.predict.known import check_known
from flops_fit.laws.predict.paths import UNCONSTRAINED, Ends, law_ends
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
    budgets = findings.fitted_runs["compute_budget"].to_numpy(float)
    C = np.array([budgets.max(), budgets.min(), BEYOND * budgets.max()])
    of_law = law_ends(findings, C, UNCONSTRAINED)
    row = {str(k): float(v) for k, v in predict_intervals(findings, C[:1]).iloc[0].items()}
    if lack is not None:
        checks = without_consequences(checks)
    return [
        *check_known(row, within=True),
        *check_lack_of_fit(lack, _effect(row, of_law)),
        *checks,
        *check_uneven_recipe(findings),
        *check_approaches(_levels(findings, C, of_law)),
    ]


def _effect(row: Mapping[str, float], of_law: Ends) -> dict[str, float]:
    """How the prediction at the largest budget differs from that of the law alone.

    Args:
        row: The prediction.
        of_law: The law alone at three budgets, the largest first.
    """
    half = (row["loss_high"] - row["loss_low"]) / 2
    return {
        "num_params": row["num_params"],
        "law_num_params": float(np.exp(of_law.middle[0])),
        "loss": row["loss"],
        "law_loss": float(np.split(of_law.middle, 3)[2][0]),
        "wider": half / max(float(np.split(of_law.half, 3)[2][0]), 1e-300),
    }


def _levels(findings: Findings, C: Array, of_law: Ends) -> pd.DataFrame:
    """N_opt by each approach at some budgets, as `check_approaches` takes it."""
    witnesses = find_witnesses(findings, C, of_law.half[: len(C)])
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
