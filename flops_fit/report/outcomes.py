"""Forecasts with their outcomes, for people: a table as text cells, and one line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from flops_fit.display import number_text
from flops_fit.display.number_text import between, count, flops, loss, percent

SCORED = "scored"
NOT_RUN = "not yet run"
IN_DATA = "the run was already in the data"
LEFT_OUT = "run, but left out"
# Runs of its size that differ in a condition, so that they have no mean.
AMBIGUOUS = "ambiguous"
OTHER_DATA = "other data"
OTHER_SETTING = "of another model, data or recipe"
# Columns of `outcomes_as_cells` that hold words.
TEXT_COLUMNS = ("made, UTC", "forecast of", "outcome", "inside", "note")
# Key of the table's `attrs`: number of stored forecasts that were changed or damaged.
UNREADABLE = "unreadable"
# Characters of a note in a table.
LONGEST_NOTE = 300


def summary_line(outcomes: pd.DataFrame) -> str:
    """How the forecasts came out, in one line; empty if there are none.

    Args:
        outcomes: One row per forecast, as `flops_fit.score` returns.
    """
    unreadable = outcomes.attrs.get(UNREADABLE, 0)
    if outcomes.empty:
        return f"Forecasts: {unreadable} unreadable" if unreadable else ""
    scored = outcomes[outcomes["status"] == SCORED]
    n = len(scored)
    parts = []
    if n:
        of_run, of_law = (int(scored[f"inside_{of}"].astype(bool).sum()) for of in ("run", "loss"))
        error = percent(float(scored["error"].abs().median()))
        parts.append(
            f"{of_run} of {n} inside the 95 % interval of one run, {of_law} of {n} inside that of "
            f"the law; median error {error}"
        )
    for status, words in (
        (NOT_RUN, "not yet run"),
        (LEFT_OUT, LEFT_OUT),
        (AMBIGUOUS, "of runs that differ in more than the seed"),
        (OTHER_DATA, "on other data"),
        (IN_DATA, "of runs already in the data"),
        (OTHER_SETTING, OTHER_SETTING),
    ):
        number = int((outcomes["status"] == status).sum())
        if number:
            parts.append(f"{number} {words}")
    if unreadable:
        parts.append(f"{unreadable} unreadable")
    return f"Forecasts: {'; '.join(parts)}"


def outcomes_as_cells(outcomes: pd.DataFrame) -> pd.DataFrame:
    """The forecasts and their outcomes as text cells, one row each.

    Args:
        outcomes: One row per forecast, as `flops_fit.score` returns.
    """
    return pd.DataFrame([_cells(row) for row in outcomes.to_dict("records")])


def _cells(row: Mapping[Any, Any]) -> dict[str, str]:
    came = row["status"] == SCORED
    return {
        "made, UTC": str(row["made_at"])[:16].replace("T", " "),
        "forecast of": _subject(row),
        "loss": loss(row["loss"]),
        "loss, 95 %": between(row["loss_low"], row["loss_high"], loss),
        "one run, 95 %": between(row["run_low"], row["run_high"], loss),
        "outcome": _outcome(row),
        "error": number_text.percent(row["error"]) if came else "",
        "inside": _inside(row) if came else "",
        "note": number_text.folded(row["note"], LONGEST_NOTE),
    }


def _subject(row: Mapping[Any, Any]) -> str:
    """What was forecast: the best model for a budget, or a given one."""
    model = f"N {count(row['num_params'])}, D {count(row['num_tokens'])} {row['data_unit']}"
    group = f"{row['by']}: " if row.get("by") else ""
    budget = f"{flops(row['compute_budget'])} FLOPs: " if row["of_budget"] else ""
    return f"{group}{budget}{model}"


def _outcome(row: Mapping[Any, Any]) -> str:
    if row["status"] in (LEFT_OUT, AMBIGUOUS, OTHER_DATA):
        return f"{row['status']}: {row['came_from']}"
    if row["status"] != SCORED:
        return str(row["status"])
    best = count(row["best_num_params"])
    at = f", best N {best}" if best != "?" else ""
    return f"{loss(row['outcome'])} ({row['came_from']}{at})"


def _inside(row: Mapping[Any, Any]) -> str:
    found = {"law": row["inside_loss"], "one run": row["inside_run"], "N": row["inside_num_params"]}
    return ", ".join(
        f"{name} {'yes' if inside else 'no'}"
        for name, inside in found.items()
        if inside is not None
    )
