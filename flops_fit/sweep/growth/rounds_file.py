"""The rounds of a sweep as an artifact: how precise the answer was, and what was chosen and why."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from flops_fit import tracking
from flops_fit.laws.design.goal import Goal
from flops_fit.sweep.growth.rounds import Round
from flops_fit.tracking.ledger import Ledger

ROUNDS = "rounds.json"  # a stored name, as are the keys of its entries
NUMBERS = ("flops", "num_runs", "span", "loss_span", "target", "until")
_POINT = ("trial_id", "compute_budget", "size", "batch_size", "learning_rate")


def add_round(ledger: Ledger, found: Round, size_param: str) -> None:
    """Write a round behind those before it; one that was written already is moved there.

    Args:
        ledger: The sweep.
        found: The round.
        size_param: Name of the size parameter.

    Raises:
        StoreError: The store cannot be used.
    """
    entries = tracking.read_artifact(ledger, ROUNDS, _entries) or []
    entry = _entry(found, size_param)
    wanted = [*(earlier for earlier in entries if earlier != entry), entry]
    if wanted != entries:
        tracking.log_text(ledger, ROUNDS, json.dumps(wanted, indent=1))


def read_rounds(path: Path) -> pd.DataFrame:
    """The rounds in a file, one row each: `NUMBERS`, `next` and `message`.

    `next` lists the trials chosen, each with the reason. Only rounds towards the last target are
    read: those before it were on the way to another answer.
    """
    rows = [
        {
            **{name: _number(entry.get(name)) for name in NUMBERS},
            "next": [str(line) for line in entry.get("next", [])],
            "message": str(entry.get("message", "")),
        }
        for entry in _entries(path)
        if isinstance(entry, dict) and isinstance(entry.get("next", []), list)
    ]
    table = pd.DataFrame(rows, columns=[*NUMBERS, "next", "message"])
    return table[table["target"] == table["target"].iloc[-1]] if len(table) else table


def last_points(ledger: Ledger, goal: Goal) -> tuple[dict[str, Any], ...]:
    """The trials that the last round towards a goal chose, as plain values.

    They are none if the last round was towards another goal. `points.chosen_before` reads them.

    Raises:
        StoreError: The store cannot be used.
    """
    entries = tracking.read_artifact(ledger, ROUNDS, _entries) or []
    last = entries[-1] if entries else {}
    same = isinstance(last, dict) and last.get("goal") == repr(goal)
    points = last.get("trials", []) if same else []
    points = points if isinstance(points, list) else []
    return tuple(p for p in points if isinstance(p, dict) and set(_POINT) <= set(p))


def _entry(found: Round, size_param: str) -> dict[str, Any]:
    reached = found.reached
    numbers = {name: getattr(reached, name) for name in NUMBERS[:4]}
    numbers |= {"target": found.goal.target, "until": found.goal.until or math.inf}
    return {
        # JSON has no infinity: a factor that is not known is left out.
        **{name: value for name, value in numbers.items() if math.isfinite(value)},
        "next": [
            f"{trial.label(size_param)}: {why}"
            for trial, why in zip(found.trials, found.why, strict=True)
        ],
        "message": found.message,
        "goal": repr(found.goal),
        "trials": [{name: getattr(trial, name) for name in _POINT} for trial in found.trials],
    }


def _entries(path: Path) -> list[Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return []
    return found if isinstance(found, list) else []


def _number(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    return math.inf
