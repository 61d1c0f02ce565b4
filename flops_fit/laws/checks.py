"""Diagnostics as data: what is doubtful about a fit, how badly, and what to do.

`warn`: the numbers stand, with this doubt. `refuse`: a fit or a claim was withheld; the runs and
the other fits still come back. `note`: said for the record. The thresholds are those of simulation
and of the papers: see docs/log.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["note", "warn", "refuse"]


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes:
        code: Stable name, for programs.
        severity: "note", "warn" or "refuse".
        message: What was found, with its figures.
        advice: What to do about it.
    """

    code: str
    severity: Severity
    message: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.severity}: {self.message}" + (f" {self.advice}" if self.advice else "")


def graded(
    code: str, value: float, warn: float, refuse: float, message: str, advice: str
) -> list[Check]:
    """A check of a value against two limits: nothing below the first."""
    if not value > warn:
        return []
    return [Check(code, "refuse" if value > refuse else "warn", message, advice)]
