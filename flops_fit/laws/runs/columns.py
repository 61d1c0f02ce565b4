"""Which column holds which quantity, and the checks that state the choice.

Among several candidates the one that `names` lists first is taken, and what was left is stated.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from flops_fit.errors import TableError
from flops_fit.laws.check import Check
from flops_fit.laws.runs.names import (
    ALIASES,
    GENERIC,
    MEASURED,
    NAMED,
    PERPLEXITY,
    QUANTITIES,
    TRAINING,
    Candidate,
    candidates,
    place_of,
    plain,
    words,
)
from flops_fit.laws.runs.numbers import to_numbers
from flops_fit.laws.runs.states import has_known_states
from flops_fit.records import FIRST_RUN_COLUMNS, ROLES

# Two candidates of one group differ if half of their rows do by more than this.
SAME_WITHIN = 0.02
# Words of columns that hold rates or prices of compute, not compute.
_RATES = frozenset("per second sec s token mfu util utilization rate price hour hours".split())


@dataclass(frozen=True)
class Recognised:
    """A table whose columns have the names of quantities.

    Attributes:
        frame: The table.
        scales: What to multiply a column by, for the unit in its name.
        perplexity: Whether the loss is a perplexity.
        checks: What was decided.
    """

    frame: pd.DataFrame
    scales: Mapping[str, float] = field(default_factory=dict)
    perplexity: bool = False
    checks: Sequence[Check] = ()


def recognise(frame: pd.DataFrame, apart: Collection[str] = ()) -> Recognised:
    """Rename the columns that are quantities of a run.

    Args:
        frame: The table as given.
        apart: Columns that keep their names, since runs are fitted by them.

    Raises:
        TableError: Two columns have one name and different values.
    """
    frame = _without_repeated(frame)
    if set(FIRST_RUN_COLUMNS) <= set(frame.columns):  # a table that this package wrote
        return Recognised(frame)
    taken: dict[str, Candidate] = {}
    checks: list[Check] = []
    for name in ALIASES:
        found = [c for c in candidates(frame, name) if c.column not in apart]
        usable = _usable(frame, name, found)
        if usable:
            taken[name] = usable[0]
            checks += _note_left(frame, name, *usable) if name in MEASURED else []
        else:
            checks += _note_text(frame, name, found)
    names = {candidate.column: name for name, candidate in reversed(taken.items())}
    # A column that was left keeps its values, but not a name that another one has now.
    aside = {
        name: _free(f"{name}_given", frame)
        for name in ALIASES
        if name in frame and name not in (*names, *apart)
    }
    scales = {
        name: c.scale for name, c in taken.items() if _needs_scale(frame[c.column], name, c.scale)
    }
    if "role" in frame and "role" not in apart and not frame["role"].dropna().isin(ROLES).all():
        aside["role"] = _free("role_given", frame)
    checks += _note_units(taken, scales) + _note_overlooked(frame, names)
    perplexity = "loss" in taken and taken["loss"].group == PERPLEXITY
    return Recognised(frame.rename(columns=aside | names), scales, perplexity, checks)


def _free(name: str, frame: pd.DataFrame) -> str:
    """A name that no column has."""
    while name in frame.columns:
        name += "_"
    return name


def _usable(frame: pd.DataFrame, name: str, found: Sequence[Candidate]) -> list[Candidate]:
    """The candidates that hold what the quantity is, the best first."""
    if name == "state":
        return [c for c in found if has_known_states(frame[c.column])]
    filled = [c for c in found if frame[c.column].notna().any()]
    found = filled or found
    numeric = [c for c in found if holds_numbers(frame[c.column])]
    if name == "num_params":
        named = [c for c in numeric if c.group == NAMED]
        numeric = [c for c in numeric if c not in named]
        if not numeric and len(numeric) == len(found) - len(named):
            return [c for c in named if _holds_sizes(frame[c.column])]
    # A column of text that has the name of a quantity is a fault, if no other column is it.
    return numeric or [c for c in found if not c.weak]


def holds_numbers(cells: pd.Series) -> bool:
    """Whether at least half of a column's cells are numbers, as far as its first 200 tell."""
    given = cells.dropna()
    return bool(to_numbers(given.head(200)).notna().mean() >= 0.5) if len(given) else True


def _needs_scale(cells: pd.Series, name: str, scale: float) -> bool:
    """Whether numbers are still in the unit of their column's name, and not converted already."""
    middle = float(to_numbers(cells).abs().median())
    return scale != 1 and not middle > (1e12 if name in ("flops", "compute_budget") else 1e6)


def _without_repeated(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with each column once: also `loss.1`, as pandas reads a second `loss`."""
    first: dict[str, int] = {}
    drop, differing = [], []
    for place, name in enumerate(map(str, frame.columns)):
        base = re.sub(r"\.\d+$", "", name)
        base = base if base in first else name
        if base in first:
            same = frame.iloc[:, place].equals(frame.iloc[:, first[base]])
            known = any(place_of(plain(base), groups) for groups in ALIASES.values())
            if same or name == base:
                drop.append(place)
            if not same and known:
                differing.append(base)
        first.setdefault(name, place)
    if differing:
        repeated = ", ".join(sorted(set(differing)))
        raise TableError(f"these columns occur twice: {repeated}, with different values; drop one")
    return frame.iloc[:, [i for i in range(frame.shape[1]) if i not in drop]]


def _holds_sizes(cells: pd.Series) -> bool:
    """Whether a column holds text such as 70M."""
    given = cells.dropna()
    return len(given) > 0 and all(isinstance(cell, str) and not cell.isdigit() for cell in given)


def _note_text(frame: pd.DataFrame, name: str, found: list[Candidate]) -> list[Check]:
    if name not in QUANTITIES or not found:
        return []
    column = found[0].column
    example = frame[column].dropna().iloc[:1].tolist()
    message = f"'{column}' holds {str(example)[1:-1]:.40} and was not read as {name}."
    return [Check("columns", "note", message)]


def _note_left(frame: pd.DataFrame, name: str, taken: Candidate, *left: Candidate) -> list[Check]:
    """State a choice; it warns where convention does not decide and the columns differ."""
    if not left:
        return []
    names = ", ".join(f"'{candidate.column}'" for candidate in left)
    message = f"{name} was read from '{taken.column}'; left out: {names}."
    # Losses of unknown kind count as candidates beside held-out ones.
    last = GENERIC if name == "loss" else taken.group
    within = 1e-3 if name == "loss" else SAME_WITHIN
    # A column n beside N counts something else.
    rivals = [c for c in left if c.group <= last and c.column not in ("n", "d", "c", "l")]
    doubtful = [c for c in rivals if _differ(frame, taken, c) > within]
    advice = f"To use another one, rename it to {name} and drop the rest."
    return [Check("columns", "warn" if doubtful else "note", message, advice if doubtful else "")]


def _differ(frame: pd.DataFrame, one: Candidate, other: Candidate) -> float:
    """The relative difference of two columns in the middle row."""
    a, b = (to_numbers(frame[c.column]).to_numpy() * c.scale for c in (one, other))
    both = np.isfinite(a) & np.isfinite(b) & (a != 0)
    return float(np.median(np.abs(b[both] / a[both] - 1))) if both.any() else 0.0


def _note_units(taken: Mapping[str, Candidate], scales: Mapping[str, float]) -> list[Check]:
    """State what the names of columns say about the units in them."""
    checks = []
    for name, scale in scales.items():
        message = f"{name}: '{taken[name].column}' was multiplied by {scale:g}, its unit."
        checks.append(Check("columns", "note", message))
    loss = taken.get("loss")
    if loss is not None and loss.group == TRAINING:
        message = f"the loss is the training loss '{loss.column}': no held-out loss was found."
        advice = "Fit held-out losses if you have them."
        checks.append(Check("training-loss", "warn", message, advice))
    if loss is not None and loss.group == PERPLEXITY:
        message = f"the loss is ln of '{loss.column}', a perplexity."
        checks.append(Check("columns", "note", message))
    return checks


def _note_overlooked(frame: pd.DataFrame, names: Mapping[str, str]) -> list[Check]:
    """Name a column that looks like compute but has no name that is known."""
    known = {"flops", "compute_budget"} & set(names.values())
    known_names = {c.column for name in QUANTITIES for c in candidates(frame, name)}
    for column in frame.columns:
        found = set(words(column))
        looks = any("flop" in word or word in ("compute", "budget") for word in found)
        if not looks or found & _RATES or column in known_names or column in names:
            continue
        if not float(to_numbers(frame[column]).median()) > 1e9:
            continue
        message = f"'{column}' looks like compute in FLOPs but was not read."
        advice = "If it is, rename it to flops or compute_budget."
        return [Check("columns", "note" if known else "warn", message, advice)]
    return []
