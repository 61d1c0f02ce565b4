"""Checks of the law itself: whether it holds along the rows, and what follows where it does not."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from flops_fit.display.number_text import between, count, loss, percent, times
from flops_fit.laws.check import Check
from flops_fit.laws.findings import TUNED_FIT, Findings
from flops_fit.laws.inference.lack_of_fit import LackOfFit, RowMisfit

# Rows that are named, and the share of the misfit up to which.
MOST_NAMED, ENOUGH = 2, 2 / 3
# What is said of a row: a level of this many times the noise, a minimum off by this much in ln N,
# and a curvature off by this many standard errors.
LEVEL, SHIFT, BEND = 0.5, 0.1, 3.0
# Intervals this many times as wide as the law's are mentioned.
WIDER = 1.1
# A recipe is uneven if N_opt would be another by this factor with the best one.
UNEVEN = 1.15
# Checks that a law which does not hold raises too.
CONSEQUENCES = frozenset({"residual-over-seed", "objectives-disagree", "backtest"})


def check_uneven_recipe(findings: Findings) -> list[Check]:
    """Warn if learning rates or batches cost some sizes so much more that N_opt is another."""
    law, tuned = findings.law, findings.fits.get(TUNED_FIT)
    if law is None or tuned is None:
        return []
    C = findings.largest_budget
    ratio = float(tuned.law.n_opt(C) / law.n_opt(C))
    if max(ratio, 1 / ratio) < UNEVEN:
        return []
    message = (
        "learning rate and batch suited some sizes better than others: with the best ones, by the "
        f"recipe law, N_opt at {C:.3g} FLOPs would be {times(ratio)} times as large. The intervals "
        "hold that."
    )
    advice = "See plot('recipe'); train again with the recipe of result.recipe_law."
    return [Check("uneven-recipe", "warn", message, advice)]


def check_lack_of_fit(found: LackOfFit | None, effect: Mapping[str, float]) -> list[Check]:
    """Warn if the law does not follow the rows, and say what that does to the answer.

    Args:
        found: What the law misses; None if nothing.
        effect: At the largest budget: N and loss as predicted (`num_params`, `loss`) and by the law
            alone (`law_num_params`, `law_loss`), and how many times as wide as the law's the
            interval of the loss is (`wider`).
    """
    if found is None:
        return []
    named, share = [], 0.0
    for row in found.rows[:MOST_NAMED]:
        named.append(f"at C = {row.budget:.3g}: {_how(row, found.noise)}")
        share += row.share
        if share > ENOUGH:
            break
    message = (
        f"the law does not hold along the rows (F {found.F:.2g}): it misses their curves by "
        f"{percent(found.misfit)}, noise is {percent(found.noise)}. It is worst "
        f"{'; '.join(named)}. Predictions allow for it: at the largest budget "
        f"N {count(effect['num_params'])} (the law alone {count(effect['law_num_params'])}), "
        f"loss {loss(effect['loss'])} ({loss(effect['law_loss'])})"
    )
    if effect["wider"] > WIDER:
        message += f", its interval {effect['wider']:.1f} times as wide as the law's"
    advice = "Intervals of predictions hold this misfit; errors of the law's parameters do not."
    return [Check("lack-of-fit", "warn", f"{message}.", advice)]


def without_consequences(checks: list[Check]) -> list[Check]:
    """The checks without those that only repeat that the law does not hold."""
    return [check for check in checks if check.code not in CONSEQUENCES]


def check_approaches(levels: pd.DataFrame) -> list[Check]:
    """Warn if the approaches give N_opt with 95 % intervals that do not overlap.

    Args:
        levels: One row per budget and approach, the parametric law first: `compute_budget`,
            `approach`, `value`, `low` and `high` of N_opt, and `weight` in the headline.
    """
    for C, rows in levels.groupby("compute_budget"):
        law = rows.iloc[0]
        apart = (rows["low"] > law["high"]) | (rows["high"] < law["low"])
        if not apart.any():
            continue
        listed = ", ".join(
            f"{row['approach']} {count(row['value'])} "
            f"({between(row['low'], row['high'], count)}, counts {percent(row['weight'])})"
            for row in rows.to_dict("records")
        )
        message = f"the approaches disagree on N_opt at {C:.3g} FLOPs: {listed}."
        advice = "Their mean is predicted: rely on it where runs bracket it, not far beyond."
        return [Check("approaches-disagree", "warn", message, advice)]
    return []


def _how(row: RowMisfit, noise: float) -> str:
    """How the law misses a row, in words."""
    words = []
    if abs(row.level) > LEVEL * noise:
        words.append(f"{percent(abs(row.level))} too {'high' if row.level > 0 else 'low'}")
    if abs(row.shift) > SHIFT:
        words.append(f"minimum at {np.exp(row.shift):.2g} times the N")
    if abs(row.bend) > BEND:
        words.append("too flat" if row.bend > 0 else "too curved")
    return ", ".join(words) or "off at its ends"
