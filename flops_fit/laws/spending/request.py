"""What a prediction may spend: FLOPs, hours or money."""

from __future__ import annotations

import math
from dataclasses import dataclass

from flops_fit.laws.predict.paths import Terms
from flops_fit.laws.predict.prediction import faults_of
from flops_fit.validate import is_count, is_positive


@dataclass(frozen=True)
class Budget:
    """What a prediction may spend, as it was given; exactly one of the first three.

    Attributes:
        compute_budget: C in FLOPs.
        hours: Hours on all devices.
        price: An amount of money.
        price_per_hour: Price of one device.
        devices: Number of devices.
    """

    compute_budget: float | None = None
    hours: float | None = None
    price: float | None = None
    price_per_hour: float | None = None
    devices: int = 1

    def faults(self, terms: Terms) -> list[str]:
        """Everything that is wrong with it, and with the constraint on the model.

        Args:
            terms: The constraint.
        """
        whole = {"compute_budget": self.compute_budget, "hours": self.hours, "price": self.price}
        given = [name for name, value in whole.items() if value is not None]
        faults = []
        if len(given) != 1:
            got = ", ".join(given) or "none"
            faults.append(f"expected one of compute_budget, hours and price, got {got}")
        in_flops = given == ["compute_budget"]
        checked = self.compute_budget if self.compute_budget is not None else 1.0
        faults += faults_of(checked, terms)
        for name in ("hours", "price", "price_per_hour"):
            value = getattr(self, name)
            if value is not None and not is_positive(value):
                faults.append(f"{name}: expected a positive number, got {value!r}")
        if self.price is not None and self.price_per_hour is None:
            faults.append("price_per_hour: expected the price of one device, beside price")
        if not is_count(self.devices):
            faults.append(f"devices: expected a positive whole number, got {self.devices!r}")
        if in_flops:
            spent = {
                "price_per_hour": self.price_per_hour is not None,
                "devices": self.devices != 1,
            }
            faults += [f"{name}: goes with hours or price" for name, set_ in spent.items() if set_]
        elif given:
            faults += [f"{name}: goes with compute_budget" for name in terms.given]
        return faults

    @property
    def total_hours(self) -> float:
        """Hours on all devices."""
        if self.hours is not None:
            return float(self.hours)
        assert self.price is not None
        assert self.price_per_hour is not None
        return float(self.price / (self.price_per_hour * self.devices))

    @property
    def total_price(self) -> float:
        """The price; NaN where none was given."""
        if self.price is not None:
            return float(self.price)
        return (self.price_per_hour or math.nan) * self.devices * self.total_hours
