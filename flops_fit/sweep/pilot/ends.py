"""The check of a recipe at an end of a row: half and twice the rate, half and twice the batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flops_fit.records import Trial
from flops_fit.sweep.plan.isoflop_row import IsoflopRows, rounded_rate

FACTOR = 2


def ends(row: Sequence[Trial]) -> list[Trial]:
    """The trials of the smallest and the largest size of a row."""
    ordered = sorted(row, key=lambda trial: trial.num_params)
    return list(dict.fromkeys((ordered[0], ordered[-1]))) if ordered else []


def check_trials(rows: IsoflopRows, trial: Trial) -> list[Trial]:
    """A trial with half and twice its rate, and with half and twice its batch.

    Args:
        rows: The rows of the sweep.
        trial: A trial at an end of a row.
    """
    settings: list[tuple[float, int]] = []
    rate, batch = trial.learning_rate, trial.batch_size
    if "learning_rate" in rows.tuned:
        settings += [(rounded_rate(rate / FACTOR), batch), (rounded_rate(rate * FACTOR), batch)]
    if "batch_size" in rows.tuned:
        settings += [(rate, batch // FACTOR), (rate, batch * FACTOR)]
    trials = [
        rows.trial(
            trial.compute_budget,
            rows.finder.costs[trial.size],
            trial.size_index,
            batch=batch,
            rate=rate,
            seed=trial.seed,
            role="check",
        )
        for rate, batch in settings
        if batch >= 1
    ]
    own = trial.at_own_rate or trial.trial_id
    return [replace(t, added=True, at_own_rate=own) for t in trials if rows.is_feasible(t)]
