"""Tables of predictions for people: as text cells and as LaTeX."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import ClassVar

import pandas as pd
from numpy.typing import ArrayLike

from flops_fit.display import html, number_text
from flops_fit.display.number_text import NumberFormat
from flops_fit.laws.findings import Findings
from flops_fit.laws.metrics.law import MetricLaw
from flops_fit.laws.predict.tables import chinchilla_table

INTERVAL = "95 %"
LATEX_SPECIAL = {character: f"\\{character}" for character in "&%$#_{}"} | {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
}


class WholeTable(pd.DataFrame):
    """A DataFrame that prints whole, however narrow the terminal; parts of it are plain ones.

    Attributes:
        in_cells: From such a table to the text cells in which people read it; None if numbers are
            shown as they are. The table itself is for code.
    """

    _metadata: ClassVar[list[str]] = ["in_cells", "_columns_shown"]
    in_cells: Callable[[pd.DataFrame], pd.DataFrame] | None = None
    _columns_shown: tuple[str, ...] = ()

    @classmethod
    def shown(
        cls, table: pd.DataFrame, in_cells: Callable[[pd.DataFrame], pd.DataFrame]
    ) -> WholeTable:
        """A table that is shown by its text cells, until its columns are changed."""
        whole = cls(table)
        whole.in_cells, whole._columns_shown = in_cells, tuple(table.columns)
        return whole

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return pd.DataFrame

    def _cells(self) -> pd.DataFrame | None:
        known = self.in_cells is not None and tuple(self.columns) == self._columns_shown
        return self.in_cells(self) if known and self.in_cells is not None else None

    def __repr__(self) -> str:
        cells = self._cells()
        if cells is not None:
            return cells.to_string(index=False)
        return self.to_string(index=False, float_format="{:.4g}".format)

    def _repr_html_(self) -> str | None:
        cells = self._cells()
        if cells is None:
            return super()._repr_html_()  # type: ignore[misc]
        return html.frame(cells)


def as_cells(
    table: pd.DataFrame, meta: Mapping[str, str], metrics: Iterable[MetricLaw] = ()
) -> pd.DataFrame:
    """The table as text cells, with intervals in columns of their own.

    Args:
        table: What `chinchilla_table` returns.
        meta: The metadata of the result: `data_unit` and `size_param` name columns.
        metrics: The laws of its metrics.
    """
    unit = meta.get("data_unit", "tokens")
    columns: dict[str, list[str]] = {
        "C, FLOPs": [number_text.flops(C) for C in table["compute_budget"]],
        "N, parameters": [number_text.count(N) for N in table["num_params"]],
        f"N, {INTERVAL}": intervals(table, "num_params", number_text.count),
        f"D, {unit}": [number_text.count(D) for D in table["num_tokens"]],
        f"D, {INTERVAL}": intervals(table, "num_tokens", number_text.count),
        "D / N": [number_text.ratio(ratio) for ratio in table["tokens_per_param"]],
        "loss": [number_text.loss(L) for L in table["loss"]],
        f"loss, {INTERVAL}": intervals(table, "loss", number_text.loss),
    }
    for law in metrics:
        if law.column in table:
            columns[law.name] = [number_text.loss(value) for value in table[law.column]]
            columns[f"{law.name}, {INTERVAL}"] = metric_intervals(table, law.column)
    if "learning_rate" in table:
        columns["learning rate"] = [number_text.ratio(rate) for rate in table["learning_rate"]]
    if "batch_size" in table:
        columns["batch, examples"] = [f"{batch:,.0f}" for batch in table["batch_size"]]
    if table["size"].notna().any():
        columns[meta.get("size_param", "size")] = [_size(size) for size in table["size"]]
    columns["C / largest"] = [number_text.times(factor) for factor in table["extrapolation"]]
    return pd.DataFrame(columns)


def as_cells_of(findings: Findings) -> Callable[[pd.DataFrame], pd.DataFrame]:
    """From a table of predictions to its text cells, for one result."""
    return partial(as_cells, meta=findings.meta, metrics=tuple(findings.metrics.values()))


def to_markdown(cells: pd.DataFrame) -> str:
    """Text cells as a table of Markdown."""
    right = ["right"] * len(cells.columns)
    text: str = cells.to_markdown(index=False, disable_numparse=True, colalign=right)
    return text


def losses_as_cells(losses: pd.DataFrame, meta: Mapping[str, str]) -> pd.DataFrame:
    """The losses of given models as text cells.

    Args:
        losses: What `predict_losses` returns.
        meta: The metadata of the result: `data_unit` names a column.
    """
    columns: dict[str, list[str]] = {
        "N, parameters": [number_text.count(N) for N in losses["num_params"]],
        f"D, {meta.get('data_unit', 'tokens')}": [
            number_text.count(D) for D in losses["num_tokens"]
        ],
        "loss": [number_text.loss(L) for L in losses["loss"]],
        f"loss, {INTERVAL}": intervals(losses, "loss", number_text.loss),
        f"one run, {INTERVAL}": intervals(losses, "run", number_text.loss),
    }
    return pd.DataFrame(columns)


def to_latex(findings: Findings, compute_budgets: ArrayLike | None = None) -> str:
    """The table as LaTeX for the package `booktabs`: see `Result.to_latex`."""
    wanted = chinchilla_table(findings, compute_budgets)
    table = as_cells(wanted, findings.meta, findings.metrics.values())
    headings = {name: _escaped(name) for name in table.columns}
    name = findings.meta.get("name", "")
    caption = "What to train for each budget" + (f": {_escaped(name)}." if name else ".")
    latex: str = (
        table.rename(columns=headings)
        .style.format(escape="latex")
        .hide(axis="index")
        .to_latex(
            hrules=True,
            column_format="r" * len(headings),
            caption=f"{caption} Intervals at 95 \\%.",
            position_float="centering",
        )
    )
    return latex


def _escaped(text: str) -> str:
    """Text with the characters that are special in LaTeX replaced."""
    return "".join(LATEX_SPECIAL.get(character, character) for character in text)


def intervals(table: pd.DataFrame, name: str, form: NumberFormat) -> list[str]:
    """The 95 % intervals of a quantity of a table, as text."""
    ends = zip(table[f"{name}_low"], table[f"{name}_high"], strict=True)
    return [number_text.between(low, high, form) for low, high in ends]


def metric_intervals(table: pd.DataFrame, name: str) -> list[str]:
    """The 95 % intervals of a metric, as text; "not known" where there is none."""
    texts = intervals(table, name, number_text.loss)
    return [text or number_text.NOT_KNOWN for text in texts]


def _size(size: object) -> str:
    if size is None or size != size:  # NaN
        return ""
    return f"{size:.4g}" if isinstance(size, float) else str(size)
