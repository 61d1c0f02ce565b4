"""What axes show, as plain data: points, bands and words, with their look.

`python tests/helpers/drawn.py` writes `drawn.json` anew; look at the plots before keeping it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex
from planted import LAW, runs

from flops_fit.laws.runs.simulate import simulate_isoflop
from flops_fit.report.plots.panels import PANELS, figures
from flops_fit.result import Result, fit

KEPT = Path(__file__).with_name("drawn.json")
MOST = 6


def result() -> Result:
    """A fit with all there is to draw: a run left out, a budget refused, an envelope."""
    right_side = simulate_isoflop(LAW, [1.8e13], num_sizes=9).iloc[5:]
    table = pd.concat([runs(), right_side], ignore_index=True)
    table = table.assign(trial_id=[f"t{i}" for i in range(len(table))])
    table.loc[20, "loss"] *= 1.2
    return fit(
        table, curves=curves_of(table), name="a $name$", meta={"data_unit": "words"}, num_draws=100
    )


def curves_of(table: pd.DataFrame) -> pd.DataFrame:
    """A falling curve of three points a run, the last where its schedule had ended."""
    rows = [
        {"trial_id": run.trial_id, "num_tokens": run.num_tokens * share, "loss": run.loss * more}
        for run in table.itertuples()
        for share, more in ((0.1, 1.3), (0.5, 1.1), (1.0, 1.0))
    ]
    return pd.DataFrame(rows).assign(ended=lambda points: points.index % 3 == 2)


def described(ax: Any) -> dict[str, Any]:
    """The axes' data: at most so many numbers of each artist, and their count."""
    legend = ax.get_legend()
    return {
        "x": [ax.get_xlabel(), ax.get_xscale(), _numbers(ax.get_xlim())],
        "y": [ax.get_ylabel(), ax.get_yscale(), _numbers(ax.get_ylim())],
        "ticks": [text.get_text() for text in ax.get_yticklabels()] if ax.get_yticks().size else [],
        "words": [text.get_text() for text in ax.texts],
        "lines": [_line(line) for line in ax.lines],
        "areas": [_area(area) for area in [*ax.collections, *ax.patches]],
        "legend": None if legend is None else _legend(legend),
    }


def flat(told: Any, at: str = "") -> dict[str, Any]:
    """Nested data as its leaves, by path."""
    if isinstance(told, dict | list):
        pairs = told.items() if isinstance(told, dict) else enumerate(told)
        return {k: v for key, part in pairs for k, v in flat(part, f"{at}/{key}").items()}
    return {at: told}


def _line(line: Any) -> dict[str, Any]:
    return {**_look(line), "x": _numbers(line.get_xdata()), "y": _numbers(line.get_ydata())}


def _look(line: Any) -> dict[str, Any]:
    face = line.get_markerfacecolor()
    return {
        "label": _label(line),
        "marker": str(line.get_marker()),
        "style": line.get_linestyle(),
        "colour": to_hex(line.get_color()),
        "face": face if isinstance(face, str) and face == "none" else to_hex(face),
    }


def _area(area: Any) -> dict[str, Any]:
    paths = area.get_paths() if hasattr(area, "get_paths") else [_corners(area)]
    corners = np.concatenate([path.vertices for path in paths] or [np.empty((0, 2))])
    edges = np.atleast_2d(area.get_edgecolor())
    return {
        "kind": type(area).__name__,
        "label": _label(area),
        "colour": [to_hex(c) for c in (*np.atleast_2d(area.get_facecolor())[:3], *edges[:3])],
        "levels": _numbers(getattr(area, "levels", [])),
        "x": _numbers(corners[:, 0]),
        "y": _numbers(corners[:, 1]),
    }


def _corners(patch: Any) -> Any:
    return patch.get_path().transformed(patch.get_patch_transform())


def _legend(legend: Any) -> list[Any]:
    lines = [h for h in legend.legend_handles if hasattr(h, "get_marker")]
    return [[text.get_text() for text in legend.get_texts()], [_look(line) for line in lines]]


def _label(artist: Any) -> str:
    label = str(artist.get_label())
    return "" if label.startswith("_") else label


def _numbers(values: Any) -> list[float | None]:
    """Their count, the ends of their range where they are many, and some of them."""
    all_of_them = np.asarray(values, float)
    finite = all_of_them[np.isfinite(all_of_them)]
    if not finite.size:
        return [float(all_of_them.size)]
    some = finite[np.linspace(0, len(finite) - 1, min(MOST, len(finite))).astype(int)]
    ends = [finite.min(), finite.max()] if len(finite) > MOST else []
    return [float(f"{v:.6g}") for v in (all_of_them.size, *ends, *some)]


def all_described() -> dict[str, Any]:
    """Every panel of the result, and of any colour bar beside it."""
    shown = figures(result().findings)
    assert list(shown) == [panel.name for panel in PANELS]
    return {name: [described(ax) for ax in figure.axes] for name, (_, figure) in shown.items()}


def as_text(told: dict[str, Any]) -> str:
    """JSON, a list of plain values a line."""
    inner = re.compile(r"\[[^\[\]{}]+\]")
    text = inner.sub(lambda found: " ".join(found[0].split()), json.dumps(told, indent=1))
    return text + "\n"


if __name__ == "__main__":
    KEPT.write_text(as_text(all_described()), encoding="utf-8")
