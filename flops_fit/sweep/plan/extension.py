"""Sizes added to a row whose loss is least at its edge, so that both sides of the optimum are seen.

The additions are a function of the plan and of its own trials' losses, so that an interrupted sweep
adds the same sizes when it is resumed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from flops_fit.laws.model.recipe_law import FEW_STEPS
from flops_fit.records import Trial
from flops_fit.sweep.plan.isoflop_row import IsoflopRows, plural
from flops_fit.sweep.plan.row_optimum import Edge, edge_of, row_of

MAX_ADDED = 2


def extension(
    rows: IsoflopRows, trials: Sequence[Trial], losses: Mapping[str, float]
) -> tuple[list[Trial], list[str]]:
    """The trials to add to a plan, and a message on each row with its least loss at an edge.

    Args:
        rows: The rows of the plan.
        trials: The trials of the plan.
        losses: Held-out losses by trial id, of the trials that have one.
    """
    added: list[Trial] = []
    messages = []
    for budget in dict.fromkeys(trial.compute_budget for trial in trials):
        row = [trial for trial in trials if trial.compute_budget == budget]
        edge = edge_of(row_of(row, losses))
        if edge:
            more = beyond(rows, row, edge)
            added += more
            messages.append(_message(budget, edge, more, given=rows.finder.given is not None))
    return added, messages


def beyond(rows: IsoflopRows, row: Sequence[Trial], edge: Edge) -> list[Trial]:
    """The next sizes beyond an edge of a row, at its spacing, as far as data and steps suffice.

    Returns:
        The trials of up to `MAX_ADDED` sizes, each at all learning rates of the recipe; none if
        the caller chose the sizes.
    """
    if rows.finder.given is not None:
        return []
    first, last = row[0].num_params, row[-1].num_params
    num_sizes = len({trial.num_params for trial in row})
    spacing = (last / first) ** (1 / max(1, num_sizes - 1))
    added: dict[int, Trial] = {}
    for k in range(1, MAX_ADDED + 1):
        target = first / spacing**k if edge == "low" else last * spacing**k
        cost = rows.finder.nearest_cost(target)
        outside = cost.num_params < first if edge == "low" else cost.num_params > last
        trial = rows.trial(row[0].compute_budget, cost, num_sizes + k - 1)
        if outside and trial.steps >= FEW_STEPS and rows.is_feasible(trial):
            added.setdefault(cost.num_params, replace(trial, added=True))
    rates = rows.recipe.lr_multipliers
    return [variant for trial in added.values() for variant in rows.at_rates(trial, rates)]


def _message(budget: float, edge: Edge, added: Sequence[Trial], *, given: bool) -> str:
    side, comparative = ("smallest", "smaller") if edge == "low" else ("largest", "larger")
    finding = f"C={budget:.3g}: the optimum lies at the {side} size of its row or beyond"
    sizes = list(dict.fromkeys(str(trial.size) for trial in added))
    if given:
        return f"{finding}; no size is added, because sizes= was passed"
    if not sizes:
        lack = "enough data" if edge == "low" else f"{FEW_STEPS} steps"
        return f"{finding}, and no {comparative} size that can be built has {lack}"
    return f"{finding}: {plural(len(sizes), f'{comparative} size')} added ({', '.join(sizes)})"
