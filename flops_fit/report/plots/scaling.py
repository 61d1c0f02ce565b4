"""Plot of N_opt, D_opt or L_opt against C: the prediction, and every approach, with 95 % bands."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from flops_fit.errors import FitError
from flops_fit.report.plots import style
from flops_fit.report.plots.style import COLOURS, SHADE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from flops_fit.laws.model.power_law import PowerLaw

ON_TOP = 4  # drawn above the lines of other approaches
NAMES = {"num_params": "N_opt", "num_tokens": "D_opt", "loss": "L_opt"}


def plot_scaling(
    band: pd.DataFrame,
    optima: pd.DataFrame,
    quantity: str,
    *,
    data_unit: str = "tokens",
    largest_budget: float | None = None,
    power_law: PowerLaw | None = None,
    envelope: pd.DataFrame | None = None,
    envelope_law: PowerLaw | None = None,
    ax: Axes | None = None,
) -> Axes:
    """One of N_opt, D_opt, L_opt against C: the prediction, and each approach, with 95 % bands.

    Args:
        band: The predictions, `Result.band(budgets)`; without a law, only the column
            `compute_budget`.
        optima: `Result.optima`.
        quantity: "num_params", "num_tokens" or "loss".
        data_unit: What D counts.
        largest_budget: The largest budget of the sweep; beyond it the background is shaded.
        power_law: The power law through the optima.
        envelope: `Result.envelope`.
        envelope_law: The power law through the envelope.
        ax: Axes to draw on; new ones if None.

    Raises:
        FitError: No approach gives this quantity.
    """
    ax = ax or style.new_axes()
    C = band["compute_budget"].to_numpy(float)
    drawn = _predicted(ax, band, quantity)
    for law, colour, dashes, name in (
        (power_law, COLOURS[1], "--", "optima"),
        (envelope_law, COLOURS[2], "-.", "envelope"),
    ):
        if law is not None and np.isfinite(law.exponent):
            label = f"power law of {name}, 95 %"
            values = _power_law(ax, C, law, colour, dashes, label, positive=quantity != "loss")
            drawn.append(values)
    drawn += _optima_points(ax, optima, quantity)
    if envelope is not None and len(envelope):
        ax.plot(
            envelope["compute_budget"], envelope[quantity], "x", color=COLOURS[2], markersize=4,
            label="envelope",
        )  # fmt: skip
        drawn.append(envelope[quantity].to_numpy(float))
    if not drawn:
        raise FitError(f"No approach gives {NAMES[quantity]}.")
    if largest_budget is not None and C.max() > largest_budget:
        ax.axvspan(largest_budget, C.max(), color=SHADE, alpha=0.15, lw=0, label="extrapolation")
    units = {"num_params": "parameters", "num_tokens": data_unit, "loss": "held-out loss"}
    label = f"{NAMES[quantity]}, {units[quantity]}"
    ax.set(xscale="log", xlabel="compute budget C, FLOPs", ylabel=label)
    ax.set_yscale("linear" if quantity == "loss" else "log")
    ax.set_xlim(C.min(), C.max())
    # The bands of the power laws may be very wide: they do not set the limits.
    style.frame(ax, np.concatenate(drawn), logarithmic=quantity != "loss")
    # The corner that the curve leaves empty.
    ax.legend(
        fontsize="small",
        handlelength=1.6,
        loc="upper right" if quantity == "loss" else "lower right",
    )
    return ax


def _predicted(ax: Axes, band: pd.DataFrame, quantity: str) -> list[np.ndarray]:
    """Draw the predictions and their band, or a note in the legend; returns the values drawn."""
    if quantity not in band:
        ax.plot([], [], " ", label="no parametric law")
        return []
    C, middle, low, high = (
        band[name].to_numpy(float)
        for name in ("compute_budget", quantity, f"{quantity}_low", f"{quantity}_high")
    )
    # The answer: above all else but the points.
    ax.plot(C, middle, color=COLOURS[0], lw=2, zorder=ON_TOP, label="prediction, 95 %")
    ax.fill_between(C, low, high, color=COLOURS[0], alpha=0.25, lw=0)
    return [middle, low, high]


def _power_law(
    ax: Axes, C: np.ndarray, law: PowerLaw, colour: str, dashes: str, label: str, *, positive: bool
) -> np.ndarray:
    """Draw a power law and thin lines at the ends of its 95 % band; returns the law's values.

    A power law is a check on the prediction. Filled, its band would hide that where it is wide, as
    that of the loss often is.
    """
    low, high = law.interval(C)
    if positive:  # a logarithmic axis cannot show zero
        low = np.maximum(low, np.finfo(float).tiny)
    ax.plot(C, law(C), dashes, color=colour, label=label)
    for end in (low, high):
        ax.plot(C, end, dashes, color=colour, lw=0.7, alpha=0.6)
    return np.asarray(law(C))


def _optima_points(ax: Axes, optima: pd.DataFrame, quantity: str) -> list[np.ndarray]:
    """Draw the optima that were not refused; returns the values drawn."""
    valid = optima[(optima["refused"] == "") & np.isfinite(optima[quantity].astype(float))]
    if valid.empty:
        return []
    middle = valid[quantity].astype(float)
    # Lengths of the error bars below and above; NaN where there is no interval.
    errors = [middle - valid[f"{quantity}_low"], valid[f"{quantity}_high"] - middle]
    ax.errorbar(
        valid["compute_budget"], middle, np.maximum(0, np.nan_to_num(errors)), fmt="o",
        color="black", markersize=4, capsize=3, linewidth=1, zorder=ON_TOP + 1,
        label="IsoFLOP optima",
    )  # fmt: skip
    return [middle.to_numpy(float)]
