"""Reading tables of runs, in the forms that people keep them in, into the columns of `Run`.

`formats` opens a table, `columns` finds out which column is what, `numbers` reads the cells,
`states` tells finished runs from others, `units` looks for wrong units and mistyped numbers, and
`repeats` for several runs of one point. All faults are reported together, each with its row.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import pandas as pd

from flops_fit.errors import ArgumentError, TableError
from flops_fit.laws.check import Check, counted
from flops_fit.laws.runs.columns import recognise
from flops_fit.laws.runs.exclusions import NOT_FINITE, exclude_roles
from flops_fit.laws.runs.formats import Runs, open_table
from flops_fit.laws.runs.names import plain
from flops_fit.laws.runs.numbers import to_numbers, uses_decimal_comma
from flops_fit.laws.runs.repeats import check_curves, duplicate_rows, keep_best
from flops_fit.laws.runs.states import fill_states
from flops_fit.laws.runs.units import (
    FLOPS_PER_PARAM_TOKEN,
    check_units,
    exclude_out_of_line,
)
from flops_fit.records import FIRST_RUN_COLUMNS, METRIC_PREFIX, RUN_COLUMNS

# Names that an error message suggests.
SUGGESTED_NAMES = {
    "num_params": "num_params, params, N, parameters, model_size",
    "num_tokens": "num_tokens, tokens, D, train_tokens, dataset_size",
    "loss": "loss, val_loss, eval_loss, test_loss, L",
}
NEEDED = ("num_params", "num_tokens", "loss")
COMPUTE = ("flops", "compute_budget")
ANY_NUMBER = ("loss", "wall_time_s")  # these may also be zero, negative, or no number
CURVE_COLUMNS = ("trial_id", "num_tokens", "loss")
# Faults listed in full; of further ones only the rows are named.
MOST_FAULTS = 50
# Cells that hold nothing.
EMPTY = frozenset(("", "nan", "none", "null", "na", "n/a", "-", "\u2013", "?", "#n/a"))
# Values of columns that the table lacks.
DEFAULTS: dict[str, Any] = {
    "trial_id": "",
    "run_id": "",
    "size": None,
    "wall_time_s": np.nan,
    "seed": 0,
    "state": "complete",
    "excluded": "",
    "steps": np.nan,
    "learning_rate": np.nan,
    "lr_multiplier": 1.0,
    "epochs": np.nan,
    "code": "",
    "role": "sweep",
    "batch_size": np.nan,
}


def read_runs(
    runs: Runs, by: Collection[str] = (), metrics: Collection[str] = ()
) -> tuple[pd.DataFrame, list[Check]]:
    """Read a table of runs.

    Args:
        runs: A DataFrame, the path of a file, columns, or mappings, with N, loss and D or C.
        by: Columns whose values are fitted apart, so that runs are not compared across them.
        metrics: Metrics of the runs, whose columns hold numbers.

    Returns:
        The table, one row per run in the order given, with `RUN_COLUMNS` first; runs that cannot be
        fitted have a reason in `excluded`. And what was decided, assumed or found doubtful.

    Raises:
        TableError: Columns are missing, or rows hold impossible values; lists every fault.
    """
    frame, counting = open_table(runs)
    ours = set(FIRST_RUN_COLUMNS) <= set(frame.columns)
    by = find_columns(frame, by)
    measures = find_metrics(frame, metrics)
    recognised = recognise(frame, [*by, *measures])
    frame, checks = recognised.frame, list(recognised.checks)
    _require_columns(frame, recognised.checks)
    frame = _fill_defaults(frame)
    by_row = _convert(frame, recognised.scales, measures)
    if recognised.perplexity:
        frame["loss"] = np.log(frame["loss"].where(frame["loss"] > 0))
    checks += _fill_tokens(frame, by_row)
    faults, copies = _listed(by_row), duplicate_rows(frame.drop(index=list(by_row)))
    if faults or copies:
        number = counted(len(faults) + len(copies), "fault")
        advice = "; runs of their own need a column that tells them apart, such as seed"
        heading = f"{number} in the table of runs ({counting}{advice if copies else ''}):"
        raise TableError(_shortened(faults + copies), heading)
    given = any(name in frame.columns for name in COMPUTE)
    checks += _fill_flops(frame)
    _exclude_infinite_losses(frame)
    exclude_roles(frame)
    if not ours:
        checks += _look_closer(frame, given, by)
    return _ordered(frame), checks


def find_columns(frame: pd.DataFrame, names: Collection[str], argument: str = "by") -> list[str]:
    """The columns of these names, which may differ in case and punctuation.

    Raises:
        ArgumentError: A name is that of no column.
    """
    found, missing = [], []
    for name in names:
        alike = [c for c in frame.columns if plain(c) == plain(name)]
        if name not in frame.columns and len(alike) != 1:
            missing.append(name)
            continue
        found.append(name if name in frame.columns else str(alike[0]))
    if missing:
        known = ", ".join(map(str, frame.columns))
        raise ArgumentError(
            [f"{argument}: the table has no column {name!r}; it has: {known}" for name in missing]
        )
    return found


def find_metrics(frame: pd.DataFrame, names: Collection[str]) -> list[str]:
    """The columns of metrics: of their names, or with `eval_` before them as in the ledger.

    Raises:
        ArgumentError: A name is that of no column.
    """
    logged = [f"{METRIC_PREFIX}{name}" for name in names]
    return find_columns(
        frame,
        [
            column if name not in frame.columns and column in frame.columns else name
            for name, column in zip(names, logged, strict=True)
        ],
        "metrics",
    )


def _look_closer(frame: pd.DataFrame, flops_given: bool, by: Collection[str]) -> list[Check]:
    """Units, mistyped numbers and repeats, in a table that this package did not write."""
    checks = check_units(frame, flops_given)
    if flops_given:
        checks += exclude_out_of_line(frame)
    return [*checks, *check_curves(frame), *keep_best(frame, by)]


def read_curves(curves: Any) -> pd.DataFrame:
    """Read points of training curves.

    Args:
        curves: A DataFrame, or an iterable of mappings, one row per point.

    Returns:
        One row per point with columns `trial_id num_tokens loss`, and any further ones.

    Raises:
        TableError: Columns are missing, or tokens or losses are not numbers.
    """
    frame = recognise(open_table(curves)[0]).frame
    missing = [name for name in CURVE_COLUMNS if name not in frame.columns]
    if missing:
        raise TableError(
            f"training curves need columns {', '.join(CURVE_COLUMNS)}; {', '.join(missing)} not "
            f"found among: {', '.join(map(str, frame.columns)) or 'none'}"
        )
    faults = []
    for name in CURVE_COLUMNS[1:]:
        numbers = pd.to_numeric(frame[name], errors="coerce").astype(float)
        bad = frame.index[numbers.isna() & frame[name].notna()]
        faults += [f"row {i}: {name} is not a number: {frame.loc[i, name]!r}" for i in bad]
        frame[name] = numbers
    if faults:
        raise TableError(
            _shortened(faults), f"{counted(len(faults), 'fault')} in the training curves:"
        )
    return frame.assign(trial_id=frame["trial_id"].astype(str))


def _shortened(faults: list[str]) -> list[str]:
    """The first faults in full, and only the rows of the others."""
    rest = [fault.split(":")[0].removeprefix("row ") for fault in faults[MOST_FAULTS:]]
    if not rest:
        return faults
    rows = ", ".join(dict.fromkeys(rest))
    return [*faults[:MOST_FAULTS], f"... and {len(rest)} more, in rows {rows}"]


def _require_columns(frame: pd.DataFrame, checks: Collection[Check]) -> None:
    missing = [name for name in NEEDED if name not in frame.columns]
    if missing == ["num_tokens"] and any(name in frame.columns for name in COMPUTE):
        missing = []  # D = C / (6 N)
    if missing:
        found = ", ".join(map(str, frame.columns)) or "none"
        known = "; ".join(f"for {name} {SUGGESTED_NAMES[name]}" for name in missing)
        notes = "".join(f" {check.message}" for check in checks if check.code == "columns")
        raise TableError(
            f"expected columns for N, D and loss; {', '.join(missing)} not found among: {found}. "
            f"Rename a column (known names: {known}).{notes}"
        )
    if frame.empty:
        raise TableError("the table has no rows")


def _fill_defaults(frame: pd.DataFrame) -> pd.DataFrame:
    """Add missing columns with their defaults, and exclude runs that have not finished."""
    frame = frame.assign(**{name: v for name, v in DEFAULTS.items() if name not in frame.columns})
    for name in ("trial_id", "run_id"):
        frame[name] = frame[name].astype(object).where(frame[name].notna(), "").astype(str)
    frame["role"] = frame["role"].where(frame["role"].notna(), "sweep")
    fill_states(frame)
    return frame


def _convert(
    frame: pd.DataFrame, scales: Mapping[str, float], metrics: Collection[str] = ()
) -> dict[int, list[str]]:
    """Convert numeric columns to floats, in place; return the faults of each row."""
    faults: dict[int, list[str]] = {}
    included = (frame["excluded"] == "").to_numpy()
    optional = (*COMPUTE, "unique_tokens", "lr_multiplier", "wall_time_s")
    names = [name for name in (*NEEDED, *optional, *metrics) if name in frame]
    decimal_comma = _has_decimal_commas(frame[names])
    # D can follow from C, so that a missing one is not a fault yet.
    derivable = any(name in frame for name in COMPUTE)
    for name in names:
        given = frame[name].astype(object).tolist()
        numbers = to_numbers(frame[name], decimal_comma=decimal_comma) * scales.get(name, 1.0)
        if name == "wall_time_s":  # the fits do without it: a text that is no time is none
            numbers, given = numbers.fillna(_seconds(frame[name])), [None] * len(frame)
        frame[name] = numbers.replace([np.inf, -np.inf], np.inf)
        required = name == "num_params" or (name == "num_tokens" and not derivable)
        for i, (raw, number) in enumerate(zip(given, numbers.tolist(), strict=True)):
            anything = name in (*ANY_NUMBER, *metrics)
            fault = _fault(name, raw, number, required, anything) if included[i] else ""
            if fault:
                faults.setdefault(i, []).append(fault)
    return faults


def _seconds(column: pd.Series) -> pd.Series:
    """Times that are written as 2.1min or 0:18:56, in seconds; NaN for anything else."""
    text = column.where(np.array([isinstance(cell, str) for cell in column]))
    return pd.to_timedelta(text, errors="coerce").dt.total_seconds()


def _has_decimal_commas(frame: pd.DataFrame) -> bool:
    """Whether commas are decimal marks in these columns: also in losses such as 3,702."""
    text = frame.select_dtypes(exclude="number")
    cells = [cell for name in text for cell in text[name].tolist()]
    if uses_decimal_comma(cells):
        return True
    losses = [cell for cell in text["loss"] if isinstance(cell, str)] if "loss" in text else []
    with_comma = [cell for cell in losses if "," in cell]
    # A loss over a thousand is none; but N = 1,000,000 beside it shows what a comma is here.
    return (
        bool(with_comma)
        and not any("." in c for c in with_comma)
        and not any(isinstance(cell, str) and cell.count(",") > 1 for cell in cells)
    )


def _fault(name: str, raw: object, number: float, required: bool, anything: bool) -> str:
    """What is wrong with one cell; empty if nothing is. A loss may be any number, also NaN."""
    if np.isnan(number):
        if not _is_empty(raw):
            return f"{name} is not a number: {raw!r:.80}"
        # Plain text that spells NaN is a number that is missing, too.
        return f"{name} is missing" if required else ""
    if anything:
        return ""
    if not np.isfinite(number) or number <= 0:
        overflow = ", an integer that overflowed?" if name == "flops" and number < 0 else ""
        return f"{name} must be positive and finite: {raw!r:.80}{overflow}"
    return ""


def _is_empty(raw: object) -> bool:
    if raw is None or raw is pd.NA or raw is pd.NaT or isinstance(raw, float):
        return True
    return str(raw).strip().lower() in EMPTY


def _listed(by_row: Mapping[int, list[str]]) -> list[str]:
    """One fault a row."""
    return [f"row {i}: {'; '.join(by_row[i])}" for i in sorted(by_row)]


def _fill_tokens(frame: pd.DataFrame, by_row: dict[int, list[str]]) -> list[Check]:
    """Fill in missing D from C, in place; a D that stays missing is a fault of its row."""
    C = pd.Series(np.nan, frame.index)
    for name in COMPUTE:
        C = C.fillna(frame[name]) if name in frame.columns else C
    lacking = "num_tokens" not in frame.columns
    if lacking:
        frame["num_tokens"] = np.nan
    missing = frame["num_tokens"].isna() & (frame["excluded"] == "")
    missing &= ~frame.index.isin([i for i in by_row if any("num_tokens" in f for f in by_row[i])])
    frame.loc[missing, "num_tokens"] = (C / (FLOPS_PER_PARAM_TOKEN * frame["num_params"]))[missing]
    for i in frame.index[missing & frame["num_tokens"].isna()]:
        if i not in by_row:
            by_row[i] = ["num_tokens is missing, and so is C"]
    if not missing.any():
        return []
    whose = "no D in the table" if lacking else f"{counted(int(missing.sum()), 'run')} without D"
    return [Check("assumed", "note", f"{whose}: D = C / (6 N) was assumed")]


def _fill_flops(frame: pd.DataFrame) -> list[Check]:
    """Fill in missing C, in place: with the budget, or 6 N D. Returns the assumptions."""
    notes: list[str] = []
    product = FLOPS_PER_PARAM_TOKEN * frame["num_params"] * frame["num_tokens"]
    if "flops" not in frame.columns:
        if "compute_budget" in frame.columns:
            frame["flops"] = frame["compute_budget"].fillna(product)
        else:
            frame["flops"] = product
            notes.append("no FLOPs in the table: C = 6 N D was assumed")
    elif frame["flops"].isna().any():
        missing = frame["flops"].isna() & (frame["excluded"] == "")
        frame.loc[missing, "flops"] = product[missing]
        if missing.any():
            notes.append(f"{int(missing.sum())} runs lack FLOPs: C = 6 N D was assumed for them")
    if "compute_budget" not in frame.columns:
        frame["compute_budget"] = frame["flops"]
    frame["compute_budget"] = frame["compute_budget"].fillna(frame["flops"])
    return [Check("assumed", "note", note) for note in notes]


def _exclude_infinite_losses(frame: pd.DataFrame) -> None:
    bad = ~np.isfinite(frame["loss"]) & (frame["excluded"] == "")
    frame.loc[bad, "excluded"] = NOT_FINITE


def _ordered(frame: pd.DataFrame) -> pd.DataFrame:
    rest = [name for name in frame.columns if name not in RUN_COLUMNS]
    return frame[[*RUN_COLUMNS, *rest]]
