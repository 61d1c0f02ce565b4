"""Plots of a comparison: the loss of every sweep against C, and the multiplier against C."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from flops_fit.laws.comparison.contrast import Contrast
from flops_fit.laws.comparison.multiplier import PER_DECADE
from flops_fit.laws.predict.tables import frontier_to_draw
from flops_fit.report.plots import style
from flops_fit.report.plots.style import COLOURS, SHADE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Beyond these factors the axis of the multiplier does not go, however wide an interval is.
WIDEST = 30.0


def plot_comparison(names: Sequence[str], contrasts: Sequence[Contrast]) -> Figure:
    """Both laws with their bands, and the multiplier against C.

    Args:
        names: Of the first sweep, and of each that it is compared with.
        contrasts: The comparisons with the first.
    """
    figure, (losses, multipliers) = style.new_figure(2)
    C = _budgets(contrasts)
    largest = contrasts[0].common[1]
    _draw_losses(losses, names, contrasts, C)
    _draw_multipliers(multipliers, names, contrasts, C)
    for ax in (losses, multipliers):
        if C[-1] > 1.01 * largest:
            ax.axvspan(largest, C[-1], color=SHADE, alpha=0.15, lw=0, label="extrapolation")
        ax.set(xscale="log", xlabel="compute budget C, FLOPs", xlim=(C[0], C[-1]))
        ax.legend(fontsize="small")
    return figure


def _budgets(contrasts: Sequence[Contrast]) -> np.ndarray:
    low = min(contrast.common[0] for contrast in contrasts)
    high = min(min(contrast.reach for contrast in contrasts), 100 * contrasts[0].common[1])
    return np.geomspace(low, high, max(2, round(math.log10(high / low) * PER_DECADE)))


def _draw_losses(
    ax: Axes, names: Sequence[str], contrasts: Sequence[Contrast], C: np.ndarray
) -> None:
    sweeps = [contrasts[0].first, *(contrast.second for contrast in contrasts)]
    drawn = []
    for i, (name, findings) in enumerate(zip(names, sweeps, strict=True)):
        unit = contrasts[0].bytes_per_token[0] if i == 0 else contrasts[i - 1].bytes_per_token[1]
        band = frontier_to_draw(findings, C)
        middle, low, high = (
            band[column].to_numpy(float) / unit for column in ("loss", "loss_low", "loss_high")
        )
        colour = COLOURS[i % len(COLOURS)]
        ax.plot(C, middle, color=colour, label=_label(name))
        ax.fill_between(C, low, high, color=colour, alpha=0.2, lw=0)
        drawn.append(middle)
    per = " per byte" if contrasts[0].per_byte else ""
    ax.set(ylabel=f"held-out loss{per} of the best model")
    style.frame(ax, np.concatenate(drawn), logarithmic=False)


def _draw_multipliers(
    ax: Axes, names: Sequence[str], contrasts: Sequence[Contrast], C: np.ndarray
) -> None:
    seen = [np.array([1 / 1.1, 1.1])]
    for i, contrast in enumerate(contrasts):
        table = contrast.at(C)
        middle, low, high = (
            table[name].to_numpy(float)
            for name in ("multiplier", "multiplier_low", "multiplier_high")
        )
        colour = COLOURS[(i + 1) % len(COLOURS)]
        within = (middle > 0) & np.isfinite(middle)
        low, high = np.clip(low, 1e-6, 1e6), np.clip(high, 1e-6, 1e6)
        ax.plot(C[within], middle[within], color=colour, label=f"{_label(names[i + 1])}, 95 %")
        ax.fill_between(C, low, high, color=colour, alpha=0.2, lw=0)
        inside = C <= 1.01 * contrast.common[1]
        seen += [low[inside], high[inside], middle[within]]
    ax.axhline(1.0, color="black", lw=1, ls=":")
    ax.set_yscale("log")
    ax.set(ylabel=f"compute of {_label(names[0])} over that for the same loss")
    shown = np.concatenate(seen)
    style.frame(ax, np.clip(shown, 1 / WIDEST, WIDEST), logarithmic=True)
    _label_factors(ax)


def _label(name: str) -> str:
    """A name as it is: Matplotlib takes a dollar for mathematics, and hides what begins with _."""
    return (name if not name.startswith("_") else f" {name}").replace("$", r"\$")


def _label_factors(ax: Axes) -> None:
    """Tick labels such as 0.5, 1, 2, also where the axis spans less than a decade."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    low, high = ax.get_ylim()
    subs = (1.0, 2.0, 5.0) if high / low > 5 else (1.0, 1.2, 1.5, 2.0, 3.0, 5.0, 7.0, 8.0, 9.0)
    ax.yaxis.set_major_locator(LogLocator(subs=subs))
    ax.yaxis.set_major_formatter(ScalarFormatter())
    ax.yaxis.set_minor_formatter(NullFormatter())
