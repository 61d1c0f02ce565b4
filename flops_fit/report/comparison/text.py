"""A comparison in words and as text cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from flops_fit.display import number_text
from flops_fit.laws.comparison.contrast import Contrast

INTERVAL = "95 %"
# The verdict is given at the largest budget that both have, and this much beyond.
BEYOND = 10.0
# More repetitions than this are not worth telling.
MOST_TIMES = 100.0


def verdict(names: tuple[str, str], contrast: Contrast) -> str:
    """Which of two sweeps is better, by how much, and where that changes.

    Args:
        names: Of the first and of the second sweep.
        contrast: The comparison.
    """
    at = contrast.common[1]
    budgets = np.array([C for C in (at, BEYOND * at) if C <= contrast.reach * (1 + 1e-9)])
    rows = contrast.at(budgets).to_dict("records")
    found = [_sentence(names, row, contrast, i) for i, row in enumerate(rows)]
    crossing = contrast.crossing()
    if crossing is not None:
        better = names[1] if crossing.better_beyond else names[0]
        ends = f"{number_text.flops(crossing.low)} to {number_text.flops(crossing.high)}"
        found.append(
            f"The losses are equal at {number_text.flops(crossing.C)} FLOPs ({INTERVAL} {ends}); "
            f"{better} is better beyond."
        )
    return " ".join([*found, *_of_pairs(names, contrast), *_of_reach(contrast)])


def _of_pairs(names: tuple[str, str], contrast: Contrast) -> list[str]:
    """What pairing has given."""
    if contrast.pairs is not None:
        return [
            f"{contrast.pairs.count} runs of each match by budget and size, and their errors agree "
            f"(correlation {contrast.pairs.correlation:.2f}): what they share is left out of the "
            "intervals."
        ]
    if _were_paired(contrast):
        return [
            f"{names[1]} was trained paired, but its runs are not seen to err as those of "
            f"{names[0]} do: nothing cancels."
        ]
    return []


def _were_paired(contrast: Contrast) -> bool:
    """Whether one of the sweeps was trained with the random state of the other."""
    metas = contrast.first.meta, contrast.second.meta
    return any(
        meta.get("paired_with", "") == other.get("name") != ""
        for meta, other in (metas, metas[::-1])
        if "paired_with" in meta
    )


def _of_reach(contrast: Contrast) -> list[str]:
    """Where the comparison ends, if that is before ten times the largest budget."""
    if contrast.reach >= BEYOND * contrast.common[1] * (1 - 1e-9):
        return []
    return [
        f"Beyond {number_text.flops(contrast.reach)} FLOPs one of the sweeps predicts nothing: see "
        "its checks."
    ]


def _sentence(names: tuple[str, str], row: Mapping[Any, float], contrast: Contrast, i: int) -> str:
    """What is told of one budget."""
    C = row["compute_budget"]
    first, second = names
    beyond = row["extrapolation"]
    where = f"At {number_text.flops(C)} FLOPs"
    if beyond > 1.1:
        where += f", {number_text.times(beyond)} times the largest budget"
    told = not row["loss_difference_low"] <= 0 <= row["loss_difference_high"]
    if not told:
        return f"{where}, {_untold(names, row, contrast, i)}"
    difference, low, high = (row[f"loss_difference{end}"] for end in ("", "_low", "_high"))
    sizes = sorted((abs(low), abs(high)))
    by = f"{abs(difference):.3g} ({sizes[0]:.3g} to {sizes[1]:.3g})"
    factor, ends = row["multiplier"], (row["multiplier_low"], row["multiplier_high"])
    if difference < 0:
        reached = (
            f"reaches the loss of {first} with {factor_text(factor)} times less compute "
            f"({INTERVAL} {_factors(*ends)})"
        )
        return f"{where}, {second} is better: it {reached}. Its loss is lower by {by}."
    need = f"needs {_inverse(factor):.3g} times as much compute for the same loss"
    if factor == 0:
        need = "does not reach the same loss with any compute that is looked at"
    elif ends[1] > 0:
        need += f" ({INTERVAL} {_factors(_inverse(ends[1]), _inverse(ends[0]))})"
    return f"{where}, {first} is better: {second} {need}. Its loss is higher by {by}."


def _untold(names: tuple[str, str], row: Mapping[Any, float], contrast: Contrast, i: int) -> str:
    """That a difference cannot be told, and what would tell it."""
    need = _share(names, _inverse(row["multiplier_high"]), _inverse(row["multiplier_low"]))
    text = (
        f"it cannot be told which is better: {need}(probability that {names[1]} is "
        f"better: {_probability(row['probability_better'])})."
    )
    if i > 0:
        return text
    times = contrast.factor_to_tell(row["compute_budget"])
    if not times <= MOST_TIMES:
        pairs = "" if contrast.pairs or _were_paired(contrast) else ", or pairs,"
        return f"{text} Repeating these runs would not tell; larger budgets{pairs} might."
    runs = [findings.fitted_runs["flops"].sum() for findings in (contrast.first, contrast.second)]
    more = number_text.flops(float(np.nansum(runs)) * (times - 1), 2)
    return (
        f"{text} If the difference is as large as it seems, about {more} FLOPs more (each run "
        f"{times:.1f} times) would tell."
    )


def cells(table: pd.DataFrame) -> pd.DataFrame:
    """A table of a comparison as text cells, with intervals in columns of their own."""
    columns: dict[str, Sequence[str]] = {}
    if "sweep" in table:
        columns["sweep"] = table["sweep"].astype(str).tolist()
    columns |= {
        "C, FLOPs": [number_text.flops(C) for C in table["compute_budget"]],
        "multiplier": [factor_text(value) for value in table["multiplier"]],
        f"multiplier, {INTERVAL}": [
            _factors(*ends) for ends in _rows(table, "multiplier_low", "multiplier_high")
        ],
        "loss difference": [_signed(value) for value in table["loss_difference"]],
        f"difference, {INTERVAL}": [
            f"{_signed(low)} to {_signed(high)}"
            for low, high in _rows(table, "loss_difference_low", "loss_difference_high")
        ],
        "probability": [_probability(p) for p in table["probability_better"]],
        "C / largest": [number_text.times(factor) for factor in table["extrapolation"]],
    }
    return pd.DataFrame(columns)


def _rows(table: pd.DataFrame, *names: str) -> list[tuple[float, ...]]:
    return [tuple(row) for row in table[list(names)].to_numpy(float)]


def factor_text(factor: float) -> str:
    """A multiplier: 1.52; "none" for a loss that is not reached."""
    if factor == 0:
        return "none"
    return "any" if math.isinf(factor) else f"{factor:.3g}"


def _factors(low: float, high: float) -> str:
    if low == 0 and math.isinf(high):
        return "not known"
    if math.isinf(high):
        return f"at least {low:.3g}"
    return f"at most {high:.3g}" if low == 0 else f"{low:.3g} to {high:.3g}"


def _share(names: tuple[str, str], low: float, high: float) -> str:
    """The compute that the second sweep needs, as a share of the first's."""
    if low == 0 and math.isinf(high):
        return ""
    span = f"between {low:.3g} and {high:.3g}"
    if math.isinf(high):
        span = f"at least {low:.3g}"
    elif low == 0:
        span = f"at most {high:.3g}"
    return f"{names[1]} needs {span} times the compute of {names[0]} "


def _probability(p: float) -> str:
    if not 0.005 <= p <= 0.995:
        return "under 1 %" if p < 0.5 else "over 99 %"
    return number_text.percent(p)


def _inverse(factor: float) -> float:
    return math.inf if factor == 0 else 1 / factor


def _signed(value: float) -> str:
    return "not known" if not math.isfinite(value) else f"{value:+.3g}"
