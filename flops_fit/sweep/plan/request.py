"""The arguments that determine a plan, as the caller passed them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from flops_fit.records import Size
from flops_fit.sweep.task.model_cost import FlopsConvention
from flops_fit.sweep.training.recipe import Recipe


@dataclass(frozen=True)
class PlanRequest:
    """The arguments of a plan besides its task, unchecked; `validation.check_all` checks them.

    Attributes:
        compute_budgets: Budgets C in FLOPs, in any order. It may be an iterator, which planning
            uses up. None, where the caller passed none, is reported as an error.
        sizes: Values of the size parameter to train at every budget. None chooses seven sizes
            around the expected optimum of each budget.
        recipe: How each trial trains.
        flops: How the FLOPs of one unit of D are counted: "measured", "6ND", or a function from
            a model to FLOPs.
        seed: Seed of the sweep, a whole number from 0 up. Each trial derives its own from it.
    """

    compute_budgets: Iterable[float] | None = None
    sizes: Sequence[Size] | None = None
    recipe: Recipe = field(default_factory=Recipe)
    flops: FlopsConvention = "measured"
    seed: int = 0
