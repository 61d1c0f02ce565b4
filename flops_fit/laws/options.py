"""How to fit: the few dials of `flops_fit.fit`, checked all at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from flops_fit.errors import ArgumentError
from flops_fit.validate import is_number

Method = Literal["screened", "huber", "log", "linear"]

PAPERS_DELTA = 1e-3
LEAST_DRAWS = 100
CHOICES: dict[str, tuple[str, ...]] = {
    "method": ("screened", "huber", "log", "linear"),
    "form": ("auto", "five", "tied"),
    "curve": ("parabola", "cubic"),
    "outliers": ("residuals", "iqr", "keep"),
    "shared_errors": ("auto", "size", "none"),
}


@dataclass(frozen=True)
class Options:
    """How to fit.

    Attributes:
        method: "screened": Huber, screen, least squares of ln L. "huber": plain Huber. "log" and
            "linear": least squares of ln L, or of L, of all finished runs.
        delta: Huber's threshold on residuals of ln L.
        form: "five" parameters, "tied" with alpha = beta, or "auto": by back-test.
        curve: IsoFLOP curve: "parabola", or "cubic" for budgets of seven runs or more.
        outliers: "residuals": the screen of `method`; "iqr": Tukey's fence instead; "keep": none.
        shared_errors: "auto": by test; "size": runs of one size share an error; "none".
        tolerance: Budgets this close (relative) are one.
        num_draws: Bootstrap refits.
        seed: Seed of the bootstrap.
        unfinished_curves: Use training curves in mid-schedule for the envelope.
    """

    method: Method = "screened"
    delta: float = PAPERS_DELTA
    form: Literal["auto", "five", "tied"] = "auto"
    curve: Curve = "parabola"
    outliers: Literal["residuals", "iqr", "keep"] = "residuals"
    shared_errors: Literal["auto", "size", "none"] = "auto"
    tolerance: float = 0.1
    num_draws: int = 600
    seed: int = 0
    unfinished_curves: bool = False

    def require_sound(self) -> None:
        """Raise ArgumentError with every option that cannot work."""
        faults = [
            f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}"
            for name, known in CHOICES.items()
            if getattr(self, name) not in known
        ]
        for name, low in (("delta", 0.0), ("tolerance", 0.0), ("num_draws", LEAST_DRAWS - 1)):
            value = getattr(self, name)
            if not is_number(value) or not low < value < np.inf:
                faults.append(f"{name}: expected a finite number above {low:g}, got {value!r}")
        if faults:
            raise ArgumentError(faults)


Curve = Literal["parabola", "cubic"]
