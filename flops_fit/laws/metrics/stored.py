"""Laws of metrics as plain values and tables, for the archive."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from flops_fit.laws.metrics.forms import Form
from flops_fit.laws.metrics.law import MetricLaw
from flops_fit.laws.metrics.posterior import Limits

_PLAIN = ("name", "column", "scatter", "dof", "drift", "num_runs", "refused", "remark", "in_log")

_RANGES = ("loss_range", "compute_range", "irreducible")


def tables_of(laws: Mapping[str, MetricLaw]) -> dict[str, pd.DataFrame]:
    """The draws of each form and the back-tests, by file name without its extension.

    Metrics are numbered, because their names are the user's.
    """
    tables = {}
    for i, law in enumerate(laws.values()):
        for j, draws in enumerate(law.draws):
            columns = [f"p{k}" for k in range(draws.shape[1])]
            tables[f"metric-{i}-draws-{j}"] = pd.DataFrame(draws, columns=columns)
        if len(law.backtest):
            tables[f"metric-{i}-backtest"] = law.backtest
    return tables


def document_of(laws: Mapping[str, MetricLaw]) -> list[dict[str, Any]]:
    """Everything that is not a table; None for infinity and NaN."""
    return [
        {
            **{name: _finite(getattr(law, name)) for name in _PLAIN},
            "limits": {name: _finite(value) for name, value in asdict(law.limits).items()},
            "forms": [asdict(form) for form in law.forms],
            "shares": list(law.shares),
            "observed": [_finite(end) for end in law.observed],
            "largest": [_finite(end) for end in law.largest],
        }
        for law in laws.values()
    ]


def laws_from(
    stored: list[dict[str, Any]], tables: Mapping[str, pd.DataFrame]
) -> dict[str, MetricLaw]:
    """The laws from what was stored.

    Args:
        stored: What `document_of` returned.
        tables: What `tables_of` returned.
    """
    laws = [
        MetricLaw(
            **{name: _number(law[name]) for name in _PLAIN},
            limits=_limits(law["limits"]),
            forms=tuple(map(_form, law["forms"])),
            shares=tuple(law["shares"]),
            draws=tuple(
                tables[f"metric-{i}-draws-{j}"].to_numpy(float) for j in range(len(law["forms"]))
            ),
            observed=_pair(law["observed"]),
            largest=_pair(law["largest"]),
            backtest=tables.get(f"metric-{i}-backtest", pd.DataFrame()),
        )
        for i, law in enumerate(stored)
    ]
    return {law.name: law for law in laws}


def _form(stored: Mapping[str, Any]) -> Form:
    ranges = {name: _pair(stored[name]) for name in _RANGES}
    return Form(stored["shape"], stored["of"], **ranges)


def _limits(stored: Mapping[str, Any]) -> Limits:
    low = -math.inf if stored["low"] is None else stored["low"]
    high = math.inf if stored["high"] is None else stored["high"]
    return Limits(low, high, stored["rising"])


def _pair(stored: list[float | None]) -> tuple[float, float]:
    low, high = (math.nan if end is None else end for end in stored)
    return low, high


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: Any) -> Any:
    return math.nan if value is None else value
