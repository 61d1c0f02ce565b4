"""Why a budget cannot be planned, and what could be.

What is advised was tried first: a budget that is named has a row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from flops_fit.sweep.checks import FEWEST_SIZES
from flops_fit.sweep.grid import Skipped
from flops_fit.sweep.rows import FEW_STEPS, FEWEST_STEPS, Rows, plural

_MOST_DOUBLINGS = 40  # over which something that works is looked for
_FIRST_STRIDE = 256.0
_PLANNED, _TOO_SMALL, _TOO_LARGE = "planned", "too small", "too large"


def why_not(rows: Rows, budget: float, passed: list[Skipped]) -> str:
    """Why fewer than `FEWEST_SIZES` sizes serve a budget."""
    reasons = _reasons(rows, budget) if rows.finder.given is None else _first_of_each_kind(passed)
    return f"budget {budget:.3g}: fewer than {FEWEST_SIZES} sizes fit; {', and '.join(reasons)}"


def what_would_work(rows: Rows) -> str:
    """The budgets that can be planned; where there are none, the data or the batch it takes."""
    window = _window(rows)
    if window is None:
        return _other_data(rows)
    low, high = window
    if math.isinf(high):
        return f"budgets from about {low:.1g} FLOPs work; smaller ones need a smaller batch_size"
    return (
        f"budgets from about {low:.1g} to about {high:.1g} FLOPs work; smaller ones need a smaller "
        "batch_size, larger ones more data or Recipe(max_epochs=...)"
    )


def _reasons(rows: Rows, budget: float) -> list[str]:
    bounds, epochs = rows.bounds(budget), rows.recipe.max_epochs
    reasons = []
    if bounds.beyond:
        reasons.append(f"the smallest model has {plural(bounds.beyond, 'parameter')}, too many")
    if bounds.short_of_data:
        data = plural(rows.source.num_examples or 0, "training example")
        reasons.append(
            f"models of fewer than {_count(bounds.low)} parameters need more than {epochs:g} "
            f"epochs of the {data}"
        )
    if bounds.short_of_steps and not bounds.beyond:
        batch = plural(rows.batch_size(budget), "example")
        reasons.append(
            f"models of more than {_count(bounds.high)} parameters take fewer than {FEW_STEPS} "
            f"steps of {batch}"
        )
    between = f"between {_count(bounds.low)} and {_count(bounds.high)} parameters"
    return reasons or [f"the model comes in fewer sizes {between}"]


def _first_of_each_kind(passed: list[Skipped]) -> list[str]:
    kinds = {"epochs" if "epochs" in skip.reason else "": skip.reason for skip in reversed(passed)}
    return list(kinds.values())


def _window(rows: Rows) -> tuple[float, float] | None:
    """The least and the largest budget that can be planned, to about a factor of two."""
    budget = _rounded(_shortest(rows))
    for _ in range(_MOST_DOUBLINGS):
        verdict = _verdict(rows, budget)
        if verdict != _TOO_SMALL:
            break
        budget = _rounded(2 * budget)
    if verdict != _PLANNED:
        return None
    low = high = budget
    if math.isinf(rows.most_tokens):
        return low, math.inf
    stride = _FIRST_STRIDE
    while stride >= 2:
        if _verdict(rows, tried := _rounded(high * stride)) == _PLANNED:
            high = tried
        else:
            stride = math.sqrt(stride)
    return low, high


def _verdict(rows: Rows, budget: float) -> str:
    if rows.finder.given is not None:
        trials, skipped = rows.row(budget)
        lasting = len(trials) + sum("epochs" not in skip.reason for skip in skipped)
        if len(trials) >= FEWEST_SIZES:
            return _PLANNED
        return _TOO_LARGE if lasting < FEWEST_SIZES else _TOO_SMALL
    bounds = rows.bounds(budget)
    if bounds.low < bounds.high and len(rows.row(budget)[0]) >= FEWEST_SIZES:
        return _PLANNED
    return _TOO_LARGE if bounds.short_of_data else _TOO_SMALL


def _shortest(rows: Rows) -> float:
    """A budget under which even the smallest model takes too few steps."""
    given = rows.finder.given is not None
    cost = rows.finder.cost(rows.finder.smallest())
    assert cost is not None
    per_batch = (FEWEST_STEPS if given else FEW_STEPS) * cost.flops_per_token
    budget = per_batch * rows.source.tokens_per_example
    for _ in range(_MOST_DOUBLINGS):  # the batch may grow with the budget
        budget = per_batch * rows.batch_size(budget) * rows.source.tokens_per_example
    return budget


def _other_data(rows: Rows) -> str:
    examples = next(_more_examples(rows), None)
    batch = next(_smaller_batches(rows), None)
    ways = []
    if examples:
        ways.append(f"about {plural(examples, 'training example')}")
    if batch:
        ways.append(f"Recipe(batch_size={batch})")
    if rows.finder.given is None:
        ways.append("sizes=[...] chosen by you")
    return f"no budget works with this model and these data; try {', or '.join(ways)}"


def _more_examples(rows: Rows) -> Iterator[int]:
    """Counts of training examples with which some budget can be planned."""
    examples = rows.source.num_examples or 0
    for power in range(1, _MOST_DOUBLINGS if examples else 0):
        more = int(_rounded(examples * 2.0**power))
        if _window(replace(rows, source=replace(rows.source, num_examples=more))):
            yield more


def _smaller_batches(rows: Rows) -> Iterator[int]:
    """Batch sizes with which some budget can be planned."""
    batch = rows.batch_size(_shortest(rows)) // 2
    while batch:
        if _window(replace(rows, recipe=replace(rows.recipe, batch_size=batch))):
            yield batch
        batch //= 2


def _count(num_params: float) -> str:
    return f"{num_params:,.0f}" if num_params < 1e6 else f"{num_params:.3g}"


def _rounded(value: float) -> float:
    return float(f"{value:.1g}")
