"""Several runs of one N and D: the best of tuned settings, seeds as runs, and copies of a row.

Runs of one point that differ in a learning rate, a batch size or another setting of training were
tuned: a law is one of the best setting. Runs that differ in nothing else than the loss, a seed or a
name are seeds, and each is fitted as a run.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import pandas as pd

from flops_fit.laws.check import Check, counted
from flops_fit.laws.runs.budgets import group_budgets
from flops_fit.laws.runs.columns import holds_numbers
from flops_fit.laws.runs.exclusions import BEATEN, NOT_FINITE
from flops_fit.laws.runs.names import plain, words
from flops_fit.records import RUN_COLUMNS

# Settings that people tune, as words of a column's name.
_TUNED = (
    "lr learningrate maxlr peaklr minlr lrmin lrmax batch batchsize globalbatchsize "
    "microbatchsize bs gbs gbsz bsz batchsequences batchtokens tokensperbatch trainbatchsize "
    "weightdecay wd beta1 beta2 adambeta1 adambeta2 momentum warmup warmupsteps warmupratio "
    "warmuptokens warmupfraction dropout gradclip clip eps epsilon adameps initstd zloss"
).split()
# Columns of a point: with another value, it is another point.
_POINT = ("num_params", "unique_tokens", "size", "epochs")
# D of one point may differ by this, since runs end with a whole batch.
WHOLE_BATCHES = 0.0025
# Columns that name a run, least rows of one run that make a curve, and even steps that do.
RUN_NAMES = ("runid", "runname", "trialid", "name", "displayname", "run", "id")
LEAST_POINTS = 3
MANY_STEPS = 8
# Share of runs with seeds from which on they are noted.
MANY_REPEATED = 0.5
# Columns that a run itself decides: they make no other point.
OF_THE_RUN = (
    "runname name displayname id uuid rep replicate repeat repetition trial run host hostname node "
    "gpu gpus device user jobid created bestloss index rowname step "
    "iteration iterations iter globalstep epoch timestamp runtime"
).split()


def duplicate_rows(frame: pd.DataFrame) -> list[str]:
    """Faults of rows that equal another one in every column.

    Args:
        frame: The table; its index numbers the rows.
    """
    included = frame[frame["excluded"] == ""]
    columns = [_keys(included[name]) for name in included.columns]
    rows = included.index.to_series()
    first = rows.groupby(columns, sort=False, dropna=False).transform("first")
    return [f"row {i}: the same run as row {first[i]}" for i in rows[rows != first]]


def check_curves(frame: pd.DataFrame) -> list[Check]:
    """Doubt rows that are points of training curves, and not runs; rows of them without a loss go.

    Args:
        frame: A clean table; changed in place.
    """
    point = [frame["num_params"], frame["num_tokens"]]
    # A name may be that of a model, unless rows have steps.
    stepped = any(plain(name) in ("step", "globalstep") for name in frame.columns)
    for name in frame.columns:
        if plain(name) not in RUN_NAMES[: 3 if not stepped else None]:
            continue
        cells = _keys(frame[name])
        if cells.nunique() * LEAST_POINTS > len(frame):
            continue
        several = frame["num_tokens"].groupby(cells).transform("nunique") >= LEAST_POINTS
        one_model = frame["num_params"].groupby(cells).transform("nunique") == 1
        if (several & one_model).mean() > 0.5:
            frame.loc[frame["excluded"] == NOT_FINITE, "excluded"] = "no loss in this row"
            return [_curves_check(f"{cells.nunique()} values of '{name}'", len(frame))]
    D = frame["num_tokens"].drop_duplicates().sort_values()
    steps = frame.drop_duplicates(["num_params", "num_tokens"]).sort_values("num_tokens")
    num_sizes = steps["num_params"].nunique()
    many = steps.groupby("num_params")["num_tokens"].transform("size") > MANY_STEPS
    even = steps[many].groupby("num_params")["num_tokens"].agg(_evenly_spaced).sum()
    if len(frame.groupby(point)) == len(frame) and len(D) and even > 0.5 * num_sizes:
        return [_curves_check(f"{num_sizes} sizes, at even steps of D", len(frame))]
    return []


def _evenly_spaced(D: pd.Series) -> bool:
    steps = np.diff(D.to_numpy(float))
    return len(steps) >= MANY_STEPS and bool(steps.max() < 1.01 * steps.min())


def _curves_check(whose: str, num_rows: int) -> Check:
    message = f"{num_rows} rows have {whose}: points of training curves, not runs?"
    advice = "Losses in mid-schedule are too high: fit the last row of each, the rest is `curves=`."
    return Check("curve-points", "warn", message, advice)


def keep_best(frame: pd.DataFrame, by: Collection[str] = ()) -> list[Check]:
    """Exclude the runs that another setting beat at the same N and D, in place.

    Args:
        frame: A clean table.
        by: Columns whose values are conditions of their own.
    """
    tuned = [name for name in frame.columns if name not in by and is_tuned(frame[name])]
    included = frame[frame["excluded"] == ""]
    point = _points(included, tuned, by)
    checks = []
    if tuned:
        setting = _labels(included, tuned)
        mean = included["loss"].groupby([point, setting]).transform("mean")
        best = mean.groupby(point).transform("min")
        settings = setting.groupby(point).transform("nunique")
        beaten = included.index[(mean > best) & (settings > 1)]
        frame.loc[beaten, "excluded"] = BEATEN
        included, settings = included.drop(index=beaten), settings.drop(index=beaten)
        point = point.drop(index=beaten)
        if len(beaten):
            checks.append(
                _tuned_check(tuned, point[settings > 1].nunique(), point.nunique(), len(beaten))
            )
    repeated = point.groupby(point).transform("size") > 1
    if repeated.mean() >= MANY_REPEATED:
        points = counted(point[repeated].nunique(), "point")
        message = f"{points} (N, D) have several runs (seeds); each is fitted as a run of its own."
        checks.append(Check("seeds", "note", message))
    return checks


def _tuned_check(tuned: list[str], tuned_points: int, points: int, num_beaten: int) -> Check:
    names = ", ".join(tuned)
    message = (
        f"{tuned_points} of {counted(points, 'point')} (N, D) were run with several values of "
        f"{names}: the best was fitted, {counted(num_beaten, 'run')} left out."
    )
    if tuned_points * 2 > points or tuned_points == points:
        return Check("tuned", "note", message)
    advice = "The best of several beside runs that were not tuned bends the law a little."
    return Check("tuned", "warn", message, advice)


def is_tuned(column: pd.Series) -> bool:
    """Whether a column holds several values of a setting that people tune.

    Args:
        column: The column.
    """
    name = column.name
    if name == "lr_multiplier":  # compared in `exclusions`
        return False
    if plain(name) not in _TUNED and not {"lr", "batch", "wd"} & set(words(name)):
        return False
    return column.nunique() > 1 and holds_numbers(column)


def _points(included: pd.DataFrame, tuned: list[str], by: Collection[str]) -> pd.Series:
    """A label for each N, D and condition, shape (n,)."""
    names = [name for name in (*_POINT, *by) if name in included.columns]
    for name in included.columns:
        if name in (*names, *tuned, *RUN_COLUMNS) or plain(name) in OF_THE_RUN:
            continue
        cells = included[name]
        if pd.api.types.is_float_dtype(cells.dtype):
            continue
        if 1 < cells.astype(object).map(_hashable).nunique() <= len(included) // 3:
            names.append(name)
    D = group_budgets(included["num_tokens"].to_numpy(float), WHOLE_BATCHES)
    return _labels(included.assign(num_tokens=D), ["num_tokens", *names])


def _labels(frame: pd.DataFrame, names: list[str]) -> pd.Series:
    """A label for each combination of the values of some columns, shape (n,)."""
    columns = [_keys(frame[name]) for name in names]
    return frame.groupby(columns, sort=False, dropna=False).ngroup()


def _keys(cells: pd.Series) -> pd.Series:
    """A column with cells that can be keys."""
    if pd.api.types.is_numeric_dtype(cells.dtype):
        return cells
    return cells.astype(object).map(_hashable)


def _hashable(cell: object) -> object:
    """A cell as a key: arrays and lists of a JSON file by their text."""
    if isinstance(cell, list | dict | np.ndarray):
        return str(cell)
    return cell
