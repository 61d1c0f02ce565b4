"""`Options`: the options of `flops_fit.fit`, validated together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypedDict, get_args

import numpy as np

from flops_fit.errors import ArgumentError
from flops_fit.validate import is_number

Method = Literal["screened", "huber", "log", "linear"]
FormOption = Literal["auto", "five", "tied", "bent"]
Curve = Literal["parabola", "cubic"]
Outliers = Literal["residuals", "iqr", "keep"]
SharedErrors = Literal["auto", "size", "none"]

# Huber's threshold in Hoffmann et al. (2022, appendix D.3) and Besiroglu et al. (2024).
PAPERS_DELTA = 1e-3
# Fewest bootstrap draws from which a 95 % interval can be read.
LEAST_DRAWS = 100
CHOICES: dict[str, Any] = {
    "method": Method,
    "form": FormOption,
    "curve": Curve,
    "outliers": Outliers,
    "shared_errors": SharedErrors,
}


class FitArguments(TypedDict, total=False):
    """The keyword arguments of `fit` that do not change what it returns."""

    delta: float | None
    method: Method | None
    form: FormOption
    curve: Curve
    outliers: Outliers
    shared_errors: SharedErrors
    tolerance: float
    num_draws: int
    seed: int
    curves: Any
    metrics: Any
    unfinished_curves: bool
    name: str
    meta: Mapping[str, str] | None
    build_size: Callable[[float], Any] | None


@dataclass(frozen=True)
class Options:
    """How to fit.

    Attributes:
        method: "screened": Huber fit, screen for outliers, least squares of ln L. "huber": plain
            Huber fit. "log" and "linear": least squares of ln L, or of L, on all finished runs.
        delta: Huber's threshold on residuals of ln L.
        form: "five" parameters, "tied" with alpha = beta, "bent" with gamma, or "auto" to choose by
            tests and back-test.
        curve: IsoFLOP curve: "parabola", or "cubic" for budgets of seven runs or more.
        outliers: "residuals": the screen of `method`; "iqr": Tukey's fence instead; "keep": none.
        shared_errors: "size": runs of one size share an error; "none": they do not; "auto": decided
            by a test.
        tolerance: Budgets that differ by less than this share are one budget.
        num_draws: Number of bootstrap refits.
        seed: Seed of the bootstrap.
        unfinished_curves: Use points of training curves in mid-schedule for the envelope.
    """

    method: Method = "screened"
    delta: float = PAPERS_DELTA
    form: FormOption = "auto"
    curve: Curve = "parabola"
    outliers: Outliers = "residuals"
    shared_errors: SharedErrors = "auto"
    tolerance: float = 0.1
    num_draws: int = 600
    seed: int = 0
    unfinished_curves: bool = False

    def require_sound(self) -> None:
        """Raise ArgumentError with every option that is not valid."""
        faults = [
            f"{name}: expected one of {', '.join(get_args(choices))}, got {getattr(self, name)!r}"
            for name, choices in CHOICES.items()
            if getattr(self, name) not in get_args(choices)
        ]
        for name, low in (("delta", 0.0), ("tolerance", 0.0), ("num_draws", LEAST_DRAWS - 1)):
            value = getattr(self, name)
            if not is_number(value) or not low < value < np.inf:
                faults.append(f"{name}: expected a finite number above {low:g}, got {value!r}")
        if faults:
            raise ArgumentError(faults)
