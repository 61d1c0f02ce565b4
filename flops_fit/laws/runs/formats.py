"""Opening a table of runs: files in the formats that people keep, frames, columns and records.

The content of a file decides its format, not its suffix alone: CSV with any usual delimiter, JSON,
JSON Lines, Parquet, Feather and Excel, also compressed with gzip, bzip2 or xz.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import pandas as pd

from flops_fit.errors import TableError
from flops_fit.laws.runs.numbers import to_numbers, uses_decimal_comma

Runs = pd.DataFrame | str | PathLike[str] | Mapping[str, Any] | Iterable[Mapping[str, Any]]

EXPECTED = (
    "a DataFrame, the path of a file (CSV, TSV, JSON, JSONL, Parquet, Excel), a dict of columns or "
    "a list of dicts"
)
COUNTING = "rows count from 0"
# Keys under which a JSON file may hold its rows.
_ROWS = ("runs", "rows", "data", "results", "records", "trials")


def open_table(runs: Any) -> tuple[pd.DataFrame, str]:
    """The table as given, and a text that states how its rows are counted.

    Args:
        runs: A table in any of the forms that `EXPECTED` lists.

    Raises:
        TableError: It cannot be read, or is none of these.
    """
    if isinstance(runs, str | PathLike):
        frame, counting = _open_file(runs)
    elif isinstance(runs, pd.DataFrame):
        frame, counting = _with_index(runs), COUNTING
    elif callable(getattr(runs, "to_pandas", None)):  # polars, Arrow, Hugging Face
        frame, counting = _with_index(runs.to_pandas()), COUNTING
    elif isinstance(runs, Mapping):
        frame, counting = _from_columns(runs), COUNTING
    elif callable(getattr(runs, "read", None)):
        content = runs.read()
        frame, counting = _opened("the file", lambda: _read(content, "the file"))
    else:
        frame, counting = _from_records(runs), COUNTING
    # Spreadsheets export empty rows below a table.
    frame = frame.dropna(how="all").reset_index(drop=True)
    return _with_flat_names(frame), counting


def _with_index(frame: pd.DataFrame) -> pd.DataFrame:
    """A copy whose named index levels are columns, and whose rows count from 0."""
    names = [str(name) for name in frame.index.names if name is not None]
    named = frame.index.names != [None] and set(names).isdisjoint(map(str, frame.columns))
    return frame.reset_index(drop=not named).copy()


def _with_flat_names(frame: pd.DataFrame) -> pd.DataFrame:
    """The table without a column of row numbers, and with one text as each column's name."""
    names = [
        "_".join(str(part) for part in name if str(part)) if isinstance(name, tuple) else name
        for name in frame.columns
    ]
    frame = frame.set_axis(pd.Index(names, dtype=object), axis=1)
    # What `to_csv` and `reset_index` write where an index has no name.
    counters = ("", "index", "level_0")
    drop = [str(name).startswith("Unnamed: ") or str(name) in counters for name in frame.columns]
    for place, unnamed in enumerate(drop):
        column = frame.iloc[:, place]
        numbered = pd.api.types.is_integer_dtype(column.dtype) and column.is_unique
        drop[place] = unnamed and (numbered or bool(column.isna().all()))
    return frame.loc[:, [not unnamed for unnamed in drop]]


def _from_columns(runs: Mapping[str, Any]) -> pd.DataFrame:
    try:
        return _from_json(dict(runs))
    except ValueError as error:
        raise TableError(f"expected {EXPECTED}, got a dict that is no table: {error}") from error


def _from_records(runs: Iterable[Any]) -> pd.DataFrame:
    """A table from mappings, one per run; nested mappings become columns such as `config.N`."""
    try:
        rows = list(runs)
    except TypeError as error:
        raise TableError(f"expected {EXPECTED}, got {type(runs).__name__}") from error
    wrong = [(i, row) for i, row in enumerate(rows) if not isinstance(row, Mapping)]
    if wrong:
        i, row = wrong[0]
        got = f"a {type(runs).__name__} whose row {i} is {type(row).__name__} {row!r:.60}"
        raise TableError(f"expected {EXPECTED} (one dict per run, with N, D and loss), got {got}")
    if any(isinstance(value, Mapping) for row in rows for value in row.values()):
        return pd.json_normalize([dict(row) for row in rows])
    return pd.DataFrame([dict(row) for row in rows])


def _open_file(path: str | PathLike[str]) -> tuple[pd.DataFrame, str]:
    name = fspath(path)
    if "://" in name:
        counting = f"{COUNTING}: row 0 is line 2 of {name}"
        return _opened(name, lambda: (pd.read_csv(name), counting))
    return _opened(name, lambda: _read(Path(name).read_bytes(), name))


def _opened(name: str, read: Callable[[], tuple[pd.DataFrame, str]]) -> tuple[pd.DataFrame, str]:
    """What `read` gives; what is wrong with the file as a `TableError`."""
    try:
        return read()
    except FileNotFoundError as error:
        raise TableError(f"no such file: {name}") from error
    except IsADirectoryError as error:
        raise TableError(f"{name} is a folder; expected {EXPECTED}") from error
    except ImportError as error:
        reason = f"{name} could not be read: pandas needs another package for it ({error})"
        raise TableError(f"{reason}. Install that, or save the table as CSV") from error
    except (OSError, ValueError, EOFError, RecursionError, zipfile.BadZipFile) as error:
        raise TableError(f"{name} could not be read as {_kind(name)}: {error}") from error


def _kind(name: str) -> str:
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    known = {".json": "JSON", ".jsonl": "JSON Lines", ".parquet": "Parquet", ".xlsx": "Excel"}
    return next((known[suffix] for suffix in suffixes if suffix in known), "CSV")


def _unpacked(content: bytes) -> bytes:
    """A file's content, decompressed if its first bytes say that it is compressed."""
    if content.startswith(b"\x1f\x8b"):
        return gzip.decompress(content)
    if content.startswith(b"BZh"):
        return bz2.decompress(content)
    if content.startswith(b"\xfd7zXZ\x00"):
        return lzma.decompress(content)
    if content.startswith(b"PK\x03\x04"):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            return archive.read(names[0]) if len(names) == 1 else content
    return content


def _read(content: str | bytes, name: str) -> tuple[pd.DataFrame, str]:
    """The table in a file's content, and how its rows are counted."""
    content = content.encode() if isinstance(content, str) else _unpacked(content)
    if content.startswith(b"PAR1"):
        return _with_index(pd.read_parquet(io.BytesIO(content))), f"{COUNTING} in {name}"
    if content.startswith((b"ARROW1", b"FEA1")):
        return _with_index(pd.read_feather(io.BytesIO(content))), f"{COUNTING} in {name}"
    if content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        return pd.read_excel(io.BytesIO(content)), f"{COUNTING} in {name}"
    text = _decoded(content)
    if text.lstrip()[:1] in ("[", "{"):
        return _read_json(text), f"{COUNTING} in {name}"
    return _read_csv(text), f"{COUNTING}: row 0 is line 2 of {name}"


def _decoded(content: bytes) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def _read_json(text: str) -> pd.DataFrame:
    try:
        return _from_json(json.loads(text))
    except json.JSONDecodeError as whole:
        lines = [line for line in text.splitlines() if line.strip()]
        try:
            rows = [json.loads(line) for line in lines]
        except json.JSONDecodeError:
            raise whole from None
        return _from_records(rows)


def _from_json(value: Any) -> pd.DataFrame:
    """A table from records, columns, or what pandas writes with another `orient`."""
    if isinstance(value, list):
        if value and all(isinstance(row, list) for row in value):
            return pd.DataFrame(value[1:], columns=value[0])
        return _from_records(value)
    if {"columns", "data"} <= value.keys() and isinstance(value["data"], list):
        return pd.DataFrame(value["data"], columns=value["columns"])
    held = [value[key] for key in _ROWS if isinstance(value.get(key), list)]
    if len(held) == 1 and held[0] and isinstance(held[0][0], Mapping):
        return _from_records(held[0])
    inner = list(value.values())
    if inner and all(isinstance(part, Mapping) for part in inner):
        return _from_mappings(value)
    return pd.DataFrame(value)


def _from_mappings(value: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """A table from a mapping of mappings: of columns by row number, or of runs by name."""
    if all(str(key).isdigit() for part in value.values() for key in part):
        return pd.DataFrame({name: pd.Series(part) for name, part in value.items()}).reset_index(
            drop=True
        )
    frame = _from_records(value.values())
    if "run_name" not in frame:
        frame["run_name"] = list(map(str, value))
    return frame


def _read_csv(text: str) -> pd.DataFrame:
    # Lines of comment stand above the header, if at all.
    text = re.sub(r"\A(?:\s*#[^\n]*\n)+(?=[^#\s])", "", text)
    skip = 0
    declared = re.match(r"sep=(.)\r?\n", text)  # Excel's first line
    if declared:
        skip = len(declared.group(0))
    text = _without_rules(text[skip:])
    delimiter = declared.group(1) if declared else _delimiter(text)
    if delimiter == ",":
        return _with_row_names(pd.read_csv(io.StringIO(text)), text)
    options: dict[str, Any] = {"sep": delimiter, "skipinitialspace": True}
    cells = pd.read_csv(io.StringIO(text), dtype=str, **options)
    if not uses_decimal_comma(cell for column in cells for cell in cells[column].tolist()) and not (
        delimiter == ";" and _only_grouped(cells)
    ):
        return pd.read_csv(io.StringIO(text), **options)
    return cells.apply(_with_decimal_comma)


def _without_rules(text: str) -> str:
    """A table of Markdown without its rule and its outer bars; another text as it is."""
    lines = text.strip().splitlines()
    if len(lines) < 2 or "-" not in lines[1] or not re.fullmatch(r"[|\s:-]+", lines[1]):
        return text
    return "\n".join(line.strip().strip("|") for line in (lines[0], *lines[2:]))


def _delimiter(text: str) -> str:
    """The delimiter of a table: the one that its first line has most of."""
    line = re.sub(r'"[^"]*"', "", text.lstrip("\n").split("\n", 1)[0])
    counts = {mark: line.count(mark) for mark in (",", ";", "\t", "|")}
    best = max(counts, key=lambda mark: counts[mark])
    if counts[best]:
        return best
    return r"\s+" if len(line.split()) > 2 else ","


def _only_grouped(cells: pd.DataFrame) -> bool:
    """Whether every comma stands before three digits, as 3,702 does: decimal after semicolons."""
    found = [cell for name in cells for cell in cells[name].dropna() if "," in cell]
    return bool(found) and all(re.fullmatch(r"[-+]?\d{1,3},\d{3}", cell.strip()) for cell in found)


def _with_decimal_comma(cells: pd.Series) -> pd.Series:
    """A column of text as numbers where all its cells are numbers with decimal commas."""
    numbers = to_numbers(cells, decimal_comma=True)
    plain = bool((numbers.notna() | cells.isna()).all())
    return numbers if plain else cells


def _with_row_names(frame: pd.DataFrame, text: str) -> pd.DataFrame:
    """The table where its lines hold one cell more than its header, which pandas takes as names."""
    if isinstance(frame.index, pd.RangeIndex):
        return frame
    if len(frame) and frame.iloc[:, -1].isna().all():  # each line ends with a comma
        return pd.read_csv(io.StringIO(text), index_col=False)
    return frame.rename_axis("row_name").reset_index()
