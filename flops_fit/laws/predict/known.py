"""Intervals that say nothing: where they span more than is physical, the value is not known.

A law that the runs hardly determine has formal intervals such as 1e-46 to 5e3 parameters. They are
replaced by (0, inf), which every text shows as "not known"; the point stays, and the check
`not-known` says why.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pandas as pd

from flops_fit.laws.check import Check, Severity
from flops_fit.laws.findings import Findings
from flops_fit.laws.model.arrays import Array

# An interval says something if it reaches at most this factor from the value, on either side; that
# of a loss may reach as far from the largest loss seen.
MOST_FACTOR = 1000.0
MOST_LOSS_FACTOR = 10.0

NAMES = {"num_params": "N", "num_tokens": "D", "loss": "loss"}


def withhold_unknown(findings: Findings, frame: pd.DataFrame) -> pd.DataFrame:
    """A table of predictions with (0, inf) for the intervals that say nothing.

    Args:
        findings: The fitted laws.
        frame: Predictions of the headline law, with columns `num_params num_tokens loss`, for each
            `_low` and `_high`, and `new_run_low new_run_high`.
    """
    frame = frame.copy()
    for name in ("num_params", "num_tokens"):
        value, low, high = (frame[name + end].to_numpy(float) for end in ("", "_low", "_high"))
        with np.errstate(all="ignore"):
            vague = ~((high / value <= MOST_FACTOR) & (value / low <= MOST_FACTOR) & (low >= 1))
        frame.loc[vague, [f"{name}_low", f"{name}_high"]] = (0.0, math.inf)
    ends = (frame["loss" + end].to_numpy(float) for end in ("", "_low", "_high"))
    vague = vague_losses(findings, *ends)
    frame.loc[vague, ["loss_low", "loss_high"]] = (0.0, math.inf)
    frame.loc[vague, ["new_run_low", "new_run_high"]] = (0.0, math.inf)
    return frame


def vague_losses(findings: Findings, value: Array, low: Array, high: Array) -> np.ndarray:
    """Whether each interval of the loss says nothing, shape (k,).

    Losses that may be negative have no natural size; nothing is said of them.
    """
    fit = findings.fits.get("headline")
    if fit is None or fit.centre[3] != 0:
        return np.zeros(len(value), bool)
    seen = float(findings.fitted_runs["loss"].max())
    near = (value <= MOST_LOSS_FACTOR * low) & (high <= MOST_LOSS_FACTOR * np.maximum(value, seen))
    return np.asarray(~near)


def check_known(row: Mapping[str, float], *, within: bool = False) -> list[Check]:
    """Say which quantities of a prediction are not known.

    Args:
        row: One row of the predictions.
        within: Whether this is the largest budget of the sweep. If N is not known there, no
            prediction is made beyond it.
    """
    unknown = [name for column, name in NAMES.items() if math.isinf(row[f"{column}_high"])]
    if not unknown:
        return []
    verb = "is" if len(unknown) == 1 else "are"
    where = ", the largest budget of the sweep," if within else ""
    message = (
        f"{' and '.join(unknown)} at {row['compute_budget']:.3g} FLOPs{where} {verb} not known: "
        f"the 95 % interval reaches more than a factor of {MOST_FACTOR:,.0f} from the value (of a "
        f"loss, {MOST_LOSS_FACTOR:.0f}), or N or D below 1."
    )
    advice = "See the other checks; widen the sizes and the budgets, or lower the noise."
    severity: Severity = "refuse" if within and "N" in unknown else "warn"
    return [Check("not-known", severity, message, advice)]
