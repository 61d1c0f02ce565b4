"""`Goal`: how precisely a sweep is to know the answer at a target budget, and what it may cost."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from flops_fit.display.number_text import flops, times
from flops_fit.laws.checks.of_predictions import TOO_FAR
from flops_fit.laws.design.candidates import ladder
from flops_fit.validate import is_number, is_positive, raise_problems

# Number of rows that a sweep with a goal begins with: the lowest budget, and others in the lower
# half of the range that are at most so many budgets apart.
FIRST_ROWS, APART = 3, 2
UNTIL = 1.25  # factor that the interval of N_opt may span, by default
MOST_FACTOR = 1e6
LEAST_SPAN = 3.0  # of the budgets that may be trained
FAR = 10.0  # times the largest budget, from which the distance of the target is told
SIZES_OF_GRID, BUDGETS_OF_GRID = 7, 5  # where there is no goal
# However narrow the interval is, a row is trained at the target over the first, or at this share of
# the largest budget that may be trained, whichever is less: a law that fits below may bend above.
TRAINED_OVER, TRAINED_SHARE = 100.0, 0.3


@dataclass(frozen=True)
class Goal:
    """How precisely the answer is to be known.

    Attributes:
        target: Budget of the answer, FLOPs.
        until: Factor that the 95 % interval of N_opt at the target shall span at most; None if it
            may be any.
        until_loss: The same for the loss there.
        max_flops: What the sweep may spend, in FLOPs; None for what a grid of seven sizes at five
            budgets of the same range would, or at those given if they are more.
        budgets: Budgets that may be trained, ascending; empty before they are known.
        gain_per: "flop" or "hour": what a run costs when it is chosen by what it gains.
    """

    target: float
    until: float | None = None
    until_loss: float | None = None
    max_flops: float | None = None
    budgets: tuple[float, ...] = ()
    gain_per: str = field(default="flop", repr=False)  # rounds are stored with the repr

    @classmethod
    def asked(
        cls,
        target: float | None,
        until: float | None,
        until_loss: float | None,
        max_flops: float | None,
        gain_per: str = "flop",
    ) -> Goal | None:
        """The goal of these arguments; None without a target.

        Raises:
            ArgumentError: There is no target, but something that belongs to one.
        """
        if target is not None:
            return cls(target, until, until_loss, max_flops, gain_per=gain_per)
        other = None if until == UNTIL else until
        given: dict[str, object] = {
            "until": other,
            "until_loss": until_loss,
            "max_flops": max_flops,
            "gain_per": None if gain_per == "flop" else gain_per,
        }
        raise_problems(
            [
                f"{name}: needs target=, the compute budget that the answer is for"
                for name, value in given.items()
                if value is not None
            ]
        )
        return None

    @property
    def first_budgets(self) -> list[float]:
        """The budgets of the rows that the sweep begins with."""
        apart = min(APART, max(1, (len(self.budgets) - 1) // 4))
        return list(self.budgets[::apart][:FIRST_ROWS])

    @property
    def least_top(self) -> float:
        """The budget at which, or above, a row is trained in any case."""
        wanted = min(self.target / TRAINED_OVER, TRAINED_SHARE * self.budgets[-1])
        wanted = max(wanted, self.target / TOO_FAR)  # nothing is predicted further out
        return min(budget for budget in self.budgets if budget >= 0.99 * wanted)

    def between(self, budgets: Sequence[float]) -> Goal:
        """The goal, with the budgets that may be trained: these and others between them."""
        grid = budgets
        if len(budgets) < BUDGETS_OF_GRID:
            grid = np.geomspace(min(budgets), max(budgets), BUDGETS_OF_GRID).tolist()
        most = self.max_flops or SIZES_OF_GRID * sum(grid)
        return replace(self, budgets=tuple(ladder(budgets)), max_flops=most)

    def faults(self) -> list[str]:
        """What is wrong with the arguments."""
        found = []
        if not is_positive(self.target):
            found.append(
                f"target: expected a compute budget in FLOPs, such as 1e21, got {self.target!r}"
            )
        for name, factor in (("until", self.until), ("until_loss", self.until_loss)):
            if factor is not None and not (is_number(factor) and 1 < factor <= MOST_FACTOR):
                found.append(
                    f"{name}: expected the factor that the interval may span, above 1, such as "
                    f"1.25, got {factor!r}"
                )
        if self.until is None and self.until_loss is None:
            found.append("until: missing; pass a factor, such as 1.25, or until_loss=1.02")
        if self.max_flops is not None and not is_positive(self.max_flops):
            found.append(f"max_flops: expected positive FLOPs, got {self.max_flops!r}")
        if self.gain_per not in ("flop", "hour"):
            found.append(f'gain_per: expected "flop" or "hour", got {self.gain_per!r}')
        return found

    def faults_with(self, budgets: Sequence[float]) -> list[str]:
        """What is wrong with the budgets that may be trained, given the goal."""
        if not budgets or not is_positive(self.target):
            return []
        if len(budgets) < 2:
            return [
                "compute_budgets: with a target, expected at least the smallest and the largest "
                f"budget that may be trained, got {budgets[0]:.3g} alone"
            ]
        if budgets[-1] < LEAST_SPAN * budgets[0]:
            return [
                "compute_budgets: with a target, expected a range of a factor of "
                f"{LEAST_SPAN:g} or more, got {flops(budgets[0])} to {flops(budgets[-1])}; runs of "
                "so narrow a range determine no law"
            ]
        if self.target > TOO_FAR * budgets[-1]:
            return [
                f"target: {flops(self.target)} FLOPs are {times(self.target / budgets[-1])} times "
                f"the largest budget, and nothing is predicted beyond {TOO_FAR:g} times; pass "
                "larger compute_budgets, or a nearer target"
            ]
        return []

    def faults_of_start(self, spent: float) -> list[str]:
        """What is wrong if the trials that the sweep begins with spend so many FLOPs."""
        if self.max_flops is None or spent <= self.max_flops:
            return []
        return [
            f"max_flops: the trials that the sweep begins with take {flops(spent)} FLOPs, got "
            f"{flops(self.max_flops)}; pass more, or a smaller first budget"
        ]

    @property
    def lines(self) -> list[str]:
        """The goal in words, with what the sweep does for it."""
        low, high = self.budgets[0], self.budgets[-1]
        beyond = self.target / high
        far = f", {times(beyond)} times the largest budget" if beyond > FAR else ""
        most = flops(self.max_flops or math.inf)
        cost = "time" if self.gain_per == "hour" else "FLOPs"
        return [
            f"goal: {self}{far}",
            f"these trials come first; each later round chooses those that narrow the interval "
            f"most for their {cost}, at {len(self.budgets)} budgets from {flops(low)} to "
            f"{flops(high)} FLOPs, until it is narrow enough or {most} FLOPs are spent",
        ]

    def __str__(self) -> str:
        asked = (("N_opt", self.until), ("the loss", self.until_loss))
        words = (
            f"the interval of {what} is to span at most {to:.10g}x"
            for what, to in asked
            if to is not None
        )
        return f"at {flops(self.target)} FLOPs {' and '.join(words)}"
