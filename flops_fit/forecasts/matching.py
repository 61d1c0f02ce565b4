"""Which runs are a forecast's: those of its size, of one condition, on the data that it is for.

A run is of a forecast's size if its N and its D differ by 5 % at most. Its loss is moved along the
forecast's law to the forecast's own N and D, so that this difference is not taken for an error.
Several runs are seeds, and their mean counts. Runs whose learning rate or setting was worse than
another's, and points in the middle of a run, are left out. Runs of several data sets or optimisers
have no mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from flops_fit.display import number_text
from flops_fit.forecasts.making import is_same
from flops_fit.forecasts.record import SAME, Forecast
from flops_fit.laws.checks.of_conditions import CONDITIONS, MARKS, MOST_LEVELS, as_levels
from flops_fit.laws.model.arrays import FADING
from flops_fit.laws.model.frontier import loss_at
from flops_fit.laws.model.repetition_law import effective_tokens
from flops_fit.laws.runs.columns import holds_numbers
from flops_fit.laws.runs.exclusions import BEATEN, epochs
from flops_fit.laws.runs.names import ALIASES, plain, words
from flops_fit.laws.runs.repeats import OF_THE_RUN, RUN_NAMES, is_tuned
from flops_fit.records import RUN_COLUMNS
from flops_fit.report.outcomes import AMBIGUOUS, LEFT_OUT, OTHER_DATA

# Runs that the law's own screen calls outliers came out as they did: they count.
OUTLIER = "outlier"
NOT_POSITIVE = "its loss is not positive"
MID_RUN = "a point in the middle of its run"
_POINT = ("num_params", "num_tokens", "loss")
# Words of columns that describe a run, and are no condition; and of numbers that are one.
_LABELS = frozenset(
    "date time url uri path link file folder dir checkpoint ckpt commit note notes comment "
    "comments tags label seed seeds gpu gpus nodes workers rank".split()
)
_LENGTHS = frozenset("context ctx seq seqlen sequence".split())


@dataclass(frozen=True)
class Came:
    """What came of one forecast.

    Attributes:
        losses: Losses of the runs of its size, moved along its law to its own N and D.
        best: The optimum of its budget, by the budget's own IsoFLOP curve.
        why_not: Why finished runs of its size do not count; empty if some do, or there are none.
        status: The kind of that reason.
    """

    losses: tuple[float, ...] = ()
    best: Mapping[str, Any] | None = None
    why_not: str = ""
    status: str = LEFT_OUT


def came_of(forecast: Forecast, runs: pd.DataFrame) -> Came:
    """The finished runs of a forecast's size.

    Args:
        forecast: The forecast.
        runs: A clean table of runs.
    """
    for column, value in named_in(forecast, runs).items():
        runs = runs[as_levels(runs[column]).map(partial(_is_level, value))]
    passes = np.fmax(epochs(runs), 1.0)
    excluded = _excluded(runs).mask(~is_possible(forecast, runs["loss"]), NOT_POSITIVE)
    runs = runs.assign(num_tokens=_tokens(forecast, runs), excluded=excluded)
    same = is_same(runs["num_params"], forecast.num_params)
    same &= is_same(runs["num_tokens"], forecast.num_tokens)
    same &= np.isfinite(runs["loss"].to_numpy(float))
    found, passes = runs[same], passes[same]
    excluded = found["excluded"]
    counts = ((excluded == "") | excluded.str.startswith(OUTLIER)).to_numpy()
    if not counts.any():
        return Came(why_not="; ".join(sorted(set(excluded))))
    new = np.ones(len(found), bool)
    if len(forecast.law_vector) <= FADING:
        new = passes <= forecast.passes * (1 + SAME)
    if not (counts & new).any():
        fewest = number_text.times(float(passes[counts].min()))
        return Came(why_not=f"{fewest} passes", status=OTHER_DATA)
    # The better learning rate may be another data set's.
    apart = _apart(found[(counts | (excluded == BEATEN).to_numpy()) & new], runs)
    if apart:
        return Came(why_not=f"{apart}: pass the runs of one", status=AMBIGUOUS)
    N, D, loss = (found[counts & new][name].to_numpy(float) for name in _POINT)
    moved = loss - _law(forecast, N, D) + _law(forecast, forecast.num_params, forecast.num_tokens)
    return Came(tuple(moved.tolist()))


def is_possible(forecast: Forecast, loss: Any) -> Any:
    """Whether losses can be of the kind that was forecast: a positive one has no outcome below 0.

    Args:
        forecast: The forecast.
        loss: A loss, or a column of them.
    """
    return (loss > 0) | (forecast.loss <= 0)


def named_in(forecast: Forecast, runs: pd.DataFrame) -> dict[str, str]:
    """The columns of a table by which the forecast's law was fitted apart, and its values.

    Args:
        forecast: The forecast.
        runs: A table of runs.
    """
    return {
        str(column): value
        for name, value in forecast.by
        for column in runs.columns
        if plain(column) == plain(name)
    }


def _is_level(value: str, level: str) -> bool:
    """Whether two texts are one value: a table with a gap has 1.0 for 1."""
    try:
        return float(value) == float(level)
    except ValueError:
        return value == level


def _excluded(runs: pd.DataFrame) -> pd.Series:
    """Why runs are left out: also because the same run went on."""
    excluded = runs["excluded"].astype(str)
    stepped = any(plain(name) in ("step", "globalstep") for name in runs.columns)
    for name in runs.columns:
        if plain(name) not in RUN_NAMES[: 3 if not stepped else None]:
            continue
        run = as_levels(runs[name])
        last = runs["num_tokens"].groupby([run, runs["num_params"]]).transform("max")
        named = ~run.isin(["", "none"])
        excluded = excluded.mask(named & (runs["num_tokens"] < last), MID_RUN)
    return excluded


def _apart(found: pd.DataFrame, runs: pd.DataFrame) -> str:
    """In which conditions some runs differ; empty if they are alike."""
    apart = []
    for name in found.columns:
        values = as_levels(found[name]).unique()
        if len(values) > 1 and _is_condition(runs[name]):
            apart.append(f"{name} is {', '.join(sorted(values)[:4])}")
    return "; ".join(apart)


def _is_condition(cells: pd.Series) -> bool:
    """Whether a column holds conditions: by its name, or few values that are no measurement.

    A table of outcomes may have two rows, so that a text need not repeat to be a condition.
    """
    name = cells.name
    if name in RUN_COLUMNS or name in ALIASES or plain(name) in (*OF_THE_RUN, *RUN_NAMES):
        return False
    found = set(words(name))
    if (MARKS | _LABELS) & found or is_tuned(cells):
        return False
    if (CONDITIONS | _LENGTHS) & found:
        return True
    number = as_levels(cells).nunique()
    if pd.api.types.is_datetime64_any_dtype(cells.dtype):
        return False
    if pd.api.types.is_bool_dtype(cells.dtype) or not holds_numbers(cells):
        return number <= MOST_LEVELS
    whole = pd.api.types.is_integer_dtype(cells.dtype)
    return whole and number <= min(MOST_LEVELS, len(cells) // 3)


def _tokens(forecast: Forecast, runs: pd.DataFrame) -> np.ndarray:
    """D of each run as the forecast's law counts it: what new tokens its data are worth."""
    D = runs["num_tokens"].to_numpy(float)
    if len(forecast.law_vector) <= FADING:
        return D
    fading = forecast.law_vector[FADING]
    return effective_tokens(D, D / epochs(runs), 1 / fading if fading else math.inf)


def _law(forecast: Forecast, N: ArrayLike, D: ArrayLike) -> np.ndarray:
    x, y = (np.log(np.atleast_1d(np.asarray(part, float))) for part in (N, D))
    with np.errstate(all="ignore"):
        return loss_at(np.array([forecast.law_vector]), x, y)[0]
