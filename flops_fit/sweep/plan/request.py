"""The arguments that determine a plan, as the caller passed them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from flops_fit.errors import ArgumentError
from flops_fit.laws.design.goal import Goal
from flops_fit.records import Size
from flops_fit.sweep.task.model_cost import FlopsConvention
from flops_fit.sweep.task.twins import Twins
from flops_fit.sweep.training.recipe import Recipe

_HOURS = {"s": 1 / 3600, "min": 1 / 60, "h": 1.0, "d": 24.0, "w": 168.0}
_UNITS = {
    "s": "s", "sec": "s", "second": "s", "m": "min", "min": "min", "minute": "min", "h": "h",
    "hr": "h", "hour": "h", "d": "d", "day": "d", "w": "w", "week": "w",
}  # fmt: skip
_NUMBER = r"(\d+(?:\.\d+)?|\.\d+)"
_TIME = re.compile(rf"(?:{_NUMBER}\s*([a-z]+)\s*)+", re.IGNORECASE)
_PART = re.compile(rf"{_NUMBER}\s*([a-z]+)", re.IGNORECASE)
_MONEY = re.compile(rf"(?:([A-Z]{{3}}|[$€£¥])\s*{_NUMBER}|{_NUMBER}\s*([A-Z]{{3}}|[$€£¥]))")


@dataclass(frozen=True)
class Spending:
    """What a sweep may take, from which its budgets are chosen: a time, or an amount of money.

    Attributes:
        text: As shown, and as its choice is stored: "2 h", "50 USD".
        hours: The time; None if money was given.
        money: The amount; None if a time was given.
    """

    text: str
    hours: float | None = None
    money: float | None = None

    @classmethod
    def of_hours(cls, hours: float) -> Spending:
        """A number of hours."""
        small = next((unit for unit in ("h", "min") if hours >= _HOURS[unit]), "s")
        return cls(f"{hours / _HOURS[small]:.6g} {small}", hours=hours)

    @classmethod
    def parse(cls, text: str) -> Spending:
        """Read "2h", "1 h 30 min", "50 USD" or "$50".

        Raises:
            ArgumentError: The text is neither a time nor an amount of money above 0.
        """
        found = None
        parts = [(float(number), _unit(word)) for number, word in _PART.findall(text)]
        if _TIME.fullmatch(text.strip()) and all(unit for _, unit in parts):
            found = cls.of_hours(sum(number * _HOURS[unit] for number, unit in parts))
        elif money := _MONEY.fullmatch(text.strip()):
            before, first, second, after = money.groups()
            amount = float(first or second)
            found = cls(f"{amount:g} {before or after}", money=amount)
        if found is None or not math.isfinite(found.hours or found.money or math.inf):
            raise ArgumentError(
                "compute_budgets: expected FLOPs as [1e14, 5e14, 2e15, 1e16], a time as '2h' or "
                f"'30 min', or money as '50 USD'; got {text!r}"
            )
        return found

    def hours_at(self, price_per_hour: float | None, devices: int) -> float:
        """Hours until the sweep must have ended.

        Args:
            price_per_hour: Of one device, in the currency of the amount.
            devices: Trials that run side by side, each on a device.
        """
        if self.hours is not None:
            return self.hours
        assert self.money is not None
        assert price_per_hour is not None
        return self.money / (price_per_hour * devices)


def _unit(word: str) -> str:
    """The unit of time that a word names; empty if it names none."""
    word = word.lower()
    return _UNITS.get(word) or _UNITS.get(word.removesuffix("s"), "")


@dataclass(frozen=True)
class PlanRequest:
    """The arguments of a plan besides its task, unchecked; `validation.check_all` checks them.

    Attributes:
        compute_budgets: Budgets C in FLOPs, in any order. It may be an iterator, which planning
            uses up. Or what the sweep may take, as "2h" or "50 USD". None, where the caller passed
            none, is reported as an error.
        sizes: Values of the size parameter to train at every budget. None chooses seven sizes
            around the expected optimum of each budget.
        recipe: How each trial trains.
        flops: How the FLOPs of one unit of D are counted: "measured", "6ND", or a function from
            a model to FLOPs.
        seed: Seed of the sweep, a whole number from 0 up. Each trial derives its own from it.
        price_per_hour: Price of one device; needed where an amount of money is given.
        paired_with: The sweep whose randomness this one shares: its name, and once it has been
            read, its trials.
        goal: How precisely the answer is to be known; None trains the whole grid.
    """

    compute_budgets: Iterable[float] | str | Spending | None = None
    sizes: Sequence[Size] | None = None
    recipe: Recipe = field(default_factory=Recipe)
    flops: FlopsConvention = "measured"
    seed: int = 0
    price_per_hour: float | None = None
    paired_with: str | Twins | None = None
    goal: Goal | None = None

    @property
    def twins(self) -> Twins | None:
        """The trials of the other sweep; None if there is none, or it has not been read."""
        return self.paired_with if isinstance(self.paired_with, Twins) else None
