"""`Lattice`: the cells of a pilot, learning rates and batches a factor of two apart.

A *place* is a model size at a budget. All places share the rates and the batches of the lattice, so
that what is found at one place can be compared with, and begun from, what was found at another.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from flops_fit.laws.model.recipe_law import RecipeLaw
from flops_fit.records import Trial
from flops_fit.sweep.plan.isoflop_row import MIN_STEPS, IsoflopRows
from flops_fit.sweep.task.model_cost import ModelCost

FACTOR = 2.0  # between neighbours, in rate and in batch
RATE_BY_PARAMS = -0.35  # exponent of the rates that a search starts from (Porian et al. 2024: -1/3)
LEAST_STEPS = 50  # of a cell: a shorter run tells little about a longer one


@dataclass(frozen=True)
class Place:
    """A model size at a budget.

    Attributes:
        budget: In FLOPs.
        cost: The model.
    """

    budget: float
    cost: ModelCost

    @property
    def num_tokens(self) -> float:
        """D that the budget pays for, before rounding to whole steps."""
        return self.budget / self.cost.flops_per_token


@dataclass(frozen=True, order=True)
class Cell:
    """A place, a learning rate and a batch size.

    Attributes:
        place: Index of the place.
        rate: Steps of the lattice above its first rate.
        batch: The batch is two to this power, in examples; 0 if the batch is not tuned.
    """

    place: int
    rate: int
    batch: int


@dataclass(frozen=True)
class Lattice:
    """The cells that a pilot may train.

    Attributes:
        rows: The rows of the sweep that the pilot is for.
        places: Where cells are trained; the search begins at the first.
        first_rate: Learning rate of the cells with `rate` 0.
    """

    rows: IsoflopRows
    places: tuple[Place, ...]
    first_rate: float

    @classmethod
    def of(cls, rows: IsoflopRows, places: Sequence[Place]) -> Lattice:
        """The lattice through the rate that the first rule gives at the first place."""
        place = places[0]
        rate = rows.trial(place.budget, place.cost, 0).learning_rate
        return cls(rows, tuple(places), float(f"{rate:.2g}"))

    @property
    def tunes_rate(self) -> bool:
        """Whether the learning rate is looked for."""
        return "learning_rate" in self.rows.tuned

    @property
    def tunes_batch(self) -> bool:
        """Whether the batch size is looked for."""
        return "batch_size" in self.rows.tuned

    def first_cell(self, index: int) -> Cell:
        """Where to start at a place: near the rule, with a lower rate for larger models."""
        place, middle = self.places[index], self.places[0]
        power = self._power(self.rows.batch_size(place.budget, place.cost))
        times = math.log(place.cost.num_params / middle.cost.num_params, FACTOR)
        rate = round(RATE_BY_PARAMS * times) if self.tunes_rate else 0
        return self._allowed(Cell(index, rate, power))

    def nearest(self, index: int, law: RecipeLaw) -> Cell:
        """The cell of a place that is nearest to a law's best rate and batch."""
        place = self.places[index]
        N, D = place.cost.num_params, place.num_tokens
        batch = self._power(float(law.batch_size(N, D)))
        cell = self._allowed(Cell(index, 0, batch))
        examples = self.batch_size(cell)
        rate = float(law.learning_rate(N, D, examples)) / self.first_rate
        return replace(cell, rate=round(math.log(rate, FACTOR)) if self.tunes_rate else 0)

    def neighbours(self, cell: Cell) -> list[Cell]:
        """The cells beside a cell, in rate and in batch."""
        beside = []
        if self.tunes_rate:
            beside += [replace(cell, rate=cell.rate + step) for step in (-1, 1)]
        if self.tunes_batch:
            beside += [replace(cell, batch=cell.batch + step) for step in (-1, 1)]
        return [one for one in beside if self.is_possible(one)]

    def is_possible(self, cell: Cell) -> bool:
        """Whether a cell has at least one example a step, enough steps and enough data."""
        if not self.tunes_batch:
            return True
        if cell.batch < 0:
            return False
        trial = self.trial(cell)
        return trial.steps >= LEAST_STEPS and self.rows.is_feasible(trial)

    def batch_size(self, cell: Cell) -> int:
        """Examples a step."""
        place = self.places[cell.place]
        if not self.tunes_batch:
            return self.rows.batch_size(place.budget, place.cost)
        return 2**cell.batch

    def trial(self, cell: Cell, repeat: int = 0) -> Trial:
        """The trial of a cell.

        Args:
            cell: The cell.
            repeat: 0, or the number of a further seed.
        """
        # All cells of a place begin alike, so that they differ by their recipe and not by luck.
        first = self._trial(Cell(cell.place, 0, 0), repeat)
        return replace(self._trial(cell, repeat), added=True, at_own_rate=first.trial_id)

    def _trial(self, cell: Cell, repeat: int) -> Trial:
        place = self.places[cell.place]
        return self.rows.trial(
            place.budget,
            place.cost,
            cell.place,
            batch=self.batch_size(cell),
            rate=self.first_rate * FACTOR**cell.rate if self.tunes_rate else None,
            seed=self.rows.seed + repeat,
            role="pilot",
        )

    def _power(self, examples: float) -> int:
        return round(math.log2(max(1.0, examples))) if self.tunes_batch else 0

    def _allowed(self, cell: Cell) -> Cell:
        """The cell, with a batch small enough for the steps that a cell needs."""
        while cell.batch > 0 and not self.is_possible(cell):
            cell = replace(cell, batch=cell.batch - 1)
        return cell


def is_place(rows: IsoflopRows, place: Place) -> bool:
    """Whether models of this size can be trained at this budget, in the smallest batches."""
    batch = rows.least_batch(place.budget, place.cost)
    trial = rows.trial(place.budget, place.cost, 0, batch=batch)
    return trial.steps >= max(MIN_STEPS, LEAST_STEPS) and rows.is_feasible(trial)
