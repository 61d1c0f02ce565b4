"""The search of a pilot: which cells to train next, given the losses of those trained so far.

The search is a function of its losses alone: it is replayed from its beginning whenever losses have
come in, and ends where it asks for one that is not there. So an interrupted pilot goes on where it
was, in this process or another.

At each size of the smallest budget the search starts from a rule and moves to the better neighbour
until none is better. Then the two best cells of each size are trained with a second seed, so that
luck does not choose. The response surface fitted to all cells says where to start at a larger
budget. In the end the cells that the surface points at are trained if they were not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd

from flops_fit.laws.fitting.recipe_surface import fit_recipe
from flops_fit.laws.model.recipe_law import RecipeLaw, log_losses
from flops_fit.records import Trial
from flops_fit.sweep.pilot.lattice import Cell, Lattice

GAIN = 0.002  # of ln L, below which a neighbour does not count as better
STRIDE, MOST_STRIDES = 3, 6  # of the first search for the order of magnitude of the rate
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
        cut_short: Whether it had spent what it may before the best cells were surrounded.
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
        surrounded: Whether the best cells of the smallest budget have all their neighbours.
    """

    lattice: Lattice
    losses: Mapping[str, float]
    most_flops: float
    asked: dict[Cell, list[Trial]] = field(default_factory=dict)
    surrounded: bool = False

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
        """Ln L of a cell with the seed that all cells have; inf where it diverged."""
        of_all = np.array(
            [self.losses[t.trial_id] for t in self.trials if t.trial_id in self.losses]
        )
        loss = self.losses[self.asked[cell][0].trial_id]
        log_loss = float(log_losses(np.append(of_all, loss))[-1])
        return log_loss if math.isfinite(log_loss) else math.inf

    def ranked(self, place: int) -> list[Cell]:
        """The trained cells of a place, the best first."""
        return sorted((cell for cell in self.asked if cell.place == place), key=self.loss)

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
                "seed": [trial.seed for trial in trials],
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
    waiting = False
    try:
        _search(bench)
    except _WaitingError:
        waiting = True
    except _SpentError:
        pass  # what it has will do; if not, `cut_short` says so
    cut_short = not (waiting or bench.surrounded)
    return Search(tuple(bench.trials), finished=not waiting, cut_short=cut_short)


def _search(bench: _Bench) -> None:
    lattice = bench.lattice
    smallest = lattice.places[0].budget
    first = [index for index, place in enumerate(lattice.places) if place.budget == smallest]
    shift = _scan(bench)
    starts = [lattice.first_cell(index) for index in first]
    _descend(bench, [replace(cell, rate=cell.rate + shift) for cell in starts])
    bench.surrounded = True
    _repeat_best(bench, first)
    for index in range(len(first), len(lattice.places)):
        law = bench.law()
        _descend(bench, [lattice.nearest(index, law) if law else lattice.first_cell(index)])
        _repeat_best(bench, [index])
    _confirm(bench)


def _scan(bench: _Bench) -> int:
    """How many steps the best rate lies from the rule's, roughly, at the first place.

    An optimiser of the user's own may want a rate that is a thousand times smaller.
    """
    if not bench.lattice.tunes_rate:
        return 0
    start = bench.lattice.first_cell(0)
    found = start
    for _ in range(MOST_STRIDES):
        around = [replace(found, rate=found.rate + step) for step in (-STRIDE, 0, STRIDE)]
        new = [cell for cell in around if cell not in bench.asked]
        if new:
            bench.ask(new)
        best = _better(bench, found, around)
        if best == found:
            break
        found = best
    return found.rate - start.rate


def _descend(bench: _Bench, starts: Sequence[Cell]) -> None:
    """From each of these cells, move to the better neighbour until none is better."""
    current = {cell.place: cell for cell in starts}
    for _ in range(MOST_MOVES):
        around = [one for cell in current.values() for one in _with_neighbours(bench, cell)]
        new = [cell for cell in dict.fromkeys(around) if cell not in bench.asked]
        if new:
            bench.ask(new)
        moved = {
            place: _better(bench, cell, bench.lattice.neighbours(cell))
            for place, cell in current.items()
        }
        if moved == current:
            return
        current = moved


def _with_neighbours(bench: _Bench, cell: Cell) -> list[Cell]:
    return [cell, *bench.lattice.neighbours(cell)]


def _better(bench: _Bench, cell: Cell, others: Sequence[Cell]) -> Cell:
    """The best of a cell and others; the cell itself if they gain next to nothing."""
    best = min((cell, *others), key=bench.loss)
    return best if bench.loss(best) < bench.loss(cell) - GAIN else cell


def _repeat_best(bench: _Bench, places: Sequence[int]) -> None:
    """Train the two best cells of each place with another seed: luck may have chosen the first.

    Both, because a seed may be bad for all cells alike.
    """
    pairs = [cell for place in places for cell in bench.ranked(place)[:2]]
    bench.ask([cell for cell in pairs if math.isfinite(bench.loss(cell))])


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
