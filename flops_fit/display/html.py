"""Small tables as HTML for notebooks. All text is escaped; colours suit light and dark themes."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from html import escape

import pandas as pd

LONG = 30  # longer cells may be broken
# Okabe and Ito (2008), as in the plots; both are legible on white and on black.
EDGES = {"refuse": "#D55E00", "warn": "#E69F00", "note": "#999999"}


def block(lines: Iterable[str], *parts: str) -> str:
    """Lines of text, and HTML below them."""
    head = "<br>".join(map(escape, lines))
    return f"<div><p>{head}</p>{''.join(parts)}</div>"


def frame(table: pd.DataFrame) -> str:
    """A table of text cells, with its heads and without an index."""
    return _table(table.astype(str).to_numpy().tolist(), list(map(str, table.columns)), left=())


def rows(cells: Sequence[Sequence[str]], head: Sequence[str] = ()) -> str:
    """A table whose first column holds names, and the others numbers.

    Args:
        cells: The rows.
        head: Heads of the columns; none if empty.
    """
    return _table(cells, head, left=(0,))


def facts(named: Sequence[tuple[str, str]]) -> str:
    """Names, and a text for each."""
    return _table(named, (), left=(0, 1))


def _table(cells: Sequence[Sequence[str]], head: Sequence[str], left: Container[int]) -> str:
    def row(tag: str, texts: Sequence[str]) -> str:
        return "".join(_cell(tag, text, left=i in left) for i, text in enumerate(texts))

    top = f"<thead><tr>{row('th', head)}</tr></thead>" if head else ""
    body = "".join(f"<tr>{row('td', texts)}</tr>" for texts in cells)
    return f'<table class="dataframe">{top}<tbody>{body}</tbody></table>'


def remarks(found: Iterable[tuple[str, str, str]]) -> str:
    """Remarks, one below the other, with an edge whose colour tells how serious each is.

    Args:
        found: Severity ("refuse", "warn" or "note"), message and advice of each.
    """
    return "".join(
        f'<div style="border-left:4px solid {EDGES[severity]};padding:1px 8px;margin:4px 0">'
        f"<b>{escape(severity)}</b> {escape(message)}"
        + (f" <i>{escape(advice)}</i>" if advice else "")
        + "</div>"
        for severity, message, advice in found
    )


def _cell(tag: str, text: str, *, left: bool) -> str:
    style = f"text-align:{'left' if left else 'right'}"
    if len(text) <= LONG:
        style += ";white-space:nowrap"  # an interval stays in one line
    return f'<{tag} style="{style}">{escape(text)}</{tag}>'
