"""The IsoFLOP row of a budget: which sizes serve it, and the trial of each.

For a budget C (Hoffmann et al. 2022, approach 2) sizes lie evenly in log N around the expected
optimum, each with D = C / FLOPs per token, rounded to whole steps. The optimum is expected where D
is 20 N at the measured FLOPs per token f(N), 20 N f(N) = C, which is N = sqrt(C / 120) where f is
6 N; a convolution that spends far more on each parameter has its optimum at far fewer of them. The
row spans three quarters of a decade to each side, since width and span narrow the answer more than
points.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from flops_fit.laws.fitting.isoflop import LEAST_RUNS
from flops_fit.records import Skipped, Trial
from flops_fit.sweep.data.source import Source
from flops_fit.sweep.task.hashing import digest
from flops_fit.sweep.task.model_cost import ModelCost
from flops_fit.sweep.task.size_finder import SizeFinder
from flops_fit.sweep.training.recipe import Recipe

SIZES_PER_BUDGET = 7
FEWEST_SIZES = 3  # of those given: fewer say nothing of a minimum
HALF_WIDTH_DECADES = 0.75
TOKENS_PER_PARAM = 20.0  # Hoffmann et al. 2022
FEWEST_STEPS = 10  # below, a schedule has no shape: the point is passed over
FEW_STEPS = 200  # below, a check on the answer warns
_MOST_ITERATIONS = 16
NARROW = 2.0  # a row whose sizes differ by less in N shows no minimum


@dataclass(frozen=True)
class Bounds:
    """N between which sizes serve a budget, in parameters.

    Attributes:
        low: The least: of the range, or below which the data would not last.
        high: The most: of the range, or above which fewer than `FEW_STEPS` steps are left.
        short_of_data: Whether the data set `low`.
        short_of_steps: Whether the steps set `high`.
        beyond: The smallest model's N, where it lies beyond the range; else 0.
        expected: Where the optimum is expected.
    """

    low: float
    high: float
    short_of_data: bool
    short_of_steps: bool
    beyond: int
    expected: float

    @property
    def one_sided(self) -> bool:
        """Whether the optimum is expected outside."""
        return not self.low <= self.expected <= self.high


@dataclass(frozen=True)
class Rows:
    """What the trials of one sweep share, and the row of each budget.

    Attributes:
        identity: What of the task determines a trial's result.
        source: The data.
        recipe: How trials train.
        seed: The sweep's seed.
        finder: The sizes.
    """

    identity: dict[str, object]
    source: Source
    recipe: Recipe
    seed: int
    finder: SizeFinder

    @property
    def most_tokens(self) -> float:
        """Units of D that a trial may see: the data times the epoch limit."""
        available = self.source.num_tokens
        return math.inf if available is None else available * self.recipe.max_epochs

    def batch_size(self, budget: float) -> int:
        """Examples a step: the recipe's, else the user's loader's, else by the recipe's rule."""
        recipe, source = self.recipe, self.source
        free = recipe.batch_size == "auto" and recipe.batch_tokens is None
        if free and source.batch_size is not None:
            return source.batch_size
        return recipe.examples_per_step(budget, source.unit, source.tokens_per_example)

    def row(self, budget: float) -> tuple[list[Trial], list[Skipped]]:
        """The trials of one budget at the recipe's own rate, and the sizes that cannot serve it."""
        trials: list[Trial] = []
        skipped: list[Skipped] = []
        for cost in self._costs(budget):
            trial = self.trial(budget, cost, len(trials))
            reason = self._unfit(trial)
            if reason:
                skipped.append(Skipped(budget, cost.size, reason))
            else:
                trials.append(trial)
        return trials, skipped

    @property
    def fewest_sizes(self) -> int:
        """Sizes that a row needs: those of a curve, or fewer where sizes were given."""
        return LEAST_RUNS if self.finder.given is None else FEWEST_SIZES

    def carries(self, row: Sequence[Trial]) -> bool:
        """Whether a row can show a minimum: enough sizes, and not all alike unless so wished."""
        if len(row) < self.fewest_sizes:
            return False
        return self.finder.given is not None or row[-1].num_params >= NARROW * row[0].num_params

    def bounds(self, budget: float) -> Bounds:
        """Where the sizes of a budget may lie, when none were given.

        The range is cut short where the data would not last, and where fewer than `FEW_STEPS` steps
        would be left: so short a run measures its warm-up, not its size.
        """
        smallest = self.finder.nearest_cost(1)
        centre = self._expected_optimum(budget, smallest)
        least, most = centre / 10**HALF_WIDTH_DECADES, centre * 10**HALF_WIDTH_DECADES
        lasting = self._walk(smallest, budget / self.most_tokens, up=True).num_params
        per_step = self.batch_size(budget) * self.source.tokens_per_example
        steady = self._walk(
            self.finder.nearest_cost(most), budget / (FEW_STEPS * per_step), up=False
        ).num_params
        return Bounds(
            low=max(least, lasting),
            high=min(most, steady),
            short_of_data=lasting > max(least, smallest.num_params),
            short_of_steps=steady < most,
            beyond=smallest.num_params if smallest.num_params > most else 0,
            expected=centre,
        )

    def _expected_optimum(self, budget: float, cost: ModelCost) -> float:
        """N at which a trial of this budget has D = `TOKENS_PER_PARAM` N, be it between sizes.

        Args:
            budget: In FLOPs.
            cost: Of the size to start from.
        """
        wanted = 0.0
        for _ in range(_MOST_ITERATIONS):
            spent = TOKENS_PER_PARAM * cost.num_params * cost.flops_per_token
            wanted = cost.num_params * math.sqrt(budget / spent)
            nearer = self.finder.nearest_cost(wanted)
            if nearer == cost:
                break
            cost = nearer
        return wanted

    def _costs(self, budget: float) -> list[ModelCost]:
        """Different sizes: those given, else evenly spaced in log N between the bounds."""
        finder = self.finder
        if finder.given is not None:
            costs = map(finder.cost, finder.ascending())
            return [cost for cost in costs if cost is not None]
        bounds = self.bounds(budget)
        wanted = np.geomspace(bounds.low, max(bounds.low, bounds.high), SIZES_PER_BUDGET)
        nearest = map(finder.nearest_cost, wanted)
        return list({cost.num_params: cost for cost in nearest}.values())

    def _walk(self, cost: ModelCost, limit: float, *, up: bool) -> ModelCost:
        """From one size to the first, up or down, whose FLOPs per token reach a limit."""

        def short(cost: ModelCost) -> bool:
            return cost.flops_per_token < limit if up else cost.flops_per_token > limit

        while short(cost):
            ratio = limit / cost.flops_per_token
            ratio = max(1.05, ratio) if up else min(0.95, ratio)
            nearer = self.finder.nearest_cost(cost.num_params * ratio)
            if nearer == cost:
                break
            cost = nearer
        return cost

    def trial(self, budget: float, cost: ModelCost, index: int) -> Trial:
        """One grid point: D is the budget over FLOPs per token, in whole steps."""
        per_example = self.source.tokens_per_example
        batch = self.batch_size(budget)
        steps = round(budget / (cost.flops_per_token * batch * per_example))
        tokens = steps * batch * per_example
        trial = Trial(
            trial_id="",
            compute_budget=budget,
            size=cost.size,
            size_index=index,
            num_params=cost.num_params,
            num_tokens=tokens,
            flops=tokens * cost.flops_per_token,
            steps=steps,
            batch_size=batch,
            learning_rate=math.nan,
            seed=self.seed,
        )
        trial = replace(trial, learning_rate=self.recipe.peak_learning_rate(trial))
        return replace(trial, trial_id=self._trial_id(trial, cost))

    def at_rates(self, trial: Trial, multipliers: Iterable[float]) -> list[Trial]:
        """The same trial at multiples of its learning rate."""
        cost = self.finder.costs[trial.size]
        rates = [
            replace(trial, learning_rate=trial.learning_rate * m, lr_multiplier=float(m))
            for m in sorted(multipliers)
        ]
        return [
            other
            if other.lr_multiplier == 1
            else replace(other, trial_id=self._trial_id(other, cost), at_own_rate=trial.trial_id)
            for other in rates
        ]

    def _trial_id(self, trial: Trial, cost: ModelCost) -> str:
        return digest(
            {
                **self.identity,
                "size": trial.size,
                "shapes": cost.shapes,
                "recipe": self.recipe.identity(),
                "steps": trial.steps,
                "batch_size": trial.batch_size,
                "learning_rate": trial.learning_rate,
                "seed": trial.seed,
            }
        )

    def serves(self, trial: Trial) -> bool:
        """Whether steps and data are enough for a trial."""
        return not self._unfit(trial)

    def _unfit(self, trial: Trial) -> str:
        limit, available = self.recipe.max_epochs, self.source.num_tokens
        if trial.steps < FEWEST_STEPS:
            return (
                f"{trial.compute_budget:.3g} FLOPs are {plural(trial.steps, 'step')} of "
                f"{plural(trial.batch_size, 'example')}, fewer than {FEWEST_STEPS}"
            )
        if available is not None and trial.num_tokens > limit * available:
            return (
                f"{trial.compute_budget:.3g} FLOPs need {trial.num_tokens:.3g} {self.source.unit}, "
                f"over {limit:g} epochs of {available:.3g}"
            )
        return ""


def plural(number: int, noun: str) -> str:
    """`1 step`, `2 steps`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
