"""Every exception and warning that flops-fit raises on purpose.

::

    FlopsFitError
    ├── ArgumentError (ValueError)   invalid arguments; lists every error found
    │   └── InfeasiblePlanError      no budget can be planned with this model and data
    ├── TableError (ValueError)      a table of runs cannot be read; lists the rows
    ├── FitError                     the data do not determine a fit; carries the checks
    ├── SweepError                   the sweep could not be run or found
    │   ├── NoRunsError              no run has finished yet
    │   ├── StoreError               MLflow's or Optuna's store cannot be used; nothing is lost
    │   └── LostRankError            a process of a data-parallel launch is gone
    ├── RankError                    another process of the launch failed at a trial
    └── DivergedError                a trial's loss stopped being finite

    FlopsFitWarning (UserWarning)    the call continues, but something may not be as intended
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

_MAX_LENGTH = 300  # characters of an error message, in `in_short`


class FlopsFitError(Exception):
    """Base of all errors of this package."""


class _Faults(FlopsFitError, ValueError):
    """One or more errors found together, listed one per line.

    Attributes:
        problems: The messages.
        heading: Line above them; by default their number.
    """

    def __init__(self, problems: str | Sequence[str], heading: str = "") -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        self.heading = heading
        super().__init__(self._text())

    def __reduce__(self) -> tuple[type, tuple[list[str], str]]:
        return type(self), (self.problems, self.heading)

    def _text(self) -> str:
        if not self.heading and len(self.problems) == 1:
            return self.problems[0]
        heading = self.heading or f"{len(self.problems)} problems:"
        return "\n  - ".join([heading, *self.problems])


class ArgumentError(_Faults):
    """Arguments are invalid. `problems` lists every error found."""


class InfeasiblePlanError(ArgumentError):
    """No budget can be planned with this model and data; says what would work."""


class TableError(_Faults):
    """A table of runs cannot be read. `problems` names the rows."""


def split_problem(problem: str) -> tuple[str, str]:
    """Split "argument: message" into its two parts; the argument is "" where none is named."""
    argument, colon, message = problem.partition(": ")
    return (argument, message) if colon and argument.isidentifier() else ("", problem)


class FitError(FlopsFitError):
    """The data do not determine a fit. `checks` holds the reasons, as data."""

    def __init__(self, message: str, checks: Sequence[object] = ()) -> None:
        super().__init__(message)
        self.checks = list(checks)


class SweepError(FlopsFitError):
    """The sweep could not be run or found."""


class NoRunsError(SweepError):
    """No run has finished yet, so there is nothing to analyse."""


class StoreError(SweepError):
    """MLflow's or Optuna's store cannot be used now; finished work is kept.

    Attributes:
        refused: Whether the store answered and refused: trying again would not help.
    """

    def __init__(self, message: str, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused

    def __reduce__(self) -> tuple[type, tuple[str, bool]]:
        return type(self), (str(self), self.refused)


class LostRankError(SweepError):
    """A process of a data-parallel launch is gone or silent, so that training cannot continue."""


class RankError(FlopsFitError):
    """Another process of a data-parallel launch failed at a trial, so all processes stop it."""


class DivergedError(FlopsFitError):
    """A trial's loss stopped being finite, at `step`."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step

    def __reduce__(self) -> tuple[type, tuple[str, int]]:
        return type(self), (str(self), self.step)


class FlopsFitWarning(UserWarning):
    """Something may not be as intended; the call continues, and the message says how."""


def in_short(error: BaseException) -> str:
    """The type of an error and the first line of its message, shortened."""
    first_line = (str(error).strip() or "no message").splitlines()[0]
    return (
        f"{type(error).__name__}: {textwrap.shorten(first_line, _MAX_LENGTH, placeholder=' ...')}"
    )
