"""Units and typing errors: what C over N D, and the values themselves, tell about a table.

A dense model spends C = 6 N D (Kaplan et al. 2020, section 2.1). Mixtures of experts, encoders,
convolutions and data counted in images differ from that by up to some thousand times, but alike in
all runs of about one size. Powers of a thousand beyond are units, and single runs out of line were
mistyped.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from flops_fit.display.number_text import times
from flops_fit.laws.check import Check, Severity, counted
from flops_fit.laws.model.arrays import MAD_TO_STD, Array

# kappa in C = kappa N D where FLOPs were not measured (Kaplan et al. 2020, section 2.1).
FLOPS_PER_PARAM_TOKEN = 6.0
# C / (6 N D) outside of these is a matter of units.
ODD_RATIO = (1e-4, 3e5)
# Within these, C is that of a dense model with embeddings and attention; outside it is noted.
USUAL_RATIO = (0.6, 3.0)
# A count below this is hardly one.
SMALL_COUNT = 1e5
# What the product of two units can be, with the units; C / (6 N D) comes within NEAR of it.
PRODUCTS = {
    1e15: "N in millions and D in billions",
    1e6: "N or D in millions",
    1e9: "N or D in billions",
    1e12: "N in millions and D in millions, or D in trillions",
    1e18: "N and D in billions",
    1e21: "N in billions and D in trillions",
    1e-18: "C in units of 1e18 FLOPs",
    1e-15: "C in PFLOPs",
    1e-12: "C in TFLOPs",
    1e-9: "C in GFLOPs",
    1 / 8.64e19: "C in PF-days (8.64e19 FLOPs)",
    1e15 / 8.64e19: "N in millions, D in billions and C in PF-days",
    1e18 / 8.64e19: "N and D in billions and C in PF-days",
    1e-3: "C in units of 1e18 FLOPs, N in millions and D in billions",
}
NEAR = 3.0
# No table in one unit has runs whose C / (N D) differs this many times from that of the middle run.
MIXED = 300.0
# A run is out of line if its C / (N D) is this many times that of runs of about its size ...
OUT_OF_LINE = 1.5
# ... and differs by this many times the scatter of the others; at most this share of the runs.
SCATTERS = 8.0
MOST_OUT_OF_LINE = 0.1
NEIGHBOURS = 7
# N above this multiple of D, where C = 6 N D, suggests that the two were swapped.
SWAPPED = 5.0
# A loss above ln of the largest vocabularies is no cross-entropy in nats; this far, a perplexity.
PERPLEXITIES = (13.0, 2000.0)


def check_units(frame: pd.DataFrame, flops_given: bool) -> list[Check]:
    """Doubt numbers that look like another unit; nothing is converted.

    Args:
        frame: A clean table.
        flops_given: Whether C was in the table, and not computed from N and D.
    """
    fitted = frame[frame["excluded"] == ""]
    if fitted.empty:
        return []
    if flops_given:
        checks = _check_product(fitted)
    else:
        checks = [c for name in ("num_params", "num_tokens") for c in _check_counts(fitted, name)]
    if not checks:
        checks = _check_swapped(fitted)
    return [*checks, *_check_perplexity(fitted)]


def exclude_out_of_line(frame: pd.DataFrame) -> list[Check]:
    """Exclude single runs whose C, N or D cannot be right, in place, and name them.

    Args:
        frame: A clean table, with FLOPs; its index numbers the rows.
    """
    fitted = frame[frame["excluded"] == ""]
    checks: list[Check] = []
    if len(fitted) < NEIGHBOURS:
        return checks
    for column, expected in (("flops", None), ("compute_budget", "flops")):
        cost = fitted["num_params"] * fitted["num_tokens"] if expected is None else fitted[expected]
        ratio = np.log(fitted[column].to_numpy(float) / cost.to_numpy(float))
        beyond, off = _deviations(np.log(fitted["num_params"].to_numpy(float)), ratio)
        out = _out_of_line(beyond, off)
        if not out.any():
            continue
        names = "C / (N D)" if expected is None else "the budget over the FLOPs"
        factors = {
            int(i): float(np.exp(x)) for i, x in zip(fitted.index[out], off[out], strict=True)
        }
        listed = ", ".join(f"row {i} ({factor:.3g} times)" for i, factor in factors.items())
        finding = (
            f"{names} of {counted(len(factors), 'run')} is out of line with the others: {listed}"
        )
        if out.mean() > MOST_OUT_OF_LINE and out.sum() > 1:
            message = f"{finding[:400]}; these are too many to leave out."
            checks.append(
                Check("out-of-line", "refuse", message, "Check C, N and D of these runs.")
            )
            continue
        for i, factor in factors.items():
            reason = f"C, N or D mistyped: {names} is {factor:.3g} times that of the others"
            frame.loc[i, "excluded"] = reason
        message = f"{finding}. They were left out."
        checks.append(Check("out-of-line", "warn", message, "Correct C, N or D of these runs."))
        fitted = frame[frame["excluded"] == ""]
    return checks


def _ratios(fitted: pd.DataFrame) -> Array:
    """C / (6 N D) of each run, shape (n,)."""
    product = FLOPS_PER_PARAM_TOKEN * fitted["num_params"] * fitted["num_tokens"]
    return np.asarray(fitted["flops"] / product, float)


def _check_product(fitted: pd.DataFrame) -> list[Check]:
    ratios = _ratios(fitted)
    middle = float(np.median(ratios))
    with np.errstate(divide="ignore", over="ignore"):  # of values near the least of all floats
        apart = np.abs(np.log(ratios / middle)) > np.log(MIXED)
    if apart.mean() > MOST_OUT_OF_LINE and apart.sum() > 1:
        ends = f"{ratios.min():.2g} to {ratios.max():.2g}"
        message = f"units: C / (6 N D) runs from {ends}: units differ between rows."
        return [Check("units", "refuse", message, "Give all rows in the same units.")]
    if ODD_RATIO[0] < middle < ODD_RATIO[1]:
        return _note_convention(middle)
    distance = {unit: abs(np.log(middle / unit)) for unit in PRODUCTS}
    nearest = min(distance, key=lambda unit: distance[unit])
    known = distance[nearest] < np.log(NEAR)
    likely = f": likely {PRODUCTS[nearest]}" if known else ""
    small = [q for q in ("num_params", "num_tokens") if fitted[q].median() < SMALL_COUNT]
    if len(small) == 1:
        likely = likely.replace("N or D", "N" if small == ["num_params"] else "D")
    message = f"units: C / (6 N D) is {times(middle)}, not about 1{likely}. Nothing was converted."
    advice = "Give N as a count, D in tokens and C in FLOPs; predictions are in the units given."
    # Predictions ask for budgets in FLOPs: where C is not, they would be far off.
    # A parameter may be used a million times an example, but then it is not one of few.
    surely = middle < 1 or "C in" in likely or (known and len(small) == 1 and nearest >= 1e6)
    severity: Severity = "refuse" if surely else "warn"
    return [Check("units", severity, message, advice)]


def _note_convention(middle: float) -> list[Check]:
    """Note a C that is not about 6 N D, as of experts, images or forward passes alone."""
    if USUAL_RATIO[0] < middle < USUAL_RATIO[1]:
        return []
    message = f"C is {times(middle)} times 6 N D in the middle run; it is used as it is."
    advice = "Experts or images explain that; so do FLOPs of forward passes alone (a third)."
    return [Check("flops-convention", "note", message, advice)]


def _check_counts(fitted: pd.DataFrame, name: str) -> list[Check]:
    """Refuse counts that are small and not whole, where no C tells the unit and C is 6 N D."""
    values = fitted[name].to_numpy(float)
    if values.max() > SMALL_COUNT or (np.abs(values - np.round(values)) < 1e-9 * values).all():
        return []
    message = (
        f"units: {name} runs from {values.min():.3g} to {values.max():.3g}, as if in millions or "
        "billions. Nothing was converted, and C = 6 N D is not in FLOPs then."
    )
    advice = "Give N as a count and D in tokens; predictions are in the units given."
    return [Check("units", "refuse", message, advice)]


def _check_swapped(fitted: pd.DataFrame) -> list[Check]:
    N, D = fitted["num_params"].to_numpy(float), fitted["num_tokens"].to_numpy(float)
    tokens = 0.3 < float(np.median(_ratios(fitted))) < 3 and float(np.median(N * D)) > 1e12
    if not tokens or not float(np.median(N / D)) > SWAPPED:
        return []
    message = f"N is {times(np.median(N / D))} times D in the middle run: are N and D swapped?"
    return [Check("units", "warn", message, "Check which column is which.")]


def _check_perplexity(fitted: pd.DataFrame) -> list[Check]:
    middle = float(fitted["loss"].median())
    if not PERPLEXITIES[0] < middle < PERPLEXITIES[1]:
        return []
    message = (
        f"the loss is {middle:.3g} in the middle run, more than a cross-entropy in nats can be."
    )
    return [Check("units", "warn", message, "If these are perplexities, fit their logarithm.")]


def _deviations(x: Array, ratio: Array) -> tuple[Array, Array]:
    """How far each run's ln C / (N D) lies from that of the runs nearest in ln N.

    Args:
        x: ln N, shape (n,).
        ratio: ln C / (N D), shape (n,).

    Returns:
        Its distance from the neighbours' range without their extremes, and from their median, both
        of shape (n,).
    """
    n = len(x)
    if n < NEIGHBOURS:
        return np.zeros(n), np.zeros(n)
    order = np.argsort(x, kind="stable")
    values = ratio[order]
    # A window of neighbours in size; at the ends it is shifted, not cut.
    first = np.clip(np.arange(n) - NEIGHBOURS // 2, 0, n - NEIGHBOURS)
    places = first[:, None] + np.arange(NEIGHBOURS)
    others = np.sort(values[places[places != np.arange(n)[:, None]]].reshape(n, -1), axis=1)
    beyond, middle = np.empty(n), np.empty(n)
    beyond[order] = values - np.clip(values, others[:, 1], others[:, -2])
    middle[order] = values - np.median(others, axis=1)
    return beyond, middle


def _out_of_line(beyond: Array, off: Array) -> np.ndarray:
    scatter = float(np.median(np.abs(off))) * MAD_TO_STD
    return np.asarray(np.abs(beyond) > max(np.log(OUT_OF_LINE), SCATTERS * scatter))
