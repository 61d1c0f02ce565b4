"""Diagnostics as data: what is doubtful about a fit, how badly, and what to do.

`warn`: the numbers stand, with this doubt. `refuse`: a fit or a claim was withheld; the runs and
the other fits still come back. `note`: said for the record.
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


def run_checks(findings: object, data: object) -> list[Check]:
    """Every doubt about these findings."""
    return []
