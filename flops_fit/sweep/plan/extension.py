"""Sizes added to a row whose least loss lies at its edge: the optimum must be seen from both sides.

What is added is a function of the plan and of what its own trials lost, so that a sweep that was
interrupted adds the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from flops_fit.records import Trial
from flops_fit.sweep.plan.isoflop_row import FEW_STEPS, Rows, plural
from flops_fit.sweep.plan.row_optimum import Edge, edge_of, row_of

MOST_ADDED = 2


def extension(
    rows: Rows, trials: Sequence[Trial], losses: Mapping[str, float]
) -> tuple[list[Trial], list[str]]:
    """Trials to add to a plan, and what is said of each row that has its least loss at an edge.

    Args:
        rows: Of the plan.
        trials: Of the plan.
        losses: Held-out loss of the trials that have one, by id.
    """
    added: list[Trial] = []
    said = []
    for budget in dict.fromkeys(trial.compute_budget for trial in trials):
        own = [trial for trial in trials if trial.compute_budget == budget]
        if edge := edge_of(row_of(own, losses)):
            more = beyond(rows, own, edge)
            added += more
            said.append(_said(budget, edge, more, listed=rows.finder.given is not None))
    return added, said


def beyond(rows: Rows, row: Sequence[Trial], edge: Edge) -> list[Trial]:
    """The next sizes beyond an edge of a row, at its spacing, as many as data and steps carry."""
    if rows.finder.given is not None:
        return []
    first, last = row[0].num_params, row[-1].num_params
    sizes = len({trial.num_params for trial in row})
    spacing = (last / first) ** (1 / max(1, sizes - 1))
    added: dict[int, Trial] = {}
    for k in range(1, MOST_ADDED + 1):
        wanted = first / spacing**k if edge == "low" else last * spacing**k
        cost = rows.finder.nearest_cost(wanted)
        outside = cost.num_params < first if edge == "low" else cost.num_params > last
        trial = rows.trial(row[0].compute_budget, cost, sizes + k - 1)
        if outside and trial.steps >= FEW_STEPS and rows.serves(trial):
            added.setdefault(cost.num_params, replace(trial, added=True))
    rates = rows.recipe.lr_multipliers
    return [other for trial in added.values() for other in rows.at_rates(trial, rates)]


def _said(budget: float, edge: Edge, more: Sequence[Trial], *, listed: bool) -> str:
    side, other = ("smallest", "smaller") if edge == "low" else ("largest", "larger")
    at = f"C={budget:.3g}: the optimum lies at the {side} size of its row or beyond"
    sizes = list(dict.fromkeys(str(trial.size) for trial in more))
    if listed:
        return f"{at}; none is added to the sizes that were given"
    if not sizes:
        lacks = "data enough" if edge == "low" else f"{FEW_STEPS} steps"
        return f"{at}, and no {other} one that can be built gets {lacks}"
    return f"{at}: {plural(len(sizes), f'{other} size')} added ({', '.join(sizes)})"
