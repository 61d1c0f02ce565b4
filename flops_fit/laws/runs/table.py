"""Reading tables of runs, in the forms that people keep them in, into the columns of `Run`.

Column names are matched without regard to case, blanks, dashes and underscores. All faults are
reported together, each with its row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd

from flops_fit.errors import TableError
from flops_fit.records import RUN_COLUMNS

Runs = pd.DataFrame | str | PathLike[str] | Iterable[Mapping[str, Any]]

# Accepted names of each column, lower case without punctuation, in order of preference.
ALIASES: dict[str, tuple[str, ...]] = {
    "num_params": (
        *("numparams", "params", "n", "parameters", "nparams", "modelsize", "paramcount"),
        *("numparameters", "nparameters", "modelparams", "totalparams"),
    ),
    "num_tokens": (
        *("numtokens", "tokens", "d", "ntokens", "traintokens", "trainingtokens", "data"),
        *("tokensseen", "totaltokens", "datasetsize", "numexamples", "examples"),
    ),
    "loss": (
        *("loss", "valloss", "evalloss", "testloss", "heldoutloss", "finalloss", "l"),
        *("validationloss", "finalvalloss", "finalevalloss", "nll"),
    ),
    "flops": (
        *("flops", "flop", "trainingflop", "trainingflops", "trainflops", "c", "compute"),
        "totalflops",
    ),
    "compute_budget": ("computebudget", "budget", "isoflop"),
    "unique_tokens": ("uniquetokens", "uniqued", "u"),
}
# Names that an error message suggests.
SUGGESTED_NAMES = {
    "num_params": "num_params, params, N, parameters, model_size",
    "num_tokens": "num_tokens, tokens, D, train_tokens, dataset_size",
    "loss": "loss, val_loss, eval_loss, test_loss, L",
}
EXPECTED = "a DataFrame, the path of a CSV file or a list of dicts"
NEEDED = ("num_params", "num_tokens", "loss")
CURVE_COLUMNS = ("trial_id", "num_tokens", "loss")
# kappa in C = kappa N D where FLOPs were not measured (Kaplan et al. 2020, section 2.1).
FLOPS_PER_PARAM_TOKEN = 6.0
# Faults listed in full; of further ones only the rows are named.
MOST_FAULTS = 50
# States of a run that has finished.
FINISHED = ("", "complete", "completed", "finished")
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
}


def read_runs(runs: Runs) -> tuple[pd.DataFrame, list[str]]:
    """Read a table of runs.

    Args:
        runs: A DataFrame, the path of a CSV file, or an iterable of mappings, with N, D and loss
            and, if measured, C.

    Returns:
        The table, one row per run in the order given, with `RUN_COLUMNS` first; runs that cannot be
        fitted have a reason in `excluded`. And the assumptions that were made, as sentences.

    Raises:
        TableError: Columns are missing, or rows hold impossible values; lists every fault.
    """
    frame, counting = _load(runs)
    frame = _rename(frame)
    _require_columns(frame)
    frame = _fill_state(frame)
    by_row = _faulty_numbers(frame)
    faults = [f"row {i}: {fault}" for i in sorted(by_row) for fault in by_row[i]]
    faults += _duplicates(frame.drop(index=list(by_row)))
    if faults:
        heading = f"{len(faults)} faults in the table of runs ({counting}):"
        raise TableError(_shortened(faults), heading)
    notes = _fill_flops(frame)
    _exclude_infinite_losses(frame)
    return _ordered(frame), notes


def read_curves(curves: Any) -> pd.DataFrame:
    """Read points of training curves.

    Args:
        curves: A DataFrame, or an iterable of mappings, one row per point.

    Returns:
        One row per point with columns `trial_id num_tokens loss`, and any further ones.

    Raises:
        TableError: Columns are missing, or tokens or losses are not numbers.
    """
    frame = _rename(_load(curves)[0])
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
        raise TableError(_shortened(faults), f"{len(faults)} faults in the training curves:")
    return frame.assign(trial_id=frame["trial_id"].astype(str))


def _shortened(faults: list[str]) -> list[str]:
    """The first faults in full, and only the rows of the others."""
    rest = [fault.split(":")[0].removeprefix("row ") for fault in faults[MOST_FAULTS:]]
    if not rest:
        return faults
    rows = ", ".join(dict.fromkeys(rest))
    return [*faults[:MOST_FAULTS], f"... and {len(rest)} more, in rows {rows}"]


def _load(runs: Runs) -> tuple[pd.DataFrame, str]:
    """The table as given, and a text that states how its rows are counted."""
    counted = "rows count from 0"
    if isinstance(runs, pd.DataFrame):
        return runs.reset_index(drop=True).copy(), counted
    if isinstance(runs, str | PathLike):
        return _read_csv(runs), f"{counted}: row 0 is line 2 of {runs}"
    try:
        rows = list(runs)
    except TypeError as error:
        raise TableError(f"expected {EXPECTED}, got {type(runs).__name__}") from error
    wrong = [(i, row) for i, row in enumerate(rows) if not isinstance(row, Mapping)]
    if wrong:
        i, row = wrong[0]
        got = f"a {type(runs).__name__} whose row {i} is {type(row).__name__} {row!r:.60}"
        raise TableError(f"expected {EXPECTED} (one dict per run, with N, D and loss), got {got}")
    return pd.DataFrame([dict(row) for row in rows]), counted


def _read_csv(path: str | PathLike[str]) -> pd.DataFrame:
    try:
        return pd.read_csv(path)
    except FileNotFoundError as error:
        raise TableError(f"no such file: {path}") from error
    except (OSError, ValueError) as error:
        raise TableError(f"{path} could not be read as CSV: {error}") from error


def _rename(frame: pd.DataFrame) -> pd.DataFrame:
    """Rename recognised columns; an exact name takes precedence over an alias."""
    taken, names = set(map(str, frame.columns)), {}
    for name, aliases in ALIASES.items():
        if name in taken:
            continue
        hits = [c for c in frame.columns if _plain(c) in aliases]
        hits.sort(key=lambda c: aliases.index(_plain(c)))
        if hits:
            names[hits[0]] = name
    return frame.rename(columns=names)


def _plain(column: object) -> str:
    """A column's name in lower case, without blanks and punctuation."""
    return "".join(letter for letter in str(column).lower() if letter.isalnum())


def _require_columns(frame: pd.DataFrame) -> None:
    if frame.columns.duplicated().any():
        repeated = sorted(set(map(str, frame.columns[frame.columns.duplicated()])))
        raise TableError(f"these columns occur twice: {', '.join(repeated)}")
    missing = [name for name in NEEDED if name not in frame.columns]
    if missing:
        found = ", ".join(map(str, frame.columns)) or "none"
        known = "; ".join(f"for {name} {SUGGESTED_NAMES[name]}" for name in missing)
        raise TableError(
            f"expected columns for N, D and loss; {', '.join(missing)} not found among: {found}. "
            f"Rename a column (known names: {known})"
        )
    if frame.empty:
        raise TableError("the table has no rows")


def _fill_state(frame: pd.DataFrame) -> pd.DataFrame:
    """Add missing columns with their defaults, and exclude runs that have not finished."""
    for name, value in DEFAULTS.items():
        if name not in frame.columns:
            frame[name] = value
    for name in ("state", "excluded", "trial_id", "run_id"):
        frame[name] = frame[name].astype(object).where(frame[name].notna(), "").astype(str)
    unfinished = ~frame["state"].str.lower().isin(FINISHED)
    without_reason = unfinished & (frame["excluded"] == "")
    frame.loc[without_reason, "excluded"] = frame.loc[without_reason, "state"]
    return frame


def _faulty_numbers(frame: pd.DataFrame) -> dict[int, list[str]]:
    """Convert numeric columns to floats, in place; return the faults of each row."""
    faults: dict[int, list[str]] = {}
    included = (frame["excluded"] == "").to_numpy()
    optional = ("flops", "compute_budget", "unique_tokens", "lr_multiplier")
    for name in (*NEEDED, *(name for name in optional if name in frame), "wall_time_s"):
        given = frame[name].astype(object).tolist()
        numbers = pd.to_numeric(frame[name], errors="coerce").astype(float)
        frame[name] = numbers.replace([np.inf, -np.inf], np.inf)
        for i, (raw, number) in enumerate(zip(given, numbers.tolist(), strict=True)):
            fault = _fault(name, raw, number, name in NEEDED[:2]) if included[i] else ""
            if fault:
                faults.setdefault(i, []).append(fault)
    return faults


def _fault(name: str, raw: object, number: float, required: bool) -> str:
    """What is wrong with one cell; empty if nothing is. A loss may be any number, also NaN."""
    missing = raw is None or raw is pd.NA or (isinstance(raw, float) and np.isnan(raw))
    if missing:
        return f"{name} is missing" if required else ""
    if np.isnan(number) and not _spells_nan(raw):
        return f"{name} is not a number: {raw!r}"
    if name in ("loss", "wall_time_s"):
        return ""
    if not np.isfinite(number) or number <= 0:
        return f"{name} must be positive and finite: {raw!r}"
    return ""


def _spells_nan(raw: object) -> bool:
    return isinstance(raw, float) or str(raw).strip().lower() in ("nan", "")


def _duplicates(frame: pd.DataFrame) -> list[str]:
    """Faults of rows that agree in every column that distinguishes runs."""
    keys = ["num_params", "num_tokens", "loss", "seed", "trial_id", "run_id", "flops", "size"]
    included = frame[frame["excluded"] == ""]
    columns = [included[name].astype(object) for name in keys if name in frame.columns]
    rows = included.index.to_series()
    first = rows.groupby(columns, sort=False, dropna=False).transform("first")
    return [f"row {i}: the same run as row {first[i]}" for i in rows[rows != first]]


def _fill_flops(frame: pd.DataFrame) -> list[str]:
    """Fill in missing C, in place: with the budget, or 6 N D. Returns the assumptions."""
    notes = []
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
    return notes


def _exclude_infinite_losses(frame: pd.DataFrame) -> None:
    bad = ~np.isfinite(frame["loss"]) & (frame["excluded"] == "")
    frame.loc[bad, "excluded"] = "loss is not finite"


def _ordered(frame: pd.DataFrame) -> pd.DataFrame:
    rest = [name for name in frame.columns if name not in RUN_COLUMNS]
    return frame[[*RUN_COLUMNS, *rest]]
