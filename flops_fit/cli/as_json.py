"""Results as strict JSON: plain values, with null for NaN and infinity."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from flops_fit.errors import FitError
from flops_fit.laws.predict.prediction import Prediction
from flops_fit.result import Result

if TYPE_CHECKING:
    from flops_fit.sweep_plan import SweepPlan

_LAW = ("E", "A", "B", "alpha", "beta", "gamma", "a")


def dumps(value: Any) -> str:
    """A value as JSON text."""
    return json.dumps(_plain(value), indent=2, allow_nan=False, ensure_ascii=False)


def of_plan(plan: SweepPlan) -> dict[str, Any]:
    """A plan: its trials, budget by budget, and the points it skips."""
    return {
        "model": plan.model_name,
        "size_param": plan.size_param,
        "data_unit": plan.data_unit,
        "flops_convention": plan.flops_convention,
        "data_notes": plan.data_notes,
        "total_flops": plan.total_flops,
        "pilot": _pilot(plan),
        "trials": plan.to_frame(),
        "skipped": plan.skipped,
    }


def _pilot(plan: SweepPlan) -> dict[str, Any] | None:
    """What is trained to find the recipe, beside the trials; counted in the FLOPs of all."""
    if plan.pilot is None:
        return None
    fields = asdict(plan.pilot)
    expected = fields.pop("expected")
    return {**fields, "expected_trials": len(expected), "found": plan.found is not None}


def of_prediction(prediction: Prediction, result: Result) -> dict[str, Any]:
    """A prediction, with the unit of D."""
    return {**asdict(prediction), "data_unit": result.meta.get("data_unit")}


def of_result(result: Result) -> dict[str, Any]:
    """The results of a sweep: law, intervals, optima, table (if there are laws), checks, runs."""
    law = result.law
    try:
        table = result.chinchilla_table()
    except FitError:
        table = None
    return {
        **result.meta,
        "law": None if law is None else {name: getattr(law, name) for name in _LAW},
        "intervals": result.intervals.rename_axis("name").reset_index(),
        "optima": result.optima,
        "table": table,
        "checks": result.checks,
        "runs": result.runs,
    }


def _plain(value: Any) -> Any:
    """A value in the types of JSON."""
    if isinstance(value, pd.DataFrame):
        return [_plain(row) for row in value.to_dict("records")]
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic | np.ndarray):
        return _plain(value.tolist())
    # JSON has no NaN and no infinity.
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    # Anything else, such as a path or a function, as text.
    return value if value is None or isinstance(value, bool | int | str) else str(value)
