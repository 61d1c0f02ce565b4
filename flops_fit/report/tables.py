"""The table of what to train, for people: as text cells, HTML and LaTeX."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from flops_fit.report import number_text

BESIDE = "95 %"


def shown(table: pd.DataFrame, meta: Mapping[str, str]) -> pd.DataFrame:
    """The table as text, an interval a column.

    Args:
        table: What `Result.chinchilla_table` gives.
        meta: Of the result: `data_unit` and `size_param` name columns.
    """
    unit = meta.get("data_unit", "tokens")
    columns: dict[str, list[str]] = {
        "C, FLOPs": [number_text.flops(C) for C in table["compute_budget"]],
        "N, parameters": [number_text.count(N) for N in table["num_params"]],
        f"N, {BESIDE}": _intervals(table, "num_params", number_text.count),
        f"D, {unit}": [number_text.count(D) for D in table["num_tokens"]],
        f"D, {BESIDE}": _intervals(table, "num_tokens", number_text.count),
        "D / N": [f"{ratio:.3g}" for ratio in table["tokens_per_param"]],
        "loss": [number_text.loss(L) for L in table["loss"]],
        f"loss, {BESIDE}": _intervals(table, "loss", number_text.loss),
    }
    if table["size"].notna().any():
        columns[meta.get("size_param", "size")] = [_size(size) for size in table["size"]]
    columns["C / largest"] = [number_text.times(factor) for factor in table["extrapolation"]]
    return pd.DataFrame(columns)


def to_latex(result: Any, compute_budgets: Any = None) -> str:
    """A LaTeX table, for `booktabs`: see `Result.to_latex`."""
    table = shown(result.chinchilla_table(compute_budgets), result.meta)
    columns = {name: _escaped(name) for name in table.columns}
    name = result.meta.get("name", "")
    caption = "What to train for each budget" + (f": {_escaped(name)}." if name else ".")
    latex: str = (
        table.rename(columns=columns)
        .style.format(escape="latex")
        .hide(axis="index")
        .to_latex(
            hrules=True,
            column_format="r" * len(columns),
            caption=f"{caption} Intervals at 95 \\%.",
            position_float="centering",
        )
    )
    return latex


def _escaped(text: str) -> str:
    """Text that LaTeX sets as it is."""
    special = {c: f"\\{c}" for c in "&%$#_{}"} | {
        "\\": "\\textbackslash{}",
        "~": "\\textasciitilde{}",
        "^": "\\textasciicircum{}",
        "<": "\\textless{}",
        ">": "\\textgreater{}",
        "|": "\\textbar{}",
    }
    return "".join(special.get(letter, letter) for letter in text)


def _intervals(table: pd.DataFrame, name: str, form: Any) -> list[str]:
    ends = zip(table[f"{name}_low"], table[f"{name}_high"], strict=True)
    return [number_text.between(low, high, form) for low, high in ends]


def _size(size: object) -> str:
    if size is None or size != size:
        return ""
    return f"{size:.4g}" if isinstance(size, float) else str(size)
