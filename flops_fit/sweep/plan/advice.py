"""Why a budget cannot be planned, and what could be.

What is advised was tried first: with it, the budgets that are named have rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from flops_fit.laws.runs.exclusions import MOST_EPOCHS
from flops_fit.records import Skipped
from flops_fit.sweep.plan.isoflop_row import (
    FEW_STEPS,
    FEWEST_SIZES,
    FEWEST_STEPS,
    NARROW,
    Rows,
    plural,
)

_MOST_DOUBLINGS = 40  # over which something that works is looked for
_FIRST_STRIDE = 256.0
_PLANNED, _TOO_SMALL, _TOO_LARGE = "planned", "too small", "too large"


def why_not(rows: Rows, budget: float, passed: list[Skipped]) -> str:
    """Why the sizes that serve a budget show no minimum."""
    if rows.finder.given is not None:
        reasons, few = _first_of_each_kind(passed), True
    else:
        reasons, few = _reasons(rows, budget), len(rows.row(budget)[0]) < rows.fewest_sizes
    least = (
        f"fewer than {rows.fewest_sizes} sizes" if few else f"no sizes a factor of {NARROW:g} apart"
    )
    return f"budget {budget:.3g}: {least} fit; {', and '.join(reasons)}"


def on_one_side(rows: Rows, budgets: Sequence[float]) -> list[str]:
    """What is said of rows that leave out the optimum to expect; nothing of sizes given."""
    if rows.finder.given is not None:
        return []
    said = [
        f"budget {budget:.3g}: the optimum is expected near {_count(bounds.expected)} parameters, "
        f"but {', and '.join(_reasons(rows, budget))}"
        for budget in budgets
        if (bounds := rows.bounds(budget)).one_sided
    ]
    change = _change(rows, budgets) if said else ""
    return said + ([f"rows lie around it with {change}"] if change else [])


def what_would_work(rows: Rows, budgets: Sequence[float]) -> list[str]:
    """What to change for these budgets, and the budgets that work as things are."""
    window = _window(rows)
    said = [] if window is None else [_said_of_window(*window)]
    change = _change(rows, budgets)
    if change:
        return [f"all the budgets asked for work with {change}", *said]
    if window is None:
        said = [
            f"no budget has a whole row with this model and these data; {_with_more_data(rows)}"
        ]
    return said


def _said_of_window(low: float, high: float) -> str:
    if math.isinf(high):
        return f"budgets from about {low:.1g} FLOPs work as things are"
    return f"budgets from about {low:.1g} to about {high:.1g} FLOPs work as things are"


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


def _change(rows: Rows, budgets: Sequence[float]) -> str:
    """The least change with which every one of the budgets can be planned; empty if there is none.

    Smaller batches first, as though there were data without end; then as much data as it takes.
    """
    batch = _largest_batch(rows, budgets)
    if batch == 0:
        return ""
    ways = []
    if batch is not None:
        rows = replace(rows, recipe=replace(rows.recipe, batch_size=batch, batch_tokens=None))
        ways.append(f"Recipe(batch_size={batch})")
    if not _all_planned(rows, budgets):
        examples, epochs = _data_it_takes(rows, budgets)
        if not examples:
            return ""
        more = f"about {plural(examples, 'training example')}"
        if epochs:
            more += f" (or Recipe(max_epochs={epochs:g}), at the price of repeated data)"
        ways.append(more)
    return " and ".join(ways)


def _largest_batch(rows: Rows, budgets: Sequence[float]) -> int | None:
    """The batch that leaves steps enough: None as it is, 0 where even one example does not."""
    endless = replace(rows, source=replace(rows.source, num_examples=None))
    if _all_planned(endless, budgets):
        return None
    batch = max(map(rows.batch_size, budgets)) // 2
    while batch:
        recipe = replace(rows.recipe, batch_size=batch, batch_tokens=None)
        if _all_planned(replace(endless, recipe=recipe), budgets):
            break
        batch //= 2
    return batch


def _data_it_takes(rows: Rows, budgets: Sequence[float]) -> tuple[int, float]:
    """Training examples that do, and the epochs that do instead, 0 where those are too many."""
    examples, passes = rows.source.num_examples or 0, rows.recipe.max_epochs
    rows = replace(rows, recipe=replace(rows.recipe, max_epochs=min(passes, MOST_EPOCHS)))
    for more in _more_examples(rows):
        if _all_planned(replace(rows, source=replace(rows.source, num_examples=more)), budgets):
            epochs = math.ceil(rows.recipe.max_epochs * more / examples)
            return more, epochs if epochs <= MOST_EPOCHS else 0
    return 0, 0


def _with_more_data(rows: Rows) -> str:
    """How much data it takes until some budget can be planned, and which then can."""
    for more in _more_examples(rows):
        window = _window(replace(rows, source=replace(rows.source, num_examples=more)))
        if window is not None:
            low, high = window
            return (
                f"with about {plural(more, 'training example')} budgets from about {low:.1g} to "
                f"about {high:.1g} FLOPs would work"
            )
    return "pass sizes=[...] of your own"


def _more_examples(rows: Rows) -> Iterator[int]:
    examples = rows.source.num_examples or 0
    for power in range(1, _MOST_DOUBLINGS if examples else 0):
        yield int(_rounded(examples * 2.0**power))


def _all_planned(rows: Rows, budgets: Sequence[float]) -> bool:
    return all(_verdict(rows, budget) == _PLANNED for budget in budgets)


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
    """Whether a budget has a row, around the optimum to expect where no sizes are given."""
    if rows.finder.given is not None:
        trials, skipped = rows.row(budget)
        lasting = len(trials) + sum("epochs" not in skip.reason for skip in skipped)
        if rows.carries(trials):
            return _PLANNED
        return _TOO_LARGE if lasting < FEWEST_SIZES else _TOO_SMALL
    bounds = rows.bounds(budget)
    if not (bounds.low < bounds.high and rows.carries(rows.row(budget)[0])):
        return _TOO_LARGE if bounds.short_of_data else _TOO_SMALL
    if bounds.one_sided:
        return _TOO_LARGE if bounds.low > bounds.expected else _TOO_SMALL
    return _PLANNED


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


def _count(num_params: float) -> str:
    return f"{num_params:,.0f}" if num_params < 1e6 else f"{num_params:.3g}"


def _rounded(value: float) -> float:
    return float(f"{value:.1g}")
