"""The rounds of a sweep as an artifact: how precise the answer was, and what was chosen and why."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from flops_fit import tracking
from flops_fit.sweep.growth.rounds import Round
from flops_fit.tracking.ledger import Ledger

ROUNDS = "rounds.json"  # a stored name, as are the keys of its entries
NUMBERS = ("flops", "num_runs", "span", "loss_span")


def add_round(ledger: Ledger, found: Round, size_param: str) -> None:
    """Write a round behind those before it, unless it was written already.

    Args:
        ledger: The sweep.
        found: The round.
        size_param: Name of the size parameter.

    Raises:
        StoreError: The store cannot be used.
    """
    entries = tracking.read_artifact(ledger, ROUNDS, _entries) or []
    entry = _entry(found, size_param)
    if entry in entries:
        return
    tracking.log_text(ledger, ROUNDS, json.dumps([*entries, entry], indent=1))


def read_rounds(path: Path) -> pd.DataFrame:
    """The rounds in a file, one row each: `flops num_runs span loss_span next message`.

    `next` lists the trials chosen, each with the reason.
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
    return pd.DataFrame(rows, columns=[*NUMBERS, "next", "message"])


def _entry(found: Round, size_param: str) -> dict[str, Any]:
    reached = found.reached
    numbers = {name: getattr(reached, name) for name in NUMBERS}
    return {
        # JSON has no infinity: a factor that is not known is left out.
        **{name: value for name, value in numbers.items() if math.isfinite(value)},
        "next": [
            f"{trial.label(size_param)}: {why}"
            for trial, why in zip(found.trials, found.why, strict=True)
        ],
        "message": found.message,
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
