"""`Check`: a diagnostic as data, with what is doubtful, how badly, and what to do about it.

Severities:

* "note": for the record.
* "warn": the numbers are reported, with this doubt.
* "refuse": a fit or a claim is withheld. The runs and the other fits are still returned.

A refusal in `NOT_BEYOND` withholds every prediction beyond the largest budget. A check in
`NOT_SEPARABLE` withholds E, A and B. The other checks state in their messages what they withhold.
The thresholds come from simulation and from the cited papers (docs/log.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from flops_fit.display import html

Severity = Literal["note", "warn", "refuse"]

NOT_BEYOND = frozenset(
    {"wide-exponent", "runs-excluded", "pooled", "units", "out-of-line", "not-known"}
)
NOT_SEPARABLE = frozenset({"E-at-zero", "ill-conditioned"})


@dataclass(frozen=True)
class Check:
    """One diagnostic.

    Attributes:
        code: A stable name, for programs.
        severity: "note", "warn" or "refuse".
        message: What was found, with its figures.
        advice: What to do about it; may be empty.
    """

    code: str
    severity: Severity
    message: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.severity}: {self.message}" + (f" {self.advice}" if self.advice else "")

    def _repr_html_(self) -> str:
        return Checks([self])._repr_html_()


class Checks(tuple[Check, ...]):
    """Checks as a tuple, which reads as one line each."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "\n".join(map(str, self)) or "no checks: nothing is doubtful"

    def _repr_html_(self) -> str:
        if not self:
            return html.block([repr(self)])
        return html.remarks((check.severity, check.message, check.advice) for check in self)


def not_beyond(checks: Iterable[Check]) -> list[Check]:
    """The refusals that withhold every prediction beyond the largest budget."""
    return [check for check in checks if check.severity == "refuse" and check.code in NOT_BEYOND]


def graded(
    code: str, value: float, warn: float, refuse: float, message: str, advice: str
) -> list[Check]:
    """A check of a value against two limits.

    Args:
        code: Code of the check.
        value: The value found; NaN gives no check.
        warn: Above this limit the check warns.
        refuse: Above this limit the check refuses.
        message: What was found.
        advice: What to do about it.

    Returns:
        One check, or none where the value is not above `warn`.
    """
    if not value > warn:
        return []
    return [Check(code, "refuse" if value > refuse else "warn", message, advice)]


def counted(n: int, noun: str) -> str:
    """A number and the noun it counts: "1 run", "7 runs"."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
