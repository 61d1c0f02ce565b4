"""Diagnostics as data: what is doubtful about a fit, how badly, and what to do.

`warn`: the numbers stand, with this doubt. `refuse`: a fit or a claim was withheld; the runs and
the other fits still come back. `note`: said for the record. The thresholds are those of simulation
and of the papers: see docs/log.md.

A refusal in `NOT_BEYOND` withholds every prediction beyond the largest budget; a check in
`NOT_TOLD_APART` withholds E, A and B. What the others withhold, their messages say.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["note", "warn", "refuse"]

NOT_BEYOND = frozenset({"wide-exponent", "runs-excluded"})
NOT_TOLD_APART = frozenset({"E-at-zero", "ill-conditioned"})


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


def not_beyond(checks: Iterable[Check]) -> list[Check]:
    """The refusals that withhold predictions beyond the largest budget."""
    return [check for check in checks if check.severity == "refuse" and check.code in NOT_BEYOND]


def graded(
    code: str, value: float, warn: float, refuse: float, message: str, advice: str
) -> list[Check]:
    """A check of a value against two limits: nothing below the first."""
    if not value > warn:
        return []
    return [Check(code, "refuse" if value > refuse else "warn", message, advice)]


def counted(n: int, noun: str) -> str:
    """A number and what it counts: "1 run", "7 runs"."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
