"""Small tables as HTML for notebooks. All text is escaped; colours suit light and dark themes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

import pandas as pd

# Okabe and Ito (2008), as in the plots; both are legible on white and on black.
EDGES = {"refuse": "#D55E00", "warn": "#E69F00", "note": "#999999"}


def block(lines: Iterable[str], *parts: str) -> str:
    """Lines of text, and HTML below them."""
    head = "<br>".join(map(escape, lines))
    return f"<div><p>{head}</p>{''.join(parts)}</div>"


def frame(table: pd.DataFrame) -> str:
    """A table of text cells, with its heads and without an index."""
    html: str = table.to_html(index=False, escape=True)
    return html


def rows(cells: Sequence[Sequence[str]], head: Sequence[str] = ()) -> str:
    """A table whose first column holds names.

    Args:
        cells: The rows.
        head: Heads of the columns; none if empty.
    """
    heads = "".join(_cell("th", text, left=i == 0) for i, text in enumerate(head))
    body = "".join(
        f"<tr>{''.join(_cell('td', text, left=i == 0) for i, text in enumerate(row))}</tr>"
        for row in cells
    )
    top = f"<thead><tr>{heads}</tr></thead>" if head else ""
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
    side = "left" if left else "right"
    return f'<{tag} style="text-align:{side}">{escape(text)}</{tag}>'
