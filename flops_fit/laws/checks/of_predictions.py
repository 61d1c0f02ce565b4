"""Checks of one prediction: how far it lies from the runs that the law was fitted to."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pandas as pd

from flops_fit.display.number_text import count, flops, percent, times
from flops_fit.laws.check import Check
from flops_fit.laws.model.arrays import Array
from flops_fit.laws.model.power_law import PowerLaws
from flops_fit.laws.model.recipe_law import RecipeLaw
from flops_fit.laws.model.repetition_law import WORN_OUT, RepetitionLaw

# Extrapolation factor C / (largest budget). Published laws were checked over about two decades.
FAR = 100.0
TOO_FAR = 1000.0
# Tokens per parameter may leave the range of the runs by this factor.
RATIO_MARGIN = 1.5
# A recipe is known if its 95 % interval is narrower than this factor.
WIDE_RECIPE = 10.0


NOT_RELIABLE = "neither the values nor their intervals are to be relied on"


def check_prediction(
    factor: float, *, has_interval: bool, cost_extrapolated: bool = False
) -> list[Check]:
    """Find a budget far beyond the runs, or a size whose cost was not measured.

    Warns above 100 times the largest budget. Refuses above 1000 times where there is no interval
    to show how uncertain the prediction is.

    Args:
        factor: C over the largest budget.
        has_interval: Whether the prediction has an interval.
        cost_extrapolated: Whether FLOPs per token are extrapolated at its N.
    """
    checks = []
    if factor > FAR:
        refused = factor > TOO_FAR and not has_interval
        message = f"the budget is {times_the_largest(factor)} times the largest one of the sweep"
        # Shown because it was asked for.
        beyond = f", beyond the reach of its runs (at most {times(TOO_FAR)} times): {NOT_RELIABLE}"
        message += f"{beyond if factor > TOO_FAR else ''}."
        advice = "Add a budget nearer to it."
        checks.append(Check("far-extrapolation", "refuse" if refused else "warn", message, advice))
    if cost_extrapolated:
        message = "What a model of this size costs is extrapolated from the sizes trained."
        checks.append(
            Check("cost-extrapolated", "note", message, "Build the model and count them.")
        )
    return checks


def times_the_largest(factor: float) -> str:
    """C over the largest budget as text: "over 1,000" where only rounding hides that it is more."""
    text = times(factor)
    rounded_away = factor > TOO_FAR and text == times(TOO_FAR)
    return f"over {text}" if rounded_away else text


def check_reach(wanted: Mapping[str, Array], fitted_runs: pd.DataFrame) -> list[Check]:
    """Find N or D that lies far beyond the runs though C does not, above or below.

    Args:
        wanted: N and D of the predictions by name, shape (k,) each.
        fitted_runs: The runs that take part in the fits.
    """
    far = []
    for name, values in wanted.items():
        trained = fitted_runs[name].astype(float)
        above, below = values.max() / trained.max(), values.min() / trained.min()
        far += [f"{name} is {times(above)} times the largest of the runs"] if above > FAR else []
        far += [f"{name} is {below:.3g} times the smallest of the runs"] if below < 1 / FAR else []
    if not far:
        return []
    return [Check("far-extrapolation", "warn", f"{'; '.join(far)}.", "Add runs nearer to it.")]


def check_recipe(recipe: RecipeLaw, row: Mapping[str, float], largest: float) -> list[Check]:
    """Find a learning rate or a batch size that is extrapolated far, or hardly known.

    Args:
        recipe: The recipe law.
        row: One row of the predictions.
        largest: The largest budget of the sweep, FLOPs; far beyond it `check_prediction` warns.
    """
    C, doubts = row["compute_budget"], []
    if C > FAR * recipe.largest_budget and not C > FAR * largest:
        found = " and ".join(recipe.tuned).replace("_", " ")
        were = "was" if len(recipe.tuned) == 1 else "were"
        doubts.append(
            f"{found} {were} found at up to {flops(recipe.largest_budget)} FLOPs, far below this"
        )
    for name in recipe.tuned:
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        if not high <= WIDE_RECIPE * low:
            factor = high / low if low > 0 else math.inf
            name = name.replace("_", " ")
            doubts.append(f"{name} is known within a factor of {times(factor)} only")
    if not doubts:
        return []
    advice = "Try a few values in short runs first."
    return [Check("recipe-uncertain", "warn", f"{'; '.join(doubts)}.", advice)]


def check_without_law(power_laws: PowerLaws) -> list[Check]:
    """Warn that a prediction rests on the IsoFLOP power laws alone.

    Args:
        power_laws: The laws through the IsoFLOP minima; the loss is missing where `l_opt` was
            refused.
    """
    message = "predicted from the IsoFLOP power laws alone, without intervals"
    reason = power_laws.l_opt.refused
    message += f"; no loss is predicted: {reason}." if reason else "."
    return [Check("no-parametric-law", "warn", message, "See the checks of the result.")]


def check_ratio(ratio: float, fitted_runs: pd.DataFrame, data_unit: str = "tokens") -> list[Check]:
    """Find a ratio of tokens to parameters outside the range of the runs.

    Warns beyond 1.5 times the largest ratio, or below the smallest over 1.5.

    Args:
        ratio: Tokens per parameter of the prediction.
        fitted_runs: The runs that take part in the fits.
        data_unit: What D counts.
    """
    trained = (fitted_runs["num_tokens"] / fitted_runs["num_params"]).astype(float)
    low, high = float(trained.min()), float(trained.max())
    if low / RATIO_MARGIN <= ratio <= high * RATIO_MARGIN:
        return []
    message = (
        f"the prediction has {ratio:.3g} {data_unit} per parameter, "
        f"the runs have {low:.3g} to {high:.3g}."
    )
    advice = "Train some runs at such a ratio: the law was not fitted there."
    return [Check("ratio-beyond-data", "warn", message, advice)]


def check_worn_out_data(
    law: RepetitionLaw, num_tokens: float, unique_tokens: float, data_unit: str = "tokens"
) -> list[Check]:
    """Find data repeated so often that another pass has almost no value.

    Warns where one more token is worth less than 5 % of a new one. Its worth decays as
    exp(-R_D / R_D*), R_D repetitions (Muennighoff et al. 2023, section 3.1).

    Args:
        law: The law for repeated data.
        num_tokens: D of the prediction.
        unique_tokens: Unique tokens available.
        data_unit: What D counts.
    """
    passes = num_tokens / unique_tokens
    worth = math.exp(-max(passes - 1, 0.0) / law.r_data)
    if worth >= WORN_OUT:
        return []
    message = (
        f"{count(unique_tokens)} unique {data_unit} are seen {times(passes)} times: one more is "
        f"worth {percent(worth)} of a new one."
    )
    advice = "More compute hardly lowers the loss: find more data, or spend less."
    return [Check("data-worn-out", "warn", message, advice)]


def check_published_constants(
    law: RepetitionLaw, num_tokens: float, unique_tokens: float
) -> list[Check]:
    """Note a prediction on repeated data with published constants instead of fitted ones.

    Args:
        law: The law for repeated data; a constant whose standard error is None was not fitted.
        num_tokens: D of the prediction.
        unique_tokens: Unique tokens available.
    """
    if num_tokens <= unique_tokens:
        return []
    constants = {"R_D*": (law.r_data, law.fading_error), "R_N*": (law.r_params, law.params_error)}
    published = " and ".join(
        f"{name} = {value:.4g}"
        for name, (value, error) in constants.items()
        if error is None and math.isfinite(value)
    )
    if not published:
        return []
    message = (
        f"{published} of Muennighoff et al. 2023, not fitted to these runs: the interval leaves "
        "their uncertainty out."
    )
    advice = "They are fitted where runs of several epochs record their unique_tokens."
    return [Check("repetition-assumed", "note", message, advice)]
