"""The budgets of a sweep that was given a time or money: as chosen before, else chosen now.

A machine is never timed twice alike. So the first call's budgets are stored with the sweep, and the
same call uses them whenever it is made again, however many workers it has then.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace

from flops_fit.display.notebook import tell
from flops_fit.errors import StoreError, SweepError
from flops_fit.report.budget_text import of_expectation
from flops_fit.runtime.polling import poll
from flops_fit.sweep.forecast.suggestion import suggest
from flops_fit.sweep.plan.grid import ChosenBudgets
from flops_fit.sweep.plan.planner import Opened
from flops_fit.sweep.plan.request import Spending
from flops_fit.sweep.task.hashing import digest
from flops_fit.tracking.address import StoreAddress
from flops_fit.tracking.ledger import Ledger
from flops_fit.tracking.parent_run import read_chosen, write_chosen

DRIVER_S, PAUSE_S = 300.0, 1.0  # a driver times its machine for a minute or two
AGAIN = "as chosen when the sweep was begun"


def choose_budgets(
    opened: Opened, spending: Spending, workers: int | str, price_per_hour: float | None
) -> ChosenBudgets:
    """Time this machine, and choose budgets for it.

    Raises:
        InfeasiblePlanError: The data or the time do not suffice for a sweep over a decade.
        SweepError: Every measuring process died.
    """
    suggestion = suggest(opened, spending, workers=workers, price_per_hour=price_per_hour)
    budgets = tuple(suggestion.compute_budgets)
    lines = tuple(of_expectation(suggestion))
    return ChosenBudgets(spending.text, chosen_key(opened, spending), budgets, lines)


def chosen_before(
    opened: Opened, spending: Spending, address: StoreAddress
) -> ChosenBudgets | None:
    """What an earlier call with this time or money chose for this model, data and recipe.

    Args:
        opened: The task and its rows.
        spending: What the sweep may take.
        address: Where the sweep's records are kept.

    Returns:
        The budgets; None if there are none, or no such sweep.

    Raises:
        StoreError: The store cannot be used.
    """
    try:
        ledger = address.find_ledger(opened.task.short_name)
    except StoreError:
        raise
    except SweepError:  # there is no such sweep yet
        return None
    key = chosen_key(opened, spending)
    found = [each for each in _read(read_chosen(ledger)) if each.key == key]
    return replace(found[0], lines=(AGAIN, *found[0].lines)) if found else None


def chosen_by_driver(opened: Opened, spending: Spending, address: StoreAddress) -> ChosenBudgets:
    """What the driver of a sweep chose, which is waited for while it times its machine.

    Raises:
        SweepError: It has chosen nothing in time.
    """

    def find() -> ChosenBudgets:
        chosen = chosen_before(opened, spending, address)
        if chosen is None:
            raise SweepError(
                f"the sweep has no budgets for {spending.text} yet: start its driver with the same "
                "arguments, or pass budgets in FLOPs"
            )
        return chosen

    return poll(
        find,
        is_temporary=lambda error: (
            isinstance(error, SweepError) and not isinstance(error, StoreError)
        ),
        timeout_s=DRIVER_S,
        pause_s=PAUSE_S,
        report=lambda error: tell(f"Waiting up to {DRIVER_S:g} s for the driver to choose budgets"),
    )


def chosen_key(opened: Opened, spending: Spending) -> str:
    """Hash of what budgets are chosen for. It is a stored format."""
    rows = opened.rows
    sizes = rows.finder.given
    return digest(
        {
            **rows.identity,
            **rows.recipe.setting(),
            "sizes": None if sizes is None else [repr(size) for size in sizes],
            "spending": spending.text,
        }
    )


def store_chosen(ledger: Ledger, chosen: ChosenBudgets) -> None:
    """Keep a choice on the parent run, beside earlier ones; nothing is done if it is there."""
    earlier = _read(read_chosen(ledger))
    if any(each.key == chosen.key for each in earlier):
        return
    # MLflow limits the length of a tag: of earlier choices, only the budgets are needed.
    kept = [*(replace(each, lines=()) for each in earlier), chosen]
    write_chosen(ledger, json.dumps([asdict(each) for each in kept]))


def _read(stored: str) -> Sequence[ChosenBudgets]:
    return [
        ChosenBudgets(
            str(each["spending"]),
            str(each["key"]),
            tuple(float(budget) for budget in each["budgets"]),
            tuple(str(line) for line in each["lines"]),
        )
        for each in json.loads(stored or "[]")
    ]
