"""`SweepPlan`: the grid of a sweep as data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from flops_fit.records import TRIAL_COLUMNS, Size, Trial, to_frame
from flops_fit.sweep.recipe import Recipe


@dataclass(frozen=True)
class Skipped:
    """A grid point that was passed over, and why."""

    compute_budget: float
    size: Size
    reason: str


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep will train.

    Attributes:
        trials: The grid points, budget by budget, from the smallest size up.
        skipped: Points passed over, each with its reason.
        data_unit: What D counts: "tokens" or "examples".
        tokens_per_example: Units of D in one example.
        available: Units of D in the training data; None where it cannot be known.
        flops_convention: How FLOPs were counted.
        recipe: How each trial trains.
        model_name: Dotted name of the model class.
        size_param: Name of the size parameter.
        setting: Hash of what all trials share: model, data, loss, recipe and FLOPs convention.
            Runs of one setting may be fitted together.
    """

    trials: tuple[Trial, ...]
    skipped: tuple[Skipped, ...]
    data_unit: str
    tokens_per_example: int
    available: int | None
    flops_convention: str
    recipe: Recipe
    model_name: str
    size_param: str
    setting: str

    @property
    def total_flops(self) -> float:
        """FLOPs of all trials together."""
        return sum(trial.flops for trial in self.trials)

    @property
    def compute_budgets(self) -> list[float]:
        """The budgets planned, ascending."""
        return sorted({trial.compute_budget for trial in self.trials})

    def to_frame(self) -> pd.DataFrame:
        """A row per trial, with tokens per parameter and passes over the data beside its fields."""
        frame = to_frame(self.trials, TRIAL_COLUMNS)
        frame.insert(6, "tokens_per_param", frame["num_tokens"] / frame["num_params"])
        frame["epochs"] = frame["num_tokens"] / (self.available or math.nan)
        return frame

    def __repr__(self) -> str:
        head = (
            f"SweepPlan: {len(self.trials)} trials of {self.model_name}, "
            f"{self.total_flops:.3g} FLOPs ({self.flops_convention})"
        )
        columns = (
            f"{'budget':>9}  {'trials':>6}  {self.size_param + ' (N)':<28}  D in {self.data_unit}"
        )
        rows = [self._row(budget) for budget in self.compute_budgets]
        rows += self._said_of_rates()
        if self.available is None:
            rows.append(
                "the stream's length is not known: where it ends it is read again, and said"
            )
        return "\n".join([head, columns, *rows, *self._said_of_skipped()])

    def _row(self, budget: float) -> str:
        row = [trial for trial in self.trials if trial.compute_budget == budget]
        first, last = row[0], row[-1]
        sizes = f"{first.size} ({first.num_params:.3g}) to {last.size} ({last.num_params:.3g})"
        rates = _range(t.learning_rate for t in row if t.lr_multiplier == 1)
        rate = f"lr {rates}, batch {_range(t.batch_size for t in row)}"
        return (
            f"{budget:>9.3g}  {len(row):>6}  {sizes:<28}  {first.num_tokens:.3g} to "
            f"{last.num_tokens:.3g}; {rate}, steps {first.steps} to {last.steps}"
        )

    def _said_of_rates(self) -> list[str]:
        """What of learning rate and batch a rule decided, and what other rates are tried."""
        lines, tuned = [], [t for t in self.trials if t.lr_multiplier != 1]
        by_rule = ["learning rate"] * (self.recipe.learning_rate == "auto")
        by_rule += ["batch"] * self._batch_is_by_rule()
        if by_rule:
            lines.append(f"{' and '.join(by_rule)} by DeepSeek LLM's rule in C (2024, section 3.1)")
        if tuned:
            tried = ", ".join(f"x{m:g}" for m in sorted({t.lr_multiplier for t in tuned}))
            lines.append(f"{len(tuned)} of the trials try other learning rates: {tried}")
        return lines

    def _batch_is_by_rule(self) -> bool:
        recipe, unit = self.recipe, self.data_unit
        if (recipe.batch_size, recipe.batch_tokens, unit) != ("auto", None, "tokens"):
            return False
        rule = [
            recipe.examples_per_step(t.compute_budget, unit, self.tokens_per_example)
            for t in self.trials
        ]
        return rule == [t.batch_size for t in self.trials]  # else the user's loader's

    def _said_of_skipped(self) -> list[str]:
        """A line on values of the size parameter that build no model; one each on other points."""
        refused = [skip for skip in self.skipped if math.isnan(skip.compute_budget)]
        lines = [
            f"passed over: {self.size_param}={skip.size}: {skip.reason}"
            for skip in self.skipped
            if skip not in refused
        ]
        if len(lines) > 5:
            lines[4:] = [f"passed over: {len(lines) - 4} more, see .skipped"]
        if refused:
            first = refused[0]
            others = f" and {len(refused) - 1} more" if len(refused) > 1 else ""
            lines.append(
                f"no model at {self.size_param}={first.size}{others}; the nearest others are taken "
                f"({first.reason})"
            )
        return lines


def _range(values: Iterable[float]) -> str:
    ordered = sorted(set(values))
    texts = [f"{value:.3g}" if isinstance(value, float) else str(value) for value in ordered]
    return texts[0] if len(texts) == 1 else f"{texts[0]} to {texts[-1]}"
