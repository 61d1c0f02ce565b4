"""The trials of a grid by the laws of rate and batch, and which trained ones are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from flops_fit.laws.model.recipe_law import RecipeLaw
from flops_fit.records import Run, Trial
from flops_fit.sweep.plan.isoflop_row import IsoflopRows

LEAST_EXCESS = 0.005  # of ln L, below which a trial is not trained again for a better recipe
MOST_AGAIN = 0.1  # share of the sweep's FLOPs that training again may cost


@dataclass(frozen=True)
class Point:
    """A grid point, and how it was or will be trained.

    Attributes:
        wanted: The trial by the laws as they are known now.
        trained: The nearest to it that was trained before; None if none was.
        excess: How far ln L of `trained` is expected to lie above that of `wanted`.
    """

    wanted: Trial
    trained: Trial | None = None
    excess: float = 0.0


@dataclass(frozen=True)
class Chosen:
    """The trials of a grid.

    Attributes:
        trials: One for each point.
        off: Trained trials whose recipe is off by more than the noise.
        again: Whether those are trained again, because it costs little.
        flops: What that costs.
    """

    trials: list[Trial]
    off: list[Trial]
    again: bool
    flops: float


def choose(
    rows: IsoflopRows, law: RecipeLaw, planned: Sequence[Trial], runs: Sequence[Run]
) -> Chosen:
    """The trials of a grid by the laws of rate and batch.

    What was trained before by other laws is kept, unless it is off by more than the noise and
    training all such trials again costs little.

    Args:
        rows: The rows of the sweep, with the law.
        law: The laws of rate and batch.
        planned: The trials of the grid; only their budgets and sizes count.
        runs: What has been trained.
    """
    points = [_point(rows, law, trial, runs) for trial in planned]
    limit = max(LEAST_EXCESS, law.noise)
    off = [point for point in points if point.excess > limit]
    cost = sum(point.wanted.flops for point in off)
    again = cost <= MOST_AGAIN * sum(point.wanted.flops for point in points)
    trials = [
        point.wanted if point.trained is None or (again and point in off) else point.trained
        for point in points
    ]
    return Chosen(trials, [point.trained for point in off if point.trained], again, cost)


def trained_before(rows: IsoflopRows, trial: Trial, runs: Sequence[Run]) -> list[Trial]:
    """The trials of the sweep at the budget and size of a trial that were begun before."""
    found = []
    for run in runs:
        same = run.compute_budget == trial.compute_budget and run.size == trial.size
        if same and run.role == "sweep" and run.lr_multiplier == 1 and run.seed == trial.seed:
            again = rows.trial(
                trial.compute_budget,
                rows.finder.costs[trial.size],
                trial.size_index,
                batch=int(run.batch_size),
                rate=run.learning_rate,
            )
            if again.trial_id == run.trial_id:
                found.append(replace(again, added=True))
    return found


def _point(rows: IsoflopRows, law: RecipeLaw, trial: Trial, runs: Sequence[Run]) -> Point:
    cost = rows.finder.costs[trial.size]
    wanted = replace(rows.trial(trial.compute_budget, cost, trial.size_index), added=True)
    excesses = [(_excess(law, old), old) for old in trained_before(rows, trial, runs)]
    if not excesses:
        return Point(wanted)
    excess, nearest = min(excesses, key=lambda pair: pair[0])
    return Point(wanted, nearest, excess - _excess(law, wanted))


def _excess(law: RecipeLaw, trial: Trial) -> float:
    N, D = trial.num_params, trial.num_tokens
    return float(law.excess(N, D, trial.learning_rate, trial.batch_size))
