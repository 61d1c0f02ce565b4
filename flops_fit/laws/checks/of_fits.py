"""Checks of the fits: doubts that the optimiser, the data or the other methods raise."""

from __future__ import annotations

import numpy as np
import pandas as pd

from flops_fit.display.number_text import count, percent
from flops_fit.laws.check import Check, counted, graded
from flops_fit.laws.findings import Findings
from flops_fit.laws.fitting.isoflop import DEPTH_WARNED, refuse_approach
from flops_fit.laws.fitting.parametric import ParametricFit

# Standard errors of a above which it warns and refuses: extrapolated to 100 times the compute, they
# are factors of 1.15 and 1.6 in N_opt.
WIDE_EXPONENT = (0.03, 0.10)
ILL_CONDITIONED = 1e3
LEAST_AGREEMENT = 0.5
# Half-width of a 95 % interval in standard errors.
NORMAL = 1.96
# Least-squares and Huber fits that are compared.
OBJECTIVES = ("huber", "log", "linear")
# Standard errors of a by which fits with these may differ.
OBJECTIVES_DIFFER = 1.5
# Non-positive losses up to this share of the runs are probably faults.
FEW_ODD = 0.1
# Differences between exponents below this are rounding.
ROUNDING = 1e-6

INSEPARABLE_ADVICE = "Report the exponent a and predictions within the sweep, not E, A and B."


def check_fits(findings: Findings) -> list[Check]:
    """All checks of the fits."""
    optima_checks = [
        *check_refused_optima(findings.optima),
        *check_shallow_rows(findings.optima),
        *check_power_laws(findings.optima),
    ]
    fit = findings.fits.get("headline")
    if fit is None:
        return optima_checks
    return [
        *check_convergence(fit),
        *check_starts(fit),
        *check_irreducible_loss(fit),
        *check_conditioning(fit, findings.intervals),
        *check_exponent(findings),
        *check_linear_space(findings),
        *check_objectives(findings),
        *check_backtest(findings.backtest, fit),
        *check_optimum_in_range(findings),
        *optima_checks,
    ]


def check_refused_optima(optima: pd.DataFrame) -> list[Check]:
    """Warn about budgets whose IsoFLOP curve has no usable minimum, by the kind of reason.

    The thresholds are those of `fitting.isoflop`.
    """
    checks = []
    for code, text, advice in (
        ("minimum-at-edge", "edge", "Add smaller or larger sizes there."),
        ("not-convex", "convex", "Use a wider range of sizes, or look for an outlying run."),
        ("few-sizes-in-row", "a curve needs", "Add sizes there."),
        ("shallow-row", "too flat", "Use a wider range of sizes, or average over seeds."),
    ):
        hit = optima["refused"].str.contains(text, regex=False)
        if hit.any():
            message = (
                f"no optimum for {int(hit.sum())} of {counted(len(optima), 'budget')} "
                f"({_budgets(optima[hit])}): {_reasons(optima.loc[hit, 'refused'])}."
            )
            checks.append(Check(code, "warn", message, advice))
    return checks


def check_shallow_rows(optima: pd.DataFrame) -> list[Check]:
    """Warn about rows whose ends lie less than 5 times the noise above their minimum."""
    shallow = (optima["refused"] == "") & (optima["depth"] < DEPTH_WARNED)
    if not shallow.any():
        return []
    least = float(optima.loc[shallow, "depth"].min())
    message = (
        f"an IsoFLOP curve is shallow: its ends lie only {least:.1f} times the noise above its "
        f"minimum "
        f"({_budgets(optima[shallow])})."
    )
    return [Check("shallow-row", "warn", message, "Use a wider range of sizes.")]


def check_power_laws(optima: pd.DataFrame) -> list[Check]:
    """Refuse power laws through fewer than two optima, or if over a third lie at an edge."""
    reason = refuse_approach(optima)
    return [Check("isoflop-refused", "refuse", f"no power laws: {reason}.")] if reason else []


def check_convergence(fit: ParametricFit) -> list[Check]:
    """Warn about a headline fit that did not converge."""
    if fit.converged:
        return []
    message = f"the optimiser stopped short of an optimum (relative gradient {fit.gradient:.1g})."
    advice = "The data hardly determine five parameters: add runs, or fit without delta."
    return [Check("not-converged", "warn", message, advice)]


def check_starts(fit: ParametricFit) -> list[Check]:
    """Warn if fewer than half of the starts ended at the best optimum."""
    if fit.agreement >= LEAST_AGREEMENT:
        return []
    message = (
        f"only {percent(fit.agreement)} of {fit.num_starts} starting points of the optimiser "
        "reached the best fit."
    )
    advice = "The runs may not determine the law: add budgets."
    return [Check("starts-disagree", "warn", message, advice)]


def check_irreducible_loss(fit: ParametricFit) -> list[Check]:
    """Warn about an irreducible loss of zero: E, A and B are then not separable."""
    if "E" not in fit.at_bound:
        return []
    message = "the irreducible loss E came out as zero: the runs do not determine E, A and B."
    return [Check("E-at-zero", "warn", message, INSEPARABLE_ADVICE)]


def check_conditioning(fit: ParametricFit, intervals: pd.DataFrame) -> list[Check]:
    """Warn if the data do not separate a positive E from the power terms.

    That is, if the condition number of the scaled Jacobian exceeds 1000, or if the interval of E
    includes zero. An E of zero has a check of its own, with the same advice.
    """
    low, high = _cell(intervals, "E", "low"), _cell(intervals, "E", "high")
    # With an offset in the losses, zero means nothing for E.
    includes_zero = low <= 0 < fit.law.E and fit.centre[3] == 0
    if "E" in fit.at_bound or not (fit.condition > ILL_CONDITIONED or includes_zero):
        return []
    message = (
        f"E cannot be separated from the power terms (condition number {fit.condition:.2g}, "
        f"interval of E from {low:.3g} to {high:.3g})."
    )
    return [Check("ill-conditioned", "warn", message, INSEPARABLE_ADVICE)]


def check_exponent(findings: Findings) -> list[Check]:
    """Warn about a standard error of N_opt's exponent above 0.03, refuse to extrapolate above 0.10.

    It is that of the approach that knows it best, the law or the IsoFLOP rows, as predictions
    follow this one most.
    """
    error = _cell(findings.intervals, "a", "standard_error")
    low, high = findings.power_laws.n_opt.exponent_interval
    if findings.misfit is not None and findings.repetition is None and np.isfinite(high - low):
        error = min(error, (high - low) / 2 / NORMAL)
    message = f"the exponent of N_opt is known to {error:.3f} (standard error)."
    advice = "Widen the sizes and the span of budgets; do not extrapolate on this."
    return graded("wide-exponent", error, *WIDE_EXPONENT, message, advice)


def check_linear_space(findings: Findings) -> list[Check]:
    """Note a fit of L instead of ln L, on request or because losses are not positive.

    Warns if up to 10 % of the losses are not positive, which is probably a fault.
    """
    if findings.fits["headline"].space == "log":
        return []
    # A single loss that is not positive may since have been left out as an outlier.
    kept = findings.runs["excluded"].str.match("$|outlier")
    loss = findings.runs.loc[kept, "loss"].astype(float)
    odd = int((loss <= 0).sum())
    if not odd:
        message = "the law was fitted to L, not to ln L, as requested."
        return [Check("linear-space", "note", message)]
    runs = counted(odd, "run")
    message = f"the law was fitted to L, not to ln L, because the loss is not positive in {runs}."
    advice = "Where losses should be positive, look for a run with a loss that is not."
    few = odd <= FEW_ODD * len(loss)
    return [Check("linear-space", "warn" if few else "note", message, advice)]


def check_objectives(findings: Findings) -> list[Check]:
    """Warn if fits with other objectives differ in a by more than 1.5 of its standard errors.

    Where the law holds, chance made them differ so in 1 of 240 simulated sweeps (docs/log.md).
    """
    found = {name: findings.fits[name].law.a for name in OBJECTIVES if name in findings.fits}
    difference = float(np.ptp(list(found.values())))
    error = _cell(findings.intervals, "a", "standard_error")
    if not difference > OBJECTIVES_DIFFER * error + ROUNDING:
        return []
    listed = ", ".join(f"{name} {a:.3f}" for name, a in found.items())
    message = f"the exponent depends on the objective: {listed} (standard error {error:.3f})."
    advice = "Look at plot('residuals'): a few runs are out of line, or the law does not hold."
    return [Check("objectives-disagree", "warn", message, advice)]


def check_backtest(table: pd.DataFrame, fit: ParametricFit) -> list[Check]:
    """Warn if the largest budget, held out, is predicted worse than chance allows (95 %).

    Args:
        table: The table that `backtest` returned.
        fit: The headline fit.
    """
    tested = table[(table["form"] == fit.form) & np.isfinite(table["ratio"].astype(float))]
    if tested.empty:
        return []
    ratio, limit = float(tested["ratio"].iloc[0]), float(tested["limit"].iloc[0])
    message = (
        f"a fit without the largest budget predicts its losses with an RMS error of {ratio:.1f} "
        f"times the noise (chance explains {limit:.1f} times at most)."
    )
    advice = "The law does not continue as the smaller budgets predict: extrapolate with care."
    return graded("backtest", ratio, limit, np.inf, message, advice)


def check_optimum_in_range(findings: Findings) -> list[Check]:
    """Warn if the optimum of the largest budget lies beyond the sizes trained."""
    N = findings.fitted_runs["num_params"].to_numpy(float)
    assert findings.law is not None
    best = float(findings.law.n_opt(findings.largest_budget))
    if N.min() <= best <= N.max():
        return []
    message = (
        f"the best size for the largest budget, N = {count(best)}, lies beyond the sizes trained."
    )
    return [Check("optimum-beyond-data", "warn", message, "Train larger or smaller models too.")]


def _cell(table: pd.DataFrame, row: str, column: str) -> float:
    return float(table[column].to_numpy(float)[table.index.get_loc(row)])


def _reasons(refused: pd.Series) -> str:
    """The reason if there is one only, else the first as an example."""
    reasons = refused.unique()
    return str(reasons[0]) if len(reasons) == 1 else f"for example, {reasons[0]}"


def _budgets(rows: pd.DataFrame) -> str:
    """The first four budgets, as text."""
    listed = ", ".join(f"{C:.3g}" for C in rows["compute_budget"].head(4))
    return listed + (", ..." if len(rows) > 4 else "")
