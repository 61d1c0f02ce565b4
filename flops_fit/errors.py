"""Every exception and warning that flops-fit raises on purpose.

::

    FlopsFitError
    ├── ArgumentError (ValueError)   what was passed cannot work; lists every fault found
    │   └── InfeasiblePlanError      the budgets cannot be planned with this model and data
    ├── TableError (ValueError)      a table of runs cannot be read; lists the rows
    ├── FitError                     too little or too odd data for a fit; carries its checks
    ├── SweepError                   the sweep could not be run or found
    │   ├── NoRunsError              nothing has finished yet
    │   ├── StoreError               MLflow's or Optuna's store cannot be used; nothing is lost
    │   └── LostRankError            a process of a data-parallel launch is gone
    ├── RankError                    another process of the launch failed at a trial
    └── DivergedError                a trial's loss stopped being finite

    FlopsFitWarning (UserWarning)    soft trouble: the call goes on and says what it did
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

_LONGEST = 300


class FlopsFitError(Exception):
    """Base of all errors of this package."""


class _Faults(FlopsFitError, ValueError):
    """Faults found in one go, listed one a line."""

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
    """What was passed cannot work. `problems` lists every fault found."""


class InfeasiblePlanError(ArgumentError):
    """A budget cannot be planned with this model and data; says what would work."""


class TableError(_Faults):
    """A table of runs cannot be read. `problems` names the rows."""


def split_problem(problem: str) -> tuple[str, str]:
    """Split "argument: message" into its two parts; the argument is "" where none is named."""
    argument, colon, message = problem.partition(": ")
    return (argument, message) if colon and argument.isidentifier() else ("", problem)


class FitError(FlopsFitError):
    """The data do not carry a fit. `checks` says why, as data."""

    def __init__(self, message: str, checks: Sequence[object] = ()) -> None:
        super().__init__(message)
        self.checks = list(checks)


class SweepError(FlopsFitError):
    """The sweep could not be run or found."""


class NoRunsError(SweepError):
    """No finished run to analyse yet."""


class StoreError(SweepError):
    """MLflow's or Optuna's store cannot be used now; what has finished is kept.

    Attributes:
        refused: Whether the store is there and declines: asking again would not help.
    """

    def __init__(self, message: str, refused: bool = False) -> None:
        super().__init__(message)
        self.refused = refused

    def __reduce__(self) -> tuple[type, tuple[str, bool]]:
        return type(self), (str(self), self.refused)


class LostRankError(SweepError):
    """A process of a data-parallel launch is gone, or silent: nothing more can be trained."""


class RankError(FlopsFitError):
    """Another process of a data-parallel launch failed at a trial, and so all stop it."""


class DivergedError(FlopsFitError):
    """A trial's loss stopped being finite, at `step`."""

    def __init__(self, message: str, step: int) -> None:
        super().__init__(message)
        self.step = step

    def __reduce__(self) -> tuple[type, tuple[str, int]]:
        return type(self), (str(self), self.step)


class FlopsFitWarning(UserWarning):
    """Soft trouble: the call goes on and says what it did."""


def in_short(error: BaseException) -> str:
    """An error as its type and the first line of what it says, shortened."""
    first_line = (str(error).strip() or "no message").splitlines()[0]
    return f"{type(error).__name__}: {textwrap.shorten(first_line, _LONGEST, placeholder=' ...')}"
