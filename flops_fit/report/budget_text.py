"""A suggestion of budgets as text, and as HTML for notebooks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

import pandas as pd
from tabulate import tabulate

from flops_fit.display import html
from flops_fit.display.number_text import (
    between,
    count,
    duration,
    flops,
    percent,
    ratio,
    times,
    whole,
    with_interval,
)
from flops_fit.laws.checks.of_runs import SHORT_SPAN
from flops_fit.laws.model.recipe_law import ENOUGH_STEPS

LITTLE = 2.5  # a factor to which N_opt is known at ten times the largest budget


class SuggestionView(Protocol):
    """The fields of `BudgetSuggestion` that are shown."""

    @property
    def compute_budgets(self) -> Sequence[float]:
        """The budgets in FLOPs."""

    @property
    def spending(self) -> str:
        """What the sweep may take."""

    @property
    def hours(self) -> float:
        """Expected time."""

    @property
    def hours_interval(self) -> tuple[float, float]:
        """Interval of `hours`."""

    @property
    def cost(self) -> float:
        """Expected price; NaN without one."""

    @property
    def cost_interval(self) -> tuple[float, float]:
        """Interval of `cost`."""

    @property
    def table(self) -> pd.DataFrame:
        """One row per budget."""

    @property
    def num_trials(self) -> int:
        """Trials of the grid."""

    @property
    def num_expected(self) -> int:
        """Trials of pilot and check."""

    @property
    def worth(self) -> pd.DataFrame:
        """What the answer will be worth."""

    @property
    def noise(self) -> float:
        """Assumed standard deviation of ln L."""

    @property
    def devices(self) -> int:
        """Trials that run at a time."""

    @property
    def device(self) -> str:
        """The device that was timed."""

    @property
    def data_unit(self) -> str:
        """What D counts."""

    @property
    def size_param(self) -> str:
        """Name of the size parameter."""

    @property
    def remarks(self) -> Sequence[str]:
        """What limits the budgets."""


def of_suggestion(suggestion: SuggestionView) -> list[str]:
    """The lines of `repr(suggestion)`."""
    head, *cells = _cells(suggestion)
    table = tabulate([head, *cells], tablefmt="plain", stralign="right", disable_numparse=True)
    return [_headline(suggestion), *table.splitlines(), *of_expectation(suggestion)]


def of_expectation(suggestion: SuggestionView) -> list[str]:
    """What the sweep will take, what it will be worth, and what limits it."""
    return [_time(suggestion), *_worth(suggestion), *suggestion.remarks]


def suggestion_html(suggestion: SuggestionView) -> str:
    """The suggestion as HTML, with a table of one row per budget."""
    head, *cells = _cells(suggestion)
    table = html.frame(pd.DataFrame(cells, columns=head))
    return html.block([_headline(suggestion)], table, html.block(of_expectation(suggestion)))


def remarks(factor: float, least_steps: int) -> list[str]:
    """Where budgets fall short of what is recommended.

    Args:
        factor: Between the smallest and the largest.
        least_steps: Steps of the shortest trial.
    """
    lines = []
    if factor < 0.95 * SHORT_SPAN:
        lines.append(
            f"the budgets span a factor of {times(factor)}; {SHORT_SPAN:g} or more is recommended, "
            "for which there is no room"
        )
    if least_steps < ENOUGH_STEPS:
        lines.append(
            f"the shortest trial has {whole(least_steps)} steps; {whole(ENOUGH_STEPS)} would be "
            "better"
        )
    return lines


def _headline(suggestion: SuggestionView) -> str:
    listed = ", ".join(map(flops, suggestion.compute_budgets))
    devices = f"{suggestion.devices} {'device' if suggestion.devices == 1 else 'devices'}"
    return (
        f"BudgetSuggestion: compute_budgets=[{listed}] for {suggestion.spending} on {devices} "
        f"({suggestion.device})"
    )


def _cells(suggestion: SuggestionView) -> list[list[str]]:
    """The head and the rows of the table."""
    head = [
        "C", "trials", f"{suggestion.size_param} (N)", f"D, {suggestion.data_unit}", "steps",
        "device time",
    ]  # fmt: skip
    rows = [
        [
            flops(row["compute_budget"]),
            str(row["trials"]),
            " to ".join(
                f"{row[f'size_{end}']} ({count(row[f'num_params_{end}'])})"
                for end in ("low", "high")
            ),
            f"{count(row['num_tokens_low'])} to {count(row['num_tokens_high'])}",
            between(row["steps_low"], row["steps_high"], whole),
            duration(3600 * row["hours"]),
        ]
        for row in suggestion.table.to_dict("records")
    ]
    return [head, *rows]


def _time(suggestion: SuggestionView) -> str:
    low, high = suggestion.hours_interval
    took = with_interval(3600 * suggestion.hours, (3600 * low, 3600 * high), duration)
    pilot = ""
    if suggestion.num_expected:
        pilot = f" and about {suggestion.num_expected} to find and check the recipe"
    text = f"expected time: {took}, for {suggestion.num_trials} trials{pilot}"
    if math.isfinite(suggestion.cost):
        text += f"; cost {with_interval(suggestion.cost, suggestion.cost_interval, ratio)}"
    return text


def _worth(suggestion: SuggestionView) -> list[str]:
    beyond = [row for row in suggestion.worth.to_dict("records") if row["extrapolation"] > 1]
    if not all(math.isfinite(row["factor"]) for row in beyond):
        return ["worth: no law can be expected of so small a sweep"]
    known = ", ".join(
        f"within a factor {ratio(row['factor'])} at {times(row['extrapolation'])}x "
        f"({flops(row['compute_budget'])} FLOPs)"
        for row in beyond
    )
    lines = [
        f"worth at best: N_opt known {known}, if losses scatter by {percent(suggestion.noise)} "
        "from run to run"
    ]
    if beyond[0]["factor"] > LITTLE:
        lines.append(
            "so small a sweep says little beyond its own budgets: give it more time or data"
        )
    return lines
