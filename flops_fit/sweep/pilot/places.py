"""Where a pilot trains, and what it may cost."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import replace

from flops_fit.records import Run, Trial
from flops_fit.sweep.pilot.ends import check_trials, ends
from flops_fit.sweep.pilot.lattice import Lattice, Place, is_place
from flops_fit.sweep.plan.grid import PilotPlan
from flops_fit.sweep.plan.isoflop_row import IsoflopRows
from flops_fit.sweep.task.model_cost import ModelCost

BELOW = 3.0  # the pilot's budget is so many times smaller than the sweep's smallest
# Decades of budgets from which on a larger budget is tried too, and how many times it is larger.
SECOND = ((1.5, 4.0), (0.9, 3.0))
HALF_WIDTH_DECADES = 0.6  # of ln N, from the middle size to the others
# Share of the sweep's FLOPs that a pilot may cost, at a span of one decade and of two.
SHARES = (0.13, 0.03)
LEAST_CELLS, MOST_CELLS = 18, 60  # that it may train in any case, and at most
MOST_SHARE, NEAR_DECADE = 0.15, 0.9  # never more, from nearly a decade on
CHECK_SHARE = 0.07  # what the check at the ends may cost
NUM_CHECKS = 8


def plan_pilot(rows: IsoflopRows, trials: Sequence[Trial]) -> PilotPlan | None:
    """What a pilot for these trials will do; None where nothing is to be found, or nothing can be.

    Args:
        rows: The rows of the sweep.
        trials: Its trials.
    """
    if not rows.tuned:
        return None
    budgets = sorted({trial.compute_budget for trial in trials})
    found = places(rows, budgets)
    if not found:
        return None
    total = sum(trial.flops for trial in trials)
    decades = math.log10(budgets[-1] / budgets[0])
    allowed = max(_share(decades) * total, LEAST_CELLS * found[0].budget)
    if decades >= NEAR_DECADE:
        allowed = min(allowed, MOST_SHARE * total)
    budget = check_budget(budgets, total)
    smallest = [place for place in found if place.budget == found[0].budget]
    smallest.sort(key=lambda place: place.cost.num_params)
    pilot = PilotPlan(
        budget=found[0].budget,
        sizes=tuple(place.cost.size for place in smallest),
        tuned=rows.tuned,
        most_flops=min(allowed, MOST_CELLS / len(found) * sum(place.budget for place in found)),
        check_flops=NUM_CHECKS * budget if budget else 0.0,
    )
    row = [trial for trial in trials if trial.compute_budget == budget]
    return replace(pilot, expected=(*_expected(rows, found, pilot.most_flops), *_checks(rows, row)))


def _expected(rows: IsoflopRows, found: Sequence[Place], most_flops: float) -> list[Trial]:
    """As many trials as a pilot may train, by turns at its places, for estimates of its cost."""
    lattice = Lattice.of(rows, found)
    expected: list[Trial] = []
    for index in itertools.cycle(range(len(found))):
        trial = lattice.trial(lattice.first_cell(index), repeat=len(expected))
        if sum(one.flops for one in expected) + trial.flops > most_flops:
            return expected
        expected.append(trial)
    return expected


def _checks(rows: IsoflopRows, row: Sequence[Trial]) -> list[Trial]:
    """The trials that check both ends of a row."""
    return [check for end in ends(row) for check in check_trials(rows, end)]


def _share(span: float) -> float:
    """Share of the sweep's FLOPs for its pilot: geometrically between one decade and two."""
    beyond_one = min(max(span - 1, 0.0), 1.0)
    return SHARES[0] * (SHARES[1] / SHARES[0]) ** beyond_one


def places(
    rows: IsoflopRows, budgets: Sequence[float], earlier: float | None = None
) -> tuple[Place, ...]:
    """Where to train cells: the middle size first, one to each side, then a larger budget.

    Args:
        rows: The rows of the sweep.
        budgets: Its budgets, ascending.
        earlier: Budget of a pilot that was trained for it before, which is gone on with.

    Returns:
        The places; none if no budget of a pilot has enough steps and data.
    """
    below = float(f"{budgets[0] / BELOW:.2g}")
    for budget in (earlier, below, budgets[0]):
        if budget is None:
            continue
        at_budget = _at_budget(rows, budget)
        if len(at_budget) >= min(2, len(rows.finder.given or (1, 2))):
            break
    else:
        return ()
    decades = math.log10(budgets[-1] / budgets[0])
    times = next((times for span, times in SECOND if decades > span), None)
    if times is None:
        return at_budget
    return (*at_budget, *_at_budget(rows, float(f"{times * at_budget[0].budget:.2g}"))[:1])


def _at_budget(rows: IsoflopRows, budget: float) -> tuple[Place, ...]:
    """The middle size, a smaller and a larger one, as far as they have enough steps and data."""
    costs = list(_costs(rows, budget))
    found = [Place(budget, cost) for cost in costs if is_place(rows, Place(budget, cost))]
    sizes = {place.cost.num_params: place for place in found}
    if len(sizes) <= 3:
        ordered = [sizes[num_params] for num_params in sorted(sizes)]
    else:
        ascending = sorted(sizes)
        ordered = [sizes[ascending[i]] for i in (0, len(ascending) // 2, -1)]
    middle = len(ordered) // 2
    return tuple([*ordered[middle:], *ordered[:middle]] if ordered else [])


def _costs(rows: IsoflopRows, budget: float) -> Iterable[ModelCost]:
    finder = rows.finder
    if finder.given is not None:
        return (cost for cost in map(finder.cost, finder.ascending()) if cost is not None)
    bounds = rows.bounds(budget)
    width = 10**HALF_WIDTH_DECADES
    middle = min(max(bounds.expected, bounds.low), bounds.high)
    targets = (max(bounds.low, middle / width), middle, min(bounds.high, middle * width))
    return map(finder.nearest_cost, targets)


def earlier_budget(runs: Iterable[Run], smallest: float) -> float | None:
    """The budget of a pilot that was trained before, if it is near enough to go on with.

    Args:
        runs: The runs of the sweep so far.
        smallest: The sweep's smallest budget.
    """
    budgets = [run.compute_budget for run in runs if run.role == "pilot"]
    near = [budget for budget in budgets if smallest / 30 <= budget <= 3 * smallest]
    return min(near, default=None)


def check_budget(budgets: Sequence[float], total: float) -> float | None:
    """The largest budget whose ends can be checked for a small share of the sweep's FLOPs."""
    affordable = [budget for budget in budgets if NUM_CHECKS * budget <= CHECK_SHARE * total]
    return max(affordable, default=None)
