"""Findings on disk: one JSON file and a few CSV files, nothing pickled.

::

    result.json     schema version, laws, fits, uncertainty, checks, settings
    runs.csv        a row a run
    optima.csv      a row a budget
    intervals.csv   a row a parameter
    backtest.csv    errors on held-out budgets
    envelope.csv    lower envelope of training curves, where curves were given
    curves.csv      points of training curves, where there are any
    draws-*.csv     bootstrap laws, a row a refit

Numbers are written with as many digits as bring back the same bits. Files are written beside their
place and renamed into it, `result.json` last.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flops_fit.errors import TableError
from flops_fit.laws.check import Check
from flops_fit.laws.findings import Findings
from flops_fit.laws.fitting.parametric import ParametricFit
from flops_fit.laws.inference.intervals import Spread
from flops_fit.laws.model.cost import CostCurve, FlopsPerToken
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.model.power_law import PowerLaw, PowerLaws
from flops_fit.laws.model.repetition_law import RepetitionLaw
from flops_fit.runtime.atomic_write import atomic_write

SCHEMA = 1
LAW_COLUMNS = ["E", "log_A", "log_B", "alpha", "beta", "fading", "params_fading"]


def save(directory: str | os.PathLike[str], findings: Findings, meta: Mapping[str, str]) -> None:
    """Write everything into a directory, made if need be."""
    place = Path(directory)
    place.mkdir(parents=True, exist_ok=True)
    tables = _tables(findings)
    for name, table in tables.items():
        _write_csv(place / f"{name}.csv", table)
    columns = {name: _kinds(table) for name, table in tables.items()}
    text = json.dumps({**_document(findings, meta), "columns": columns}, indent=2)
    atomic_write(place / "result.json", text + "\n")


def load(directory: str | os.PathLike[str]) -> tuple[Findings, dict[str, str]]:
    """Read what `save` wrote.

    Raises:
        TableError: Something is missing, unreadable, or of a newer schema.
    """
    place = Path(directory)
    try:
        document = json.loads((place / "result.json").read_text(encoding="utf-8"))
        if document.get("schema") != SCHEMA:
            raise TableError(
                f"{place / 'result.json'} has schema {document.get('schema')!r}; this version of "
                f"flops-fit reads {SCHEMA}"
            )
        return _findings(place, document), document["meta"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, TableError):
            raise
        raise TableError(f"{place} holds no readable result: {error!r}") from error


def _tables(findings: Findings) -> dict[str, pd.DataFrame]:
    """Everything that is rows and columns, by file name."""
    tables = {
        "runs": findings.runs,
        "optima": findings.optima,
        "backtest": findings.backtest,
        "intervals": findings.intervals.rename_axis("parameter").reset_index(),
    }
    for name in ("envelope", "curves"):
        table = getattr(findings, name)
        if len(table):
            tables[name] = table
    for i, spread in enumerate(findings.spreads):
        for method, rows in spread.draws.items():
            tables[f"draws-{i}-{method}"] = pd.DataFrame(rows, columns=LAW_COLUMNS[: rows.shape[1]])
    return tables


def _document(findings: Findings, meta: Mapping[str, str]) -> dict[str, Any]:
    """All that is not a table."""
    cost = asdict(findings.cost)
    spreads = [
        {
            "form": spread.form,
            "centre": spread.centre.tolist(),
            "covariance": spread.covariance.tolist(),
            "dof": spread.dof,
            "residual_std": spread.residual_std,
            "draws": sorted(spread.draws),
            "num_clusters": spread.num_clusters,
        }
        for spread in findings.spreads
    ]
    return {
        "schema": SCHEMA,
        "meta": dict(meta),
        "choice": findings.choice,
        "cost": cost,
        "law": None if findings.law is None else asdict(findings.law),
        "fits": {name: asdict(fit) for name, fit in findings.fits.items()},
        "power_laws": asdict(findings.power_laws),
        "envelope_laws": None if findings.envelope_laws is None else asdict(findings.envelope_laws),
        "repetition": None if findings.repetition is None else asdict(findings.repetition),
        "spreads": spreads,
        "checks": [asdict(check) for check in findings.checks],
    }


def _findings(place: Path, document: dict[str, Any]) -> Findings:
    tables = {name: _read_csv(place, name, kinds) for name, kinds in document["columns"].items()}
    return Findings(
        runs=tables["runs"],
        optima=tables["optima"],
        law=None if document["law"] is None else _law(document["law"]),
        power_laws=_power_laws(document["power_laws"]),
        fits={name: _fit(stored) for name, stored in document["fits"].items()},
        spreads=tuple(_spread(tables, i, s) for i, s in enumerate(document["spreads"])),
        intervals=tables["intervals"].set_index("parameter").rename_axis(None),
        checks=[Check(**check) for check in document["checks"]],
        backtest=tables["backtest"],
        cost=FlopsPerToken(
            document["cost"]["flops_per_param_token"], _curve(document["cost"]["curve"])
        ),
        choice=document["choice"],
        envelope=tables.get("envelope", pd.DataFrame()),
        curves=tables.get("curves", pd.DataFrame()),
        envelope_laws=document["envelope_laws"] and _power_laws(document["envelope_laws"]),
        repetition=document["repetition"] and _repetition(document["repetition"]),
    )


def _law(stored: dict[str, Any]) -> ParametricLaw:
    return ParametricLaw(**{**stored, "curve": _curve(stored["curve"])})


def _repetition(stored: dict[str, Any]) -> RepetitionLaw:
    return RepetitionLaw(**{**stored, "law": _law(stored["law"])})


def _power_laws(stored: dict[str, Any]) -> PowerLaws:
    return PowerLaws(**{name: PowerLaw(**_tuples(law)) for name, law in stored.items()})


def _fit(stored: dict[str, Any]) -> ParametricFit:
    return ParametricFit(**{**_tuples(stored), "law": _law(stored["law"])})


def _curve(stored: dict[str, Any] | None) -> CostCurve | None:
    return None if stored is None else CostCurve(**_tuples(stored))


def _spread(tables: Mapping[str, pd.DataFrame], i: int, stored: dict[str, Any]) -> Spread:
    return Spread(
        stored["form"],
        np.array(stored["centre"]),
        np.array(stored["covariance"]),
        stored["dof"],
        stored["residual_std"],
        {method: tables[f"draws-{i}-{method}"].to_numpy(float) for method in stored["draws"]},
        stored["num_clusters"],
    )


def _tuples(stored: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}


def _native(size: object) -> object:
    if isinstance(size, np.generic):
        size = size.item()
    return None if isinstance(size, float) and math.isnan(size) else size


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    mixed = [column for column, kind in _kinds(table).items() if kind == "json"]
    cells = {column: [json.dumps(_native(c)) for c in table[column]] for column in mixed}
    atomic_write(path, table.assign(**cells).to_csv(index=False, lineterminator="\n"))


def _read_csv(place: Path, name: str, kinds: Mapping[str, str]) -> pd.DataFrame:
    """Every cell as text first, then as the kind its column had."""
    path = place / f"{name}.csv"
    text = pd.read_csv(path, dtype=str, keep_default_na=False, na_filter=False)
    return pd.DataFrame({c: _cells(text[c].tolist(), kinds[c]) for c in text.columns})


def _kinds(table: pd.DataFrame) -> dict[str, str]:
    """Kind of each column: float, int, bool, text, or json for what mixes them."""
    kinds = {}
    for column in table.columns:
        kind = table[column].dtype.kind
        kinds[str(column)] = {"f": "float", "i": "int", "b": "bool"}.get(kind) or (
            "text" if all(isinstance(cell, str) for cell in table[column]) else "json"
        )
    return kinds


def _cells(cells: list[str], kind: str) -> pd.Series:
    if kind == "float":
        return pd.Series([float(c) if c else math.nan for c in cells], dtype=float)
    if kind == "int":
        return pd.Series([int(c) for c in cells], dtype="int64")
    if kind == "bool":
        return pd.Series([c == "True" for c in cells], dtype=bool)
    if kind == "json":
        return pd.Series([json.loads(c) for c in cells], dtype=object)
    return pd.Series(cells) if cells else pd.Series(cells, dtype=object)
