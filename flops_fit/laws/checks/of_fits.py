"""Checks of the fits: what the optimiser, the data and the other methods say against them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from flops_fit.laws.check import Check, counted, graded
from flops_fit.laws.fitting.isoflop import DEPTH_WARNED, refuse_approach
from flops_fit.laws.fitting.parametric import ParametricFit

if TYPE_CHECKING:
    from flops_fit.laws.findings import Findings


WIDE_EXPONENT = (0.03, 0.10)
ILL_CONDITIONED = 1e3
LEAST_AGREEMENT = 0.5
OBJECTIVES = ("huber", "log", "linear")
FEW_ODD = 0.1


def check_fits(findings: Findings) -> list[Check]:
    """Every doubt about the fits."""
    checks = [*check_optima(findings.optima)]
    fit = findings.fits.get("headline")
    if fit is None:
        return checks
    return [
        *check_optimiser(findings.fits),
        *check_separable(fit, findings.intervals),
        *check_exponent(findings.intervals),
        *check_linear(findings),
        *check_objectives(findings),
        *check_approaches(findings),
        *check_backtest(findings),
        *check_reach(findings),
        *checks,
    ]


def check_optima(optima: pd.DataFrame) -> list[Check]:
    """Rows without a visible minimum, and the approach where too many are so."""
    checks = []
    for code, text, advice in (
        ("minimum-at-edge", "edge", "Add smaller or larger sizes there."),
        ("not-convex", "convex", "Widen the row, or see which of its runs is out of line."),
        ("few-sizes-in-row", "a curve needs", "Add sizes there."),
        ("shallow-row", "too flat", "Widen the row, or average over seeds."),
    ):
        hit = optima["refused"].str.contains(text, regex=False)
        if hit.any():
            listed = _budgets(optima[hit])
            message = f"no optimum for {int(hit.sum())} of {counted(len(optima), 'budget')} "
            message += f"({listed}): {_reasons(optima.loc[hit, 'refused'])}."
            checks.append(Check(code, "warn", message, advice))
    shallow = (optima["refused"] == "") & (optima["depth"] < DEPTH_WARNED)
    if shallow.any():
        least = float(optima.loc[shallow, "depth"].min())
        message = f"the ends of a row lie only {least:.1f} times the noise above its minimum "
        message += f"({_budgets(optima[shallow])})."
        checks.append(Check("shallow-row", "warn", message, "Widen the rows."))
    reason = refuse_approach(optima)
    if reason:
        checks.append(Check("isoflop-refused", "refuse", f"no power laws: {reason}.", ""))
    return checks


def check_optimiser(fits: dict[str, ParametricFit]) -> list[Check]:
    """Fits that did not converge, or whose starts ended in different places."""
    checks = []
    fit = fits["headline"]
    if not fit.converged:
        message = (
            f"the optimiser stopped short of an optimum (relative gradient {fit.gradient:.1g})."
        )
        advice = "The data hardly bear five parameters: add runs, or fit without delta."
        checks.append(Check("not-converged", "warn", message, advice))
    share = fits[fit.form].agreement
    if share < LEAST_AGREEMENT:
        message = (
            f"only {share:.0%} of {fit.num_starts} starts of the fit ended at its best optimum."
        )
        advice = "Several laws fit about as well: add budgets."
        checks.append(Check("starts-disagree", "warn", message, advice))
    return checks


def check_separable(fit: ParametricFit, intervals: pd.DataFrame) -> list[Check]:
    """Parameters these data do not tell apart."""
    advice = "Report the exponent a and predictions within the sweep, not E, A and B."
    checks = []
    if "E" in fit.at_bound:
        checks.append(
            Check("E-at-zero", "warn", "the irreducible loss E came out as zero.", advice)
        )
    low = _cell(intervals, "E", "low")
    open_ended = "E" not in fit.at_bound and low <= 0 < fit.law.E and fit.centre[3] == 0
    if fit.condition > ILL_CONDITIONED or open_ended:
        said = f"condition number {fit.condition:.2g}, interval of E from "
        said += f"{low:.3g} to {_cell(intervals, 'E', 'high'):.3g}"
        message = f"E is not told apart from the power terms ({said})."
        checks.append(Check("ill-conditioned", "warn", message, advice))
    return checks


def check_exponent(intervals: pd.DataFrame) -> list[Check]:
    """An exponent too uncertain to extrapolate on."""
    error = _cell(intervals, "a", "standard_error")
    message = f"the exponent a is known to {error:.3f} (standard error)."
    advice = "Widen the sizes and the span of budgets; do not extrapolate on this."
    return graded("wide-exponent", error, *WIDE_EXPONENT, message, advice)


def check_linear(findings: Findings) -> list[Check]:
    """A fit in linear space, because a loss is not positive or because it was asked for."""
    if findings.fits["headline"].space == "log":
        return []
    loss = findings.runs.loc[findings.runs["excluded"] == "", "loss"].astype(float)
    odd = int((loss <= 0).sum())
    few = 0 < odd <= FEW_ODD * len(loss)
    why = "as asked" if not odd else f"for the loss is not positive in {counted(odd, 'run')}"
    message = f"the law was fitted to L, not to ln L, {why}."
    advice = "Where losses should be positive, look for a run that reports none." if odd else ""
    return [Check("linear-space", "warn" if few else "note", message, advice)]


def check_objectives(findings: Findings) -> list[Check]:
    """The exponent by other objectives, apart by more than a standard error."""
    found = {name: findings.fits[name].law.a for name in OBJECTIVES if name in findings.fits}
    spread, error = float(np.ptp(list(found.values()))), _error_of_a(findings)
    if not spread > error + 1e-6:
        return []
    listed = ", ".join(f"{name} {a:.3f}" for name, a in found.items())
    message = f"the exponent depends on the objective: {listed} (standard error {error:.3f})."
    return [Check("objectives-disagree", "warn", message, "Look for runs out of line.")]


def check_approaches(findings: Findings) -> list[Check]:
    """IsoFLOP curves or envelope against the parametric law, beyond their intervals.

    Not where data was repeated: curves see that, the law of new data does not.
    """
    if findings.repetition is not None:
        return []
    checks = []
    low, high = (_cell(findings.intervals, "a", end) for end in ("low", "high"))
    witnesses = {"IsoFLOP curves": findings.power_laws}
    if findings.envelope_laws is not None:
        witnesses["envelope"] = findings.envelope_laws
    expected = _local_exponent(findings)
    shift = expected - _cell(findings.intervals, "a", "value")
    for name, laws in witnesses.items():
        other = laws.n_opt.exponent_interval
        apart = other[0] > high + shift + 1e-6 or other[1] < low + shift - 1e-6
        if np.isfinite(other).all() and apart:
            message = (
                f"the {name} give N_opt ~ C^{laws.n_opt.exponent:.3f}, the parametric law "
                f"C^{expected:.3f}: beyond their intervals."
            )
            checks.append(Check("approaches-disagree", "warn", message, "Trust neither far out."))
    return checks


def check_backtest(findings: Findings) -> list[Check]:
    """The largest budget foretold worse than chance allows."""
    table = findings.backtest
    fit = findings.fits["headline"]
    own = table[(table["form"] == fit.form) & np.isfinite(table["ratio"].astype(float))]
    if own.empty:
        return []
    ratio, limit = float(own["ratio"].iloc[0]), float(own["limit"].iloc[0])
    message = (
        f"held out, the largest budget's losses are missed by {ratio:.1f} times the noise "
        f"(chance allows {limit:.1f})."
    )
    advice = "The law does not carry on as the smaller budgets say: extrapolate with care."
    return graded("backtest", ratio, limit, np.inf, message, advice)


def check_reach(findings: Findings) -> list[Check]:
    """An optimum that lies beyond the sizes trained."""
    good = findings.runs[findings.runs["excluded"] == ""]
    budgets = good["compute_budget"].to_numpy(float)
    N = good["num_params"].to_numpy(float)
    assert findings.law is not None
    best = float(findings.law.n_opt(budgets.max()))
    if N.min() <= best <= N.max():
        return []
    message = f"the best size for the largest budget, {best:.3g}, lies beyond the sizes trained."
    return [Check("optimum-beyond-data", "warn", message, "Train larger or smaller models too.")]


def _local_exponent(findings: Findings) -> float:
    """D ln N_opt / d ln C of the headline over the sweep: a, where f(N) = kappa N."""
    assert findings.law is not None
    C = findings.optima["compute_budget"].to_numpy(float)
    if len(C) < 2:
        return findings.law.a
    ends = np.log(findings.law.n_opt(np.array([C.min(), C.max()])))
    return float((ends[1] - ends[0]) / np.log(C.max() / C.min()))


def _error_of_a(findings: Findings) -> float:
    return _cell(findings.intervals, "a", "standard_error")


def _cell(table: pd.DataFrame, row: str, column: str) -> float:
    return float(table[column].to_numpy(float)[table.index.get_loc(row)])


def _reasons(refused: pd.Series) -> str:
    """The one reason, or the first and that others differ in their figures."""
    told = refused.unique()
    return str(told[0]) if len(told) == 1 else f"for instance, {told[0]}"


def _budgets(rows: pd.DataFrame) -> str:
    listed = ", ".join(f"{C:.3g}" for C in rows["compute_budget"].head(4))
    return listed + (", ..." if len(rows) > 4 else "")
