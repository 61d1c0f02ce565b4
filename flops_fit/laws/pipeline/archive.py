"""Findings on disk: one JSON file and a few CSV files; nothing is pickled.

::

    result.json     schema version, laws, fits, uncertainty, checks, settings
    runs.csv        one row per run
    optima.csv      one row per budget
    intervals.csv   one row per parameter
    backtest.csv    errors on held-out budgets
    envelope.csv    lower envelope of training curves, if curves were given
    curves.csv      points of training curves, if there are any
    forecasts.csv   forecasts and their outcomes, if there are any
    misfit-*.csv    residuals of a law that counts in predictions
    metric-*.csv    draws of the law of a metric, and its back-tests
    draws-*.csv     bootstrap law vectors, one row per refit

Numbers are written with enough digits to restore the same bits. Each file is written under a
temporary name and then renamed, `result.json` last, so that a reader never sees half a file.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flops_fit.errors import TableError
from flops_fit.laws.check import Check
from flops_fit.laws.findings import Findings
from flops_fit.laws.fitting.parametric import ParametricFit
from flops_fit.laws.inference.intervals import Spread
from flops_fit.laws.inference.kriging.cells import Cells
from flops_fit.laws.inference.kriging.kriging import Kriging, Setting
from flops_fit.laws.inference.misfit import Misfit
from flops_fit.laws.metrics import stored as metric_laws
from flops_fit.laws.model.arrays import GAMMA
from flops_fit.laws.model.cost import CostCurve, FlopsPerToken
from flops_fit.laws.model.parametric_law import ParametricLaw
from flops_fit.laws.model.power_law import PowerLaw, PowerLaws
from flops_fit.laws.model.recipe_law import RecipeLaw
from flops_fit.laws.model.repetition_law import RepetitionLaw
from flops_fit.runtime.atomic_write import atomic_write

# Version of the format, and the versions that are read. Law vectors have gamma from version 2 on.
SCHEMA = 2
READ = (1, 2)
# Columns of `draws-*.csv`, the elements of a law vector: the first six, seven or eight.
LAW_COLUMNS = ["E", "log_A", "log_B", "alpha", "beta", "gamma", "fading", "params_fading"]


def save(directory: str | os.PathLike[str], findings: Findings, meta: Mapping[str, str]) -> None:
    """Write findings into a directory, which is created if it does not exist.

    Args:
        directory: The directory.
        findings: What to write, except `Findings.meta` and `Findings.build_size`.
        meta: Strings to keep with the findings.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    tables = _tables(findings)
    for name, table in tables.items():
        _write_csv(folder / f"{name}.csv", table)
    columns = {name: _kinds(table) for name, table in tables.items()}
    text = json.dumps({**_document(findings, meta), "columns": columns}, indent=2)
    atomic_write(folder / "result.json", text + "\n")


def load(directory: str | os.PathLike[str]) -> tuple[Findings, dict[str, str]]:
    """Read what `save` wrote.

    Returns:
        The findings and the meta strings.

    Raises:
        TableError: A file is missing or unreadable, or the schema is a different one.
    """
    folder = Path(directory)
    try:
        document = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        if document.get("schema") not in READ:
            raise TableError(
                f"{folder / 'result.json'} has schema {document.get('schema')!r}; this version of "
                f"flops-fit reads {' and '.join(map(str, READ))}"
            )
        return _findings(folder, document), document["meta"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, TableError):
            raise
        raise TableError(f"{folder} holds no readable result: {error!r}") from error


def _tables(findings: Findings) -> dict[str, pd.DataFrame]:
    """The tables to write, by file name without its extension."""
    tables = {
        "runs": findings.runs,
        "optima": findings.optima,
        "backtest": findings.backtest,
        "intervals": findings.intervals.rename_axis("parameter").reset_index(),
    }
    for name in ("envelope", "curves", "forecasts"):
        table = getattr(findings, name)
        if len(table):
            tables[name] = table
    for i, spread in enumerate(findings.spreads):
        for method, laws in spread.draws.items():
            tables[f"draws-{i}-{method}"] = pd.DataFrame(laws, columns=LAW_COLUMNS[: laws.shape[1]])
    for law in findings.misfit.laws if findings.misfit else ():
        tables[f"misfit-{law.fit.form}"] = pd.DataFrame(asdict(law.cells))
    return tables | metric_laws.tables_of(findings.metrics)


def _document(findings: Findings, meta: Mapping[str, str]) -> dict[str, Any]:
    """Everything that is not a table, for `result.json`."""
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
        "recipe_law": None if findings.recipe_law is None else asdict(findings.recipe_law),
        "spreads": spreads,
        "misfit": None if findings.misfit is None else _misfit_document(findings.misfit),
        "metrics": metric_laws.document_of(findings.metrics),
        "checks": [asdict(check) for check in findings.checks],
    }


def _misfit_document(misfit: Misfit) -> list[dict[str, Any]]:
    """The laws that count in predictions; their runs are tables."""
    return [
        {
            "form": law.fit.form,
            "weight": weight,
            "settings": [asdict(setting) for setting in law.settings],
            "dof": law.dof,
        }
        for weight, law in zip(misfit.weights, misfit.laws, strict=True)
    ]


def _findings(folder: Path, document: dict[str, Any]) -> Findings:
    tables = {name: _read_csv(folder, name, kinds) for name, kinds in document["columns"].items()}
    return Findings(
        runs=tables["runs"],
        optima=tables["optima"],
        law=None if document["law"] is None else _law(document["law"]),
        power_laws=_power_laws(document["power_laws"]),
        fits={name: _fit(stored) for name, stored in document["fits"].items()},
        spreads=tuple(_spread(tables, i, s, document) for i, s in enumerate(document["spreads"])),
        intervals=tables["intervals"].set_index("parameter").rename_axis(None),
        checks=[Check(**check) for check in document["checks"]],
        backtest=tables["backtest"],
        cost=FlopsPerToken(**{**document["cost"], "curve": _curve(document["cost"]["curve"])}),
        choice=document["choice"],
        envelope=tables.get("envelope", pd.DataFrame()),
        curves=tables.get("curves", pd.DataFrame()),
        forecasts=tables.get("forecasts", pd.DataFrame()),
        envelope_laws=document["envelope_laws"] and _power_laws(document["envelope_laws"]),
        misfit=_misfit(tables, document),
        recipe_law=_recipe_law(document),
        # Older archives have none.
        metrics=metric_laws.laws_from(document.get("metrics", []), tables),
        repetition=document["repetition"] and _repetition(document["repetition"]),
    )


def _law(stored: dict[str, Any]) -> ParametricLaw:
    return ParametricLaw(**{**stored, "curve": _curve(stored["curve"])})


def _repetition(stored: dict[str, Any]) -> RepetitionLaw:
    return RepetitionLaw(**{**stored, "law": _law(stored["law"])})


def _power_laws(stored: dict[str, Any]) -> PowerLaws:
    return PowerLaws(**{name: _power_law(law) for name, law in stored.items()})


def _power_law(stored: dict[str, Any]) -> PowerLaw:
    # Older archives also hold intervals of k and l_inf, which nothing reads any more.
    known = {field.name for field in fields(PowerLaw)}
    return PowerLaw(**{k: v for k, v in _tuples(stored).items() if k in known})


def _fit(stored: dict[str, Any]) -> ParametricFit:
    return ParametricFit(**{**_tuples(stored), "law": _law(stored["law"])})


def _curve(stored: dict[str, Any] | None) -> CostCurve | None:
    if stored is None:
        return None
    errors = tuple(tuple(row) for row in stored.get("errors", ()))
    return CostCurve(**{**_tuples(stored), "errors": errors})


def _spread(
    tables: Mapping[str, pd.DataFrame], i: int, stored: dict[str, Any], document: dict[str, Any]
) -> Spread:
    centre, covariance = np.array(stored["centre"]), np.array(stored["covariance"])
    draws = {name: tables[f"draws-{i}-{name}"].to_numpy(float) for name in stored["draws"]}
    if document["schema"] == 1:
        centre = np.insert(centre, GAMMA, 1.0)
        for axis in (0, 1):
            covariance = np.insert(covariance, GAMMA, 0.0, axis=axis)
        draws = {name: np.insert(laws, GAMMA, 1.0, axis=1) for name, laws in draws.items()}
    return Spread(
        stored["form"],
        centre,
        covariance,
        stored["dof"],
        stored["residual_std"],
        draws,
        stored["num_clusters"],
    )


def _recipe_law(document: dict[str, Any]) -> RecipeLaw | None:
    # Older archives have none.
    stored = document.get("recipe_law")
    if not stored:
        return None
    covariance = tuple(map(tuple, stored["covariance"]))
    return RecipeLaw(**{**_tuples(stored), "covariance": covariance})


def _misfit(tables: Mapping[str, pd.DataFrame], document: dict[str, Any]) -> Misfit | None:
    # Older archives have none.
    stored = document.get("misfit")
    if not stored:
        return None
    laws = tuple(
        Kriging(
            _fit(document["fits"][law["form"]]),
            Cells(**{str(name): column.to_numpy(float) for name, column in cells.items()}),
            tuple(Setting(**_tuples(setting)) for setting in law["settings"]),
            law["dof"],
        )
        for law in stored
        for cells in [tables[f"misfit-{law['form']}"]]
    )
    return Misfit(tuple(law["weight"] for law in stored), laws)


def _tuples(stored: dict[str, Any]) -> dict[str, Any]:
    """The same with tuples for lists: JSON has no tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}


def _native(cell: object) -> object:
    """A cell as JSON can hold it: a Python scalar, and None for NaN."""
    if isinstance(cell, np.generic):
        cell = cell.item()
    return None if isinstance(cell, float) and math.isnan(cell) else cell


def _write_csv(path: Path, table: pd.DataFrame) -> None:
    """Write a table, with the cells of mixed columns as JSON."""
    mixed = [column for column, kind in _kinds(table).items() if kind == "json"]
    cells = {column: [json.dumps(_native(c)) for c in table[column]] for column in mixed}
    atomic_write(path, table.assign(**cells).to_csv(index=False, lineterminator="\n"))


def _read_csv(folder: Path, name: str, kinds: Mapping[str, str]) -> pd.DataFrame:
    """Read every cell as text first, then convert each column to the kind that it had."""
    path = folder / f"{name}.csv"
    text = pd.read_csv(path, dtype=str, keep_default_na=False, na_filter=False)
    return pd.DataFrame({c: _cells(text[c].tolist(), kinds[c]) for c in text.columns})


def _kinds(table: pd.DataFrame) -> dict[str, str]:
    """The kind of each column: "float", "int", "bool", "text", or "json" for mixed columns."""
    kinds = {}
    for column in table.columns:
        kind = table[column].dtype.kind
        kinds[str(column)] = {"f": "float", "i": "int", "b": "bool"}.get(kind) or (
            "text" if all(isinstance(cell, str) for cell in table[column]) else "json"
        )
    return kinds


def _cells(cells: list[str], kind: str) -> pd.Series:
    """A column of the given kind from its texts."""
    if kind == "float":
        return pd.Series([float(c) if c else math.nan for c in cells], dtype=float)
    if kind == "int":
        return pd.Series([int(c) for c in cells], dtype="int64")
    if kind == "bool":
        return pd.Series([c == "True" for c in cells], dtype=bool)
    if kind == "json":
        return pd.Series([json.loads(c) for c in cells], dtype=object)
    return pd.Series(cells) if cells else pd.Series(cells, dtype=object)
