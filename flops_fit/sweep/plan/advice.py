"""Why a budget cannot be planned, and what would make it work.

Every piece of advice was tried on the planner first: with it, the budgets it is about have rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import Enum

from flops_fit.display.number_text import count
from flops_fit.laws.runs.exclusions import MOST_EPOCHS
from flops_fit.records import Skipped
from flops_fit.sweep.plan.isoflop_row import (
    FEW_STEPS,
    MIN_GIVEN_SIZES,
    MIN_RATIO,
    IsoflopRows,
    plural,
)
from flops_fit.sweep.task.model_cost import ModelCost

_MAX_DOUBLINGS = 40  # of a budget or of the data, in search of one that works
_FIRST_STRIDE = 256.0  # factor between the first budgets tried in search of the largest


class _Verdict(Enum):
    """Whether a budget can be planned."""

    PLANNED = "planned"
    TOO_SMALL = "too small"
    TOO_LARGE = "too large"


def why_not(rows: IsoflopRows, budget: float, skipped: list[Skipped]) -> str:
    """Why the sizes that are feasible at a budget show no minimum.

    Args:
        rows: The planner's rows.
        budget: The budget, in FLOPs.
        skipped: The sizes that `rows.row(budget)` skipped.
    """
    if rows.finder.given is not None:
        reasons, too_few = _first_of_each_kind(skipped, rows.size_param), True
    else:
        reasons, too_few = _reasons(rows, budget), len(rows.row(budget)[0]) < rows.min_sizes
    if too_few:
        lack = f"fewer than {rows.min_sizes} sizes fit"
    else:
        lack = f"the sizes that fit differ by less than a factor of {MIN_RATIO:g} in N"
    return f"budget {budget:.3g}: {lack}; {', and '.join(reasons)}"


def on_one_side(rows: IsoflopRows, budgets: Sequence[float]) -> list[str]:
    """Messages on rows that do not surround the expected optimum; none if the sizes were given."""
    if rows.finder.given is not None:
        return []
    messages = []
    for budget in budgets:
        bounds = rows.bounds(budget)
        if bounds.one_sided:
            messages.append(
                f"budget {budget:.3g}: the optimum is expected near {count(bounds.expected)} "
                f"parameters, but {', and '.join(_reasons(rows, budget))}"
            )
    change = _least_change(rows, budgets) if messages else ""
    if change:
        messages.append(f"with {change}, every budget has sizes on both sides of its optimum")
    return messages


def what_would_work(
    rows: IsoflopRows, budgets: Sequence[float], wanted: str = "all requested budgets work"
) -> list[str]:
    """Messages: the change by which what is wanted works, and the budgets that work without one."""
    change = _least_change(rows, budgets)
    messages = []
    if change:
        messages.append(f"{wanted} with {change}")
    if "training example" in change and "max_epochs" not in change:
        messages += filter(None, [_with_other_settings(rows, budgets)])  # with the data at hand
    if window := _feasible_window(rows):
        messages.append(f"{_window_text(*window)} work with the present settings")
    if not messages:
        messages.append(
            "no budget gets a full row of sizes with this model and dataset; "
            + "; ".join(filter(None, (_with_other_settings(rows, budgets), _with_more_data(rows))))
        )
    return messages


def smallest_budget(rows: IsoflopRows) -> float | None:
    """The smallest budget that can be planned, to about a factor of two; None if there is none."""
    budget = _rounded(_too_short_budget(rows))
    for _ in range(_MAX_DOUBLINGS):
        verdict = _verdict(rows, budget)
        if verdict is not _Verdict.TOO_SMALL:
            return budget if verdict is _Verdict.PLANNED else None
        budget = _rounded(2 * budget)
    return None


def is_planned(rows: IsoflopRows, budget: float) -> bool:
    """Whether a budget gets a row, around the expected optimum if the sizes were not given."""
    return _verdict(rows, budget) is _Verdict.PLANNED


def _window_text(low: float, high: float) -> str:
    least, most = f"{low:.1g}", f"{high:.1g}"
    if least == most:
        return f"budgets of about {least} FLOPs"
    upper = "" if math.isinf(high) else f" to about {most}"
    return f"budgets from about {least}{upper} FLOPs"


def _reasons(rows: IsoflopRows, budget: float) -> list[str]:
    """Reasons why the range of sizes of a budget is narrow."""
    bounds = rows.bounds(budget)
    reasons = []
    if bounds.smallest_above:
        smallest = plural(bounds.smallest_above, "parameter")
        reasons.append(f"even the smallest model, with {smallest}, is too large")
    if bounds.short_of_data:
        examples = plural(rows.source.num_examples or 0, "training example")
        reasons.append(
            f"models of fewer than {count(bounds.low)} parameters need more than "
            f"{rows.recipe.max_epochs:g} epochs of the {examples}"
        )
    if bounds.short_of_steps and not bounds.smallest_above:
        largest = rows.finder.nearest_cost(bounds.high)
        batch = plural(rows.least_batch(budget, largest), "example")
        reasons.append(
            f"models of more than {count(bounds.high)} parameters take fewer than {FEW_STEPS} "
            f"steps of {batch}"
        )
    between = f"between {count(bounds.low)} and {count(bounds.high)} parameters"
    return reasons or [f"the model comes in too few sizes {between}"]


def _first_of_each_kind(skipped: list[Skipped], size_param: str) -> list[str]:
    """One reason for lack of data and one for lack of steps, each with the smallest such size."""
    kinds = {"epochs" if "epochs" in skip.reason else "": skip for skip in reversed(skipped)}
    return [f"with {size_param}={skip.size}, {skip.reason}" for skip in kinds.values()]


def _least_change(rows: IsoflopRows, budgets: Sequence[float]) -> str:
    """The least change with which all budgets can be planned; empty if there is none.

    First the batch is made small enough, as if data were unlimited; then data are added until they
    suffice. Where more passes over the data cannot stand for those, a still smaller batch may.
    """
    change = _smaller_batch_or_more_data(rows, budgets)
    if change and ("training example" not in change or "max_epochs" in change):
        return change
    others = list(_settings(rows))[1:] if budgets else []
    settings = next((s for s in others if _all_planned(_with(rows, s), budgets)), None)
    if settings is None:
        return change
    return (
        f"{_as_recipe(rows, settings)}, or with {change}" if change else _as_recipe(rows, settings)
    )


def _smaller_batch_or_more_data(rows: IsoflopRows, budgets: Sequence[float]) -> str:
    changes = []
    if not _all_planned(_with_examples(rows, None), budgets):
        batch_size = _largest_batch(rows, budgets)
        if batch_size == 0:
            return ""
        rows = _with_batch(rows, batch_size)
        changes.append(f"Recipe(batch_size={batch_size})")
    if not _all_planned(rows, budgets):
        examples = _examples_needed(rows, budgets)
        if examples == 0:
            return ""
        change = f"about {plural(examples, 'training example')}"
        epochs = math.ceil(_limited_epochs(rows) * examples / (rows.source.num_examples or 1))
        if epochs <= MOST_EPOCHS:
            change += f" (or Recipe(max_epochs={epochs:g}), at the price of repeated data)"
        changes.append(change)
    return " and ".join(changes)


def _settings(rows: IsoflopRows) -> Iterator[tuple[int, float]]:
    """Batches and limits on epochs to try: few epochs first, and large batches.

    A batch of 0 is one that is left to the pilot.
    """
    most = max(rows.recipe.max_epochs, MOST_EPOCHS)
    epochs = rows.recipe.max_epochs
    while True:
        if "batch_size" in rows.tuned:
            yield 0, epochs
        else:
            batch = rows.batch_size(_too_short_budget(rows), _smallest_cost(rows))
            while batch:
                yield batch, epochs
                batch = max(1, batch // 4) if batch > 1 else 0
        if epochs >= most:
            return
        epochs = min(2 * epochs, most)


def _with(rows: IsoflopRows, settings: tuple[int, float]) -> IsoflopRows:
    batch, epochs = settings
    rows = _with_batch(rows, batch) if batch else rows
    return replace(rows, recipe=replace(rows.recipe, max_epochs=epochs))


def _as_recipe(rows: IsoflopRows, settings: tuple[int, float]) -> str:
    """The fields that differ from the present recipe."""
    batch, epochs = settings
    now = rows.batch_size(_too_short_budget(rows), _smallest_cost(rows))
    fields = [f"batch_size={batch}"] if batch and batch != now else []
    if epochs != rows.recipe.max_epochs:
        fields.append(f"max_epochs={epochs:g}")
    return f"Recipe({', '.join(fields)})"


def _largest_batch(rows: IsoflopRows, budgets: Sequence[float]) -> int:
    """The largest batch that leaves enough steps, by halving; 0 if even one example does not."""
    unlimited = _with_examples(rows, None)
    cost = _smallest_cost(rows)
    batch_size = max(rows.least_batch(budget, cost) for budget in budgets) // 2
    while batch_size and not _all_planned(_with_batch(unlimited, batch_size), budgets):
        batch_size //= 2
    return batch_size


def _examples_needed(rows: IsoflopRows, budgets: Sequence[float]) -> int:
    """Number of training examples that suffice for all budgets; 0 if none is found."""
    epochs = _limited_epochs(rows)
    rows = replace(rows, recipe=replace(rows.recipe, max_epochs=epochs))
    for examples in _more_examples(rows):
        if _all_planned(_with_examples(rows, examples), budgets):
            return examples
    return 0


def _limited_epochs(rows: IsoflopRows) -> float:
    """The recipe's limit on epochs; the fits exclude runs of more than `MOST_EPOCHS`."""
    return min(rows.recipe.max_epochs, MOST_EPOCHS)


def _with_more_data(rows: IsoflopRows) -> str:
    """The amount of data with which some budgets can be planned, and these budgets."""
    for examples in _more_examples(rows):
        if window := _feasible_window(_with_examples(rows, examples)):
            data = plural(examples, "training example")
            return f"with about {data}, {_window_text(*window)} would work"
    return "pass sizes=[...] of your own"


def _with_other_settings(rows: IsoflopRows, budgets: Sequence[float]) -> str:
    """The settings with most of these budgets, and with room for a decade of any, if there are."""
    best, text = (0, 0.0), ""
    for settings in list(_settings(rows))[1:]:
        changed = _with(rows, settings)
        if window := _feasible_window(changed):
            planned = sum(_all_planned(changed, [budget]) for budget in budgets)
            room = planned, min(window[1] / window[0], 10.0)
            if room > best:
                best = room
                text = f"with {_as_recipe(rows, settings)}, {_window_text(*window)} would work"
    return text


def _more_examples(rows: IsoflopRows) -> Iterator[int]:
    """Doubled numbers of training examples, rounded; none if the number is unknown."""
    examples = rows.source.num_examples or 0
    for power in range(1, _MAX_DOUBLINGS if examples else 0):
        yield int(_rounded(examples * 2.0**power))


def _with_examples(rows: IsoflopRows, examples: int | None) -> IsoflopRows:
    """The rows of a plan with so many training examples; None for as many as it takes."""
    return replace(rows, source=replace(rows.source, num_examples=examples))


def _with_batch(rows: IsoflopRows, batch_size: int) -> IsoflopRows:
    return replace(rows, recipe=replace(rows.recipe, batch_size=batch_size, batch_tokens=None))


def _all_planned(rows: IsoflopRows, budgets: Sequence[float]) -> bool:
    return all(_verdict(rows, budget) is _Verdict.PLANNED for budget in budgets)


def _feasible_window(rows: IsoflopRows) -> tuple[float, float] | None:
    """The smallest and the largest budget that can be planned, to about a factor of two.

    Budgets are rounded to one digit, as they are shown, so that the shown ones work.
    """
    low = smallest_budget(rows)
    if low is None:
        return None
    high = low
    if math.isinf(rows.max_tokens):
        return low, math.inf
    # Stride upwards, with smaller strides after each failure.
    stride = _FIRST_STRIDE
    while stride >= 2:
        candidate = _rounded(high * stride)
        if _verdict(rows, candidate) is _Verdict.PLANNED:
            high = candidate
        else:
            stride = math.sqrt(stride)
    return low, high


def _verdict(rows: IsoflopRows, budget: float) -> _Verdict:
    """Whether a budget gets a row, around the expected optimum if the sizes were not given."""
    if rows.finder.given is not None:
        trials, skipped = rows.row(budget)
        # Shorter trials are planned, with a warning, but never advised.
        if rows.can_show_minimum(trials) and min(trial.steps for trial in trials) >= FEW_STEPS:
            return _Verdict.PLANNED
        # Sizes for which the data last: if they are few, a larger budget only makes it worse.
        enough_data = len(trials) + sum("epochs" not in skip.reason for skip in skipped)
        return _Verdict.TOO_LARGE if enough_data < MIN_GIVEN_SIZES else _Verdict.TOO_SMALL
    bounds = rows.bounds(budget)
    if not (bounds.low < bounds.high and rows.can_show_minimum(rows.row(budget)[0])):
        return _Verdict.TOO_LARGE if bounds.short_of_data else _Verdict.TOO_SMALL
    if bounds.one_sided:
        # The smallest model may itself be larger than the expected optimum.
        lacks_data = bounds.short_of_data and bounds.low > bounds.expected
        return _Verdict.TOO_LARGE if lacks_data else _Verdict.TOO_SMALL
    return _Verdict.PLANNED


def _too_short_budget(rows: IsoflopRows) -> float:
    """A budget below which even the smallest model takes too few steps."""
    cost = _smallest_cost(rows)
    flops_per_example = cost.flops_per_token * rows.source.tokens_per_example
    budget = FEW_STEPS * flops_per_example
    for _ in range(_MAX_DOUBLINGS):  # the batch may grow with the budget
        budget = FEW_STEPS * rows.least_batch(budget, cost) * flops_per_example
    return budget


def _smallest_cost(rows: IsoflopRows) -> ModelCost:
    cost = rows.finder.cost(rows.finder.smallest())
    assert cost is not None
    return cost


def _rounded(value: float) -> float:
    """To one significant digit."""
    return float(f"{value:.1g}")
