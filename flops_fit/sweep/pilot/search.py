"""The search of a pilot: which cells to train next, given the losses of those trained so far.

The search is a function of its losses alone: it is replayed from its beginning whenever losses have
come in, and ends where it asks for one that is not there. So an interrupted pilot goes on where it
was, in this process or another.

At each size of the smallest budget the search starts from a rule and moves to the better neighbour
until none is better. Then the best cell of each size is trained with a second seed, so that luck
does not choose. The response surface fitted to all cells says where to start at a larger budget. In
the end the cells that the surface points at are trained if they were not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from flops_fit.laws.fitting.recipe_surface import fit_recipe
from flops_fit.laws.model.recipe_law import RecipeLaw
from flops_fit.records import Trial
from flops_fit.sweep.pilot.lattice import Cell, Lattice

GAIN = 0.002  # of ln L, below which a neighbour does not count as better
MOST_REPEATS = 3  # further seeds at a place
MOST_MOVES = 12  # of the search at a place


class _WaitingError(Exception):
    """The search needs a loss that is not there yet."""


class _SpentError(Exception):
    """The next cells would cost more than the pilot may."""


@dataclass(frozen=True)
class Search:
    """How far a pilot is.

    Attributes:
        trials: The trials asked for so far, in order.
        finished: Whether no more are needed.
        cut_short: Whether it ended because it had spent what it may.
    """

    trials: tuple[Trial, ...]
    finished: bool
    cut_short: bool


@dataclass
class _Bench:
    """Trials asked for, and the losses of their cells.

    Attributes:
        lattice: The cells.
        losses: Held-out loss of the trials that have ended, by id; NaN where there is none.
        most_flops: What the trials may cost together.
        asked: The trials asked for, by cell.
    """

    lattice: Lattice
    losses: Mapping[str, float]
    most_flops: float
    asked: dict[Cell, list[Trial]] = field(default_factory=dict)

    @property
    def trials(self) -> list[Trial]:
        return [trial for trials in self.asked.values() for trial in trials]

    def ask(self, cells: Sequence[Cell]) -> None:
        """Ask for one more trial of each of these cells.

        Raises:
            _SpentError: They would cost too much.
            _WaitingError: The losses of some are not there yet.
        """
        new = [(cell, self.lattice.trial(cell, len(self.asked.get(cell, ())))) for cell in cells]
        cost = sum(trial.flops for trial in self.trials) + sum(trial.flops for _, trial in new)
        if cost > self.most_flops:
            raise _SpentError
        for cell, trial in new:
            self.asked.setdefault(cell, []).append(trial)
        if any(trial.trial_id not in self.losses for _, trial in new):
            raise _WaitingError

    def loss(self, cell: Cell) -> float:
        """Mean of ln L over the seeds of a cell; inf where it diverged."""
        losses = [self.losses[trial.trial_id] for trial in self.asked[cell]]
        mean = float(np.mean(np.log(losses))) if min(losses) > 0 else float(np.mean(losses))
        return mean if math.isfinite(mean) else math.inf

    def best(self, place: int) -> Cell:
        """The trained cell of a place with the least loss."""
        return min((cell for cell in self.asked if cell.place == place), key=self.loss)

    def law(self) -> RecipeLaw | None:
        """The response surface through the cells so far."""
        trials = self.trials
        cells = pd.DataFrame(
            {
                "compute_budget": [trial.compute_budget for trial in trials],
                "num_params": [float(trial.num_params) for trial in trials],
                "num_tokens": [float(trial.num_tokens) for trial in trials],
                "learning_rate": [trial.learning_rate for trial in trials],
                "batch_size": [float(trial.batch_size) for trial in trials],
                "loss": [self.losses[trial.trial_id] for trial in trials],
            }
        )
        rows = self.lattice.rows
        return fit_recipe(
            cells, tuned=rows.tuned, tokens_per_example=rows.source.tokens_per_example
        )


def search(lattice: Lattice, losses: Mapping[str, float], most_flops: float) -> Search:
    """How far the pilot is, given the losses so far.

    Args:
        lattice: The cells.
        losses: Held-out loss of each trial that has ended, by id; NaN where it has none.
        most_flops: What the pilot may cost.
    """
    bench = _Bench(lattice, losses, most_flops)
    waiting = spent = False
    try:
        _search(bench)
    except _WaitingError:
        waiting = True
    except _SpentError:
        spent = True
    return Search(tuple(bench.trials), finished=not waiting, cut_short=spent)


def _search(bench: _Bench) -> None:
    lattice = bench.lattice
    smallest = lattice.places[0].budget
    first = [index for index, place in enumerate(lattice.places) if place.budget == smallest]
    _descend(bench, [lattice.first_cell(index) for index in first])
    _repeat_best(bench, first)
    for index in range(len(first), len(lattice.places)):
        law = bench.law()
        _descend(bench, [lattice.nearest(index, law) if law else lattice.first_cell(index)])
        _repeat_best(bench, [index])
    _confirm(bench)


def _descend(bench: _Bench, starts: Sequence[Cell]) -> None:
    """From each of these cells, move to the better neighbour until none is better."""
    current = {cell.place: cell for cell in starts}
    for _ in range(MOST_MOVES):
        around = [one for cell in current.values() for one in _with_neighbours(bench, cell)]
        new = [cell for cell in dict.fromkeys(around) if cell not in bench.asked]
        if new:
            bench.ask(new)
        moved = {place: _better(bench, cell) for place, cell in current.items()}
        if moved == current:
            return
        current = moved


def _with_neighbours(bench: _Bench, cell: Cell) -> list[Cell]:
    return [cell, *bench.lattice.neighbours(cell)]


def _better(bench: _Bench, cell: Cell) -> Cell:
    """The best of a cell and its neighbours; the cell itself if they gain next to nothing."""
    best = min(_with_neighbours(bench, cell), key=bench.loss)
    return best if bench.loss(best) < bench.loss(cell) - GAIN else cell


def _repeat_best(bench: _Bench, places: Sequence[int]) -> None:
    """Train the best cell of each place with another seed, until it is best with two."""
    for _ in range(MOST_REPEATS):
        lucky = [best for best in map(bench.best, places) if len(bench.asked[best]) < 2]
        if not lucky:
            return
        bench.ask(lucky)


def _confirm(bench: _Bench) -> None:
    """Train the cells that the surface points at, if they were not."""
    for _ in range(2):
        law = bench.law()
        if law is None:
            return
        cells = [bench.lattice.nearest(index, law) for index in range(len(bench.lattice.places))]
        new = [cell for cell in cells if cell not in bench.asked]
        if not new:
            return
        bench.ask(new)
