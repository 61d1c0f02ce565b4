"""How far beyond the runs a prediction is made, and where it is refused.

A law says something of the budgets near those trained. Chinchilla was trained about two decades
beyond the runs that its size was found with (Hoffmann et al. 2022). So a prediction is refused
beyond a thousand times the largest budget; and, beyond ten times, where the interval of N is so
wide that it is no answer. `anyway` shows the numbers nevertheless.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from flops_fit.display.number_text import flops
from flops_fit.errors import FitError
from flops_fit.laws.check import Check
from flops_fit.laws.checks.of_predictions import TOO_FAR, check_prediction, times_the_largest
from flops_fit.laws.findings import Findings
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.predict.intervals import predict_intervals

# A budget up to 10 % above the largest one trained does not count as an extrapolation.
WITHIN = 1.1
# Up to here a prediction is made however wide its interval is.
ALWAYS = 10.0
# Beyond, the 95 % interval of N may span this factor: a factor of ten either way.
WIDEST = 100.0
_STOPS = 41  # factors at which the interval is looked at: 20 per decade
_ROUNDING = 1 + 1e-6


def require_reach(findings: Findings, C: Array, *, anyway: bool = False) -> None:
    """Raise FitError if the prediction at the largest of these budgets must be withheld.

    Args:
        findings: The fitted laws.
        C: Budgets in FLOPs, shape (k,).
        anyway: Whether a prediction far beyond the runs is wanted nevertheless.

    Raises:
        FitError: The budget is more than 1000 times the largest one, and this was not asked for or
            only power laws without intervals are available; or a check refuses every prediction
            beyond the largest budget.
    """
    most = float(np.max(C))
    factor = most / findings.largest_budget
    doubts = check_prediction(factor, has_interval=findings.law is not None)
    refusals = [doubt for doubt in doubts if doubt.severity == "refuse"]
    if refusals:
        raise FitError(f"no prediction without an interval: {refusals[0].message}", doubts)
    withheld = findings.not_beyond
    if factor > WITHIN and withheld:
        reasons = " ".join(check.message for check in withheld)
        despite = " anyway=True (--anyway) does not lift this refusal." if anyway else ""
        raise FitError(
            f"no prediction beyond the largest budget, {flops(findings.largest_budget)} FLOPs: "
            f"{reasons} {withheld[0].advice}{despite}",
            withheld,
        )
    if factor > TOO_FAR * _ROUNDING and not anyway:
        raise _refused(findings, most, f"at most {TOO_FAR:,.0f} times is predicted")


def require_narrow(findings: Findings, frame: pd.DataFrame, *, anyway: bool = False) -> None:
    """Raise FitError if N is hardly known at one of these budgets beyond ten times the largest.

    Args:
        findings: The fitted laws.
        frame: Predictions, with columns `compute_budget num_params_low num_params_high`.
        anyway: Whether such predictions are wanted nevertheless.

    Raises:
        FitError: The interval of N spans more than a factor of 100, and this was not asked for.
    """
    wide = is_vague(findings, frame)
    if wide.any() and not anyway:
        C = float(frame.loc[wide, "compute_budget"].min())
        raise _refused(findings, C, vague_text())


def reach(findings: Findings) -> float:
    """The largest factor beyond the largest budget at which a prediction is made.

    It is 1.1 where a check refuses to go beyond the largest budget, and at most 1000.
    """
    largest = findings.largest_budget
    try:
        require_reach(findings, np.array([TOO_FAR * largest]))
    except FitError:
        return WITHIN
    factors = np.geomspace(ALWAYS, TOO_FAR, _STOPS)
    vague = is_vague(findings, predict_intervals(findings, factors * largest))
    return float(factors[: int(np.argmax(vague))][-1] if vague.any() else TOO_FAR)


def is_vague(findings: Findings, frame: pd.DataFrame) -> np.ndarray:
    """Which of some predictions beyond ten times the largest budget hardly know N, shape (k,).

    Args:
        findings: The fitted laws.
        frame: Predictions, as for `require_narrow`.
    """
    C, low, high = (
        frame[name].to_numpy(float)
        for name in ("compute_budget", "num_params_low", "num_params_high")
    )
    # No interval at all (NaN) is not a wide one; one that is not known is (0, inf).
    far = C > ALWAYS * findings.largest_budget * _ROUNDING
    return np.asarray(far & (high > WIDEST * low))


def vague_text() -> str:
    """What is wrong with a prediction that `is_vague`."""
    return f"the 95 % interval of N spans more than a factor {WIDEST:.0f}"


def _refused(findings: Findings, C: float, reason: str) -> FitError:
    factor = times_the_largest(C / findings.largest_budget)
    message = (
        f"{flops(C)} FLOPs are {factor} times the largest budget of the runs, "
        f"{flops(findings.largest_budget)}: {reason}."
    )
    advice = "Train budgets nearer to it; anyway=True (--anyway) shows the numbers nevertheless."
    check = Check("far-extrapolation", "refuse", message, advice)
    return FitError(f"no prediction so far beyond the runs: {message} {advice}", [check])
