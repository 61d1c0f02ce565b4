"""States of runs in the words of W&B, MLflow, Ray, Optuna and SLURM.

They tell which runs have finished, and which are being trained or wait for it.
"""

from __future__ import annotations

import pandas as pd

FINISHED = frozenset(
    "complete completed finished done success successful succeeded terminated".split()
)
# Words of runs that are being trained, or will be: their results are still to come.
UNDER_WAY = frozenset(
    "running pending scheduled queued waiting paused planned preempting interrupted "
    "restoring".split()
)
UNFINISHED = UNDER_WAY | frozenset(
    "failed fail failure crashed killed error errored pruned diverged cancelled canceled aborted "
    "preempted timeout timedout outofmemory oom nodefail stopped".split()
)
# MLflow's RunStatus as numbers.
_MLFLOW = {"1": "running", "2": "scheduled", "3": "finished", "4": "failed", "5": "killed"}
# Columns of yes and no that tell the same, and the value that excludes a run.
_FLAGS = {"crashed": True, "diverged": True, "failed": True, "finished": False, "completed": False}
_YES, _NO = frozenset("true yes y 1 1.0".split()), frozenset("false no n 0 0.0".split())


def fill_states(frame: pd.DataFrame) -> None:
    """Write why runs have not finished into the column `excluded`, in place.

    Args:
        frame: The table, with columns `state` and `excluded`.
    """
    text = frame["state"].astype(object).where(frame["state"].notna(), "").astype(str)
    frame["state"] = text
    words = text.map(_word)
    # A state that nobody knows, in a column of states, is no reason to fit the run.
    unfinished = ~words.isin(FINISHED | {""})
    given = frame["excluded"].astype(object).where(frame["excluded"].notna(), "").astype(str)
    frame["excluded"] = given.map(_reason)
    _exclude(frame, unfinished, text.map(lambda state: _MLFLOW.get(_number(state), state)))
    for name, bad in _FLAGS.items():
        for column in (c for c in frame.columns if str(c).lower() == name):
            values = frame[column].map(_truth)
            if values.isin([True, False]).all():
                _exclude(frame, values.eq(bad), name if bad else f"not {name}")


def has_known_states(cells: pd.Series) -> bool:
    """Whether a column holds states of runs, and not something else of that name."""
    given = cells.dropna()
    found = given.map(_word)
    if found.isin(FINISHED | UNFINISHED).any():
        return True
    return bool(len(given) == 0 or given.astype(str).str.strip().eq("").all())


def is_under_way(states: pd.Series) -> pd.Series:
    """Whether runs in these states are being trained or wait for it; not those that failed."""
    return states.map(_word).isin(UNDER_WAY)


def _exclude(frame: pd.DataFrame, bad: pd.Series, reason: pd.Series | str) -> None:
    chosen = bad.to_numpy(bool) & (frame["excluded"] == "").to_numpy()
    reasons = reason if isinstance(reason, str) else reason[chosen].to_numpy()
    frame.loc[chosen, "excluded"] = reasons


def _word(state: object) -> str:
    """A state as one lower-case word: "TrialState.COMPLETE" as "complete", MLflow's 3 as well."""
    text = str(state).strip().lower()
    text = _MLFLOW.get(_number(text), text)
    return "".join(letter for letter in text.rpartition(".")[2] if letter.isalnum())


def _number(state: str) -> str:
    return state.removesuffix(".0")


def _truth(cell: object) -> bool | None:
    text = str(cell).strip().lower()
    return True if text in _YES else False if text in _NO else None


def _reason(text: str) -> str:
    """The reason in a cell of `excluded`, which may also hold yes or no."""
    truth = _truth(text) if text.strip() else False
    return text if truth is None else "excluded" if truth else ""
