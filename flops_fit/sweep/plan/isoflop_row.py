"""The IsoFLOP row of a budget: which sizes to train with it, and the trial of each.

For a budget C (Hoffmann et al. 2022, approach 2) sizes are spaced evenly in log N around the
expected optimum, each with D = C / FLOPs per token, rounded to whole steps. The optimum is expected
where D = 20 N: with f(N) measured FLOPs per token, 20 N f(N) = C. That is N = sqrt(C / 120) where
f is 6 N; a convolution that spends far more FLOPs per parameter has its optimum at far fewer
parameters. A row spans three quarters of a decade to each side, because a wider row narrows the
answer more than additional points do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from flops_fit.display.number_text import count
from flops_fit.laws.design.assumed_law import TOKENS_PER_PARAM
from flops_fit.laws.fitting.isoflop import LEAST_RUNS
from flops_fit.laws.model.recipe_law import FEW_STEPS, RecipeLaw, largest_batch
from flops_fit.records import Skipped, Trial
from flops_fit.sweep.data.source import Source
from flops_fit.sweep.task.hashing import digest
from flops_fit.sweep.task.model_cost import ModelCost
from flops_fit.sweep.task.size_finder import SizeFinder
from flops_fit.sweep.task.twins import Twins
from flops_fit.sweep.training.recipe import Recipe

SIZES_PER_BUDGET = 7
MIN_GIVEN_SIZES = 3  # if the caller chose the sizes; fewer points determine no minimum
HALF_WIDTH_DECADES = 0.75
MIN_STEPS = 10  # with fewer, a learning rate schedule has no shape: the point is skipped
MIN_RATIO = 2.0  # least ratio of largest to smallest N at which a row shows a minimum
_MAX_ITERATIONS = 16


@dataclass(frozen=True)
class Bounds:
    """The range of N from which the sizes of a budget are chosen, in parameters.

    Attributes:
        low: Least N: of the planned range, or below which the data would not last.
        high: Largest N: of the planned range, or above which fewer than `FEW_STEPS` steps are left.
        short_of_data: Whether the amount of data determines `low`.
        short_of_steps: Whether the number of steps determines `high`.
        smallest_above: N of the smallest model if it lies above the planned range; else 0.
        expected: N of the expected optimum.
    """

    low: float
    high: float
    short_of_data: bool
    short_of_steps: bool
    smallest_above: int
    expected: float

    @property
    def one_sided(self) -> bool:
        """Whether the expected optimum lies outside."""
        return not self.low <= self.expected <= self.high


@dataclass(frozen=True)
class IsoflopRows:
    """The settings shared by all trials of a sweep; plans the row of trials of each budget.

    Attributes:
        identity: The part of the task that determines a trial's result, as plain values.
        source: The data.
        recipe: How trials train.
        seed: The sweep's seed.
        finder: The sizes at which the model can be built, and what they cost.
        law: Learning rate and batch as found by experiment; None before, and where both are given.
        twins: The trials of the sweep whose randomness these share; None if there is none.
    """

    identity: dict[str, object]
    source: Source
    recipe: Recipe
    seed: int
    finder: SizeFinder
    law: RecipeLaw | None = None
    twins: Twins | None = None

    @property
    def size_param(self) -> str:
        """Name of the size parameter."""
        return str(self.identity["size_param"])

    @property
    def max_tokens(self) -> float:
        """Most units of D that a trial may see: the data times the limit on epochs."""
        available = self.source.num_tokens
        return math.inf if available is None else available * self.recipe.max_epochs

    @property
    def min_sizes(self) -> int:
        """Number of sizes that a row needs: enough for a curve, or fewer if the caller chose."""
        return LEAST_RUNS if self.finder.given is None else MIN_GIVEN_SIZES

    @property
    def tuned(self) -> tuple[str, ...]:
        """What a pilot finds: the learning rate, the batch size, both or nothing."""
        finds = {"learning_rate": self.recipe.finds_rate, "batch_size": self._finds_batch}
        return tuple(name for name, found in finds.items() if found)

    @property
    def rules(self) -> dict[str, str]:
        """The published rules of the recipe, by what they decide."""
        rules = self.recipe.rules
        if self.source.batch_size is not None:
            rules.pop("batch_size", None)
        return rules

    @property
    def _finds_batch(self) -> bool:
        return self.recipe.finds_batch and self.source.batch_size is None

    def batch_size(self, budget: float, cost: ModelCost) -> int:
        """Examples a step: the recipe's number, else the user's loader's, else found or by rule."""
        recipe, source = self.recipe, self.source
        if "batch_size" in recipe.rules and source.batch_size is not None:
            return source.batch_size
        N, D = cost.num_params, budget / cost.flops_per_token
        if self.law is not None and self._finds_batch:
            best, most = float(self.law.batch_size(N, D)), float(self.law.most_batch(N, D))
            return max(1, round(min(best, most)))
        batch = recipe.examples_per_step(budget, N, D, source.unit, source.tokens_per_example)
        if not self._finds_batch:
            return batch
        return max(1, min(batch, int(largest_batch(D, source.tokens_per_example))))

    def least_batch(self, budget: float, cost: ModelCost) -> int:
        """Examples a step if they are as few as possible: a batch that is to be found can be 1."""
        return 1 if self._finds_batch else self.batch_size(budget, cost)

    def row(self, budget: float) -> tuple[list[Trial], list[Skipped]]:
        """The trials of a budget at the recipe's own learning rate, and the sizes skipped."""
        trials: list[Trial] = []
        skipped: list[Skipped] = []
        for cost in self._costs(budget):
            trial = self.trial(budget, cost, len(trials))
            reason = self._reason_to_skip(trial)
            if reason:
                skipped.append(Skipped(budget, cost.size, reason))
            else:
                trials.append(trial)
        return trials, skipped

    def can_show_minimum(self, row: Sequence[Trial]) -> bool:
        """Whether a row has enough sizes, far enough apart unless the caller chose them."""
        if len(row) < self.min_sizes:
            return False
        return self.finder.given is not None or row[-1].num_params >= MIN_RATIO * row[0].num_params

    def bounds(self, budget: float) -> Bounds:
        """The range of sizes for a budget, if the caller chose none.

        The planned range is cut where the data would not last, and where fewer than `FEW_STEPS`
        steps would be left: the loss of so short a run depends on its warm-up more than its size.
        """
        smallest = self.finder.nearest_cost(1)
        expected = self._expected_optimum(budget, smallest)
        low, high = expected / 10**HALF_WIDTH_DECADES, expected * 10**HALF_WIDTH_DECADES
        # More FLOPs per token mean fewer tokens: the data last from this size up ...
        lasting = self._first_size(smallest, budget / self.max_tokens, up=True).num_params
        # ... and there are enough steps from this size down.
        largest = self.finder.nearest_cost(high)
        tokens_per_step = self.least_batch(budget, largest) * self.source.tokens_per_example
        limit = budget / (FEW_STEPS * tokens_per_step)
        steady = self._first_size(largest, limit, up=False).num_params
        return Bounds(
            low=max(low, lasting),
            high=min(high, steady),
            short_of_data=lasting > max(low, smallest.num_params),
            short_of_steps=steady < high,
            smallest_above=smallest.num_params if smallest.num_params > high else 0,
            expected=expected,
        )

    def _expected_optimum(self, budget: float, cost: ModelCost) -> float:
        """N at which a trial of this budget has D = `TOKENS_PER_PARAM` N; may lie between sizes.

        A fixed-point iteration: assume f(N) of the current size, solve for N, take the nearest
        size, and repeat until the size no longer changes.

        Args:
            budget: In FLOPs.
            cost: Of the size to start from.
        """
        optimum = 0.0
        for _ in range(_MAX_ITERATIONS):
            flops_at_20 = TOKENS_PER_PARAM * cost.num_params * cost.flops_per_token
            optimum = cost.num_params * math.sqrt(budget / flops_at_20)
            nearest = self.finder.nearest_cost(optimum)
            if nearest == cost:
                break
            cost = nearest
        return optimum

    def _costs(self, budget: float) -> list[ModelCost]:
        """Different sizes: the caller's, else evenly spaced in log N between the bounds."""
        finder = self.finder
        if finder.given is not None:
            costs = map(finder.cost, finder.ascending())
            return [cost for cost in costs if cost is not None]
        if self.twins is not None and (sizes := self.twins.sizes(budget, self.size_param)):
            return [cost for cost in map(finder.cost, sizes) if cost is not None]
        bounds = self.bounds(budget)
        targets = np.geomspace(bounds.low, max(bounds.low, bounds.high), SIZES_PER_BUDGET)
        nearest = map(finder.nearest_cost, targets)
        return list({cost.num_params: cost for cost in nearest}.values())

    def _first_size(self, cost: ModelCost, limit: float, *, up: bool) -> ModelCost:
        """Going up or down from one size, the first whose FLOPs per token reach a limit."""

        def short(cost: ModelCost) -> bool:
            return cost.flops_per_token < limit if up else cost.flops_per_token > limit

        while short(cost):
            ratio = limit / cost.flops_per_token
            ratio = max(1.05, ratio) if up else min(0.95, ratio)  # always move a little
            nearest = self.finder.nearest_cost(cost.num_params * ratio)
            if nearest == cost:
                break
            cost = nearest
        return cost

    def trial(
        self,
        budget: float,
        cost: ModelCost,
        index: int,
        *,
        batch: int | None = None,
        rate: float | None = None,
        seed: int | None = None,
        role: str = "sweep",
    ) -> Trial:
        """One grid point: D is the budget over FLOPs per token, in whole steps.

        Args:
            budget: In FLOPs.
            cost: The model.
            index: Of its size in the row.
            batch: Examples a step; by default as the recipe says.
            rate: Peak learning rate; by default as the recipe says.
            seed: By default that of the sweep.
            role: What the trial is for: see `Trial.role`.
        """
        per_example = self.source.tokens_per_example
        batch = self.batch_size(budget, cost) if batch is None else batch
        measured = cost.convention.startswith("measured")
        per_token = cost.flops_per_token * (self.source.padding_at(batch) if measured else 1.0)
        steps = round(budget / (per_token * batch * per_example))
        tokens = round(steps * batch * per_example)
        lengths = self.source.lengths
        padded = round(steps * batch * lengths.elements(batch)) if lengths and measured else 0
        trial = Trial(
            trial_id="",
            compute_budget=budget,
            size=cost.size,
            size_index=index,
            num_params=cost.num_params,
            num_tokens=tokens,
            flops=tokens * per_token,
            steps=steps,
            batch_size=batch,
            learning_rate=math.nan,
            seed=self.seed if seed is None else seed,
            padded_tokens=padded,
            role=role,
        )
        if self.twins is not None and role == "sweep":
            twin = self.twins.twin(budget, trial.size, index, self.size_param)
            trial = replace(trial, at_own_rate=twin)
        # The recipe's rate may be a function of the trial, and the id depends on the rate.
        trial = replace(trial, learning_rate=self._rate(trial) if rate is None else rate)
        return replace(trial, trial_id=self._trial_id(trial, cost))

    def _rate(self, trial: Trial) -> float:
        if self.law is None or not self.recipe.finds_rate:
            return self.recipe.peak_learning_rate(trial)
        N, D = trial.num_params, trial.num_tokens
        return rounded_rate(float(self.law.learning_rate(N, D, trial.batch_size)))

    def at_rates(self, trial: Trial, multipliers: Iterable[float]) -> list[Trial]:
        """The same trial at multiples of its learning rate, ascending."""
        cost = self.finder.costs[trial.size]
        variants = []
        for factor in sorted(multipliers):
            rate = trial.learning_rate * factor
            variant = replace(trial, learning_rate=rate, lr_multiplier=float(factor))
            if factor != 1:
                trial_id = self._trial_id(variant, cost)
                own = trial.at_own_rate or trial.trial_id
                variant = replace(variant, trial_id=trial_id, at_own_rate=own)
            variants.append(variant)
        return variants

    def _trial_id(self, trial: Trial, cost: ModelCost) -> str:
        """Hash of all that determines the trial's result. Its content is a stored format."""
        # A pilot's run takes no part in the fits, so that the sweep may need the same one again.
        role = {} if trial.role == "sweep" else {"role": trial.role}
        # Trials of unpaired sweeps have older ids.
        twin = {"twin": trial.at_own_rate} if self.twins is not None and not role else {}
        return digest(
            {
                **self.identity,
                **role,
                **twin,
                "size": trial.size,
                "shapes": cost.shapes,
                "recipe": self.recipe.identity(),
                "steps": trial.steps,
                "batch_size": trial.batch_size,
                "learning_rate": trial.learning_rate,
                "seed": trial.seed,
            }
        )

    def is_feasible(self, trial: Trial) -> bool:
        """Whether a trial has enough steps and enough data."""
        return not self._reason_to_skip(trial)

    def _reason_to_skip(self, trial: Trial) -> str:
        max_epochs, available = self.recipe.max_epochs, self.source.num_tokens
        if trial.steps < MIN_STEPS:
            return (
                f"{trial.compute_budget:.3g} FLOPs are {plural(trial.steps, 'step')} of "
                f"{plural(trial.batch_size, 'example')}, fewer than {MIN_STEPS}"
            )
        if available is not None and trial.num_tokens > max_epochs * available:
            return (
                f"{trial.compute_budget:.3g} FLOPs need {count(trial.num_tokens)} "
                f"{self.source.unit}, more than {max_epochs:g} epochs of {count(available)}"
            )
        return ""


def rounded_rate(rate: float) -> float:
    """Three digits: the last bits of a fit, which differ between machines, name no other trial."""
    return float(f"{rate:.3g}")


def plural(number: int, noun: str) -> str:
    """`1 step`, `2 steps`, `1,000 steps`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
