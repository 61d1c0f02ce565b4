"""`flops-fit suggest`: the runs to make next, as a table, as CSV and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from flops_fit.cli import as_json as shown_as_json
from flops_fit.display import number_text
from flops_fit.errors import ArgumentError
from flops_fit.laws.check import counted
from flops_fit.laws.design.next_runs import IN_WORDS
from flops_fit.laws.design.suggest import suggest
from flops_fit.runtime.atomic_write import atomic_write

DIGITS = "%.10g"  # of numbers in the file


def suggest_runs(path: Path, asked: Mapping[str, Any], out: Path | None, as_json: bool) -> None:
    """Print the runs to make next, and write them to a file if one is named.

    Args:
        path: The table of runs.
        asked: Arguments of `flops_fit.suggest`.
        out: The file.
        as_json: Print JSON.
    """
    if out is not None and not out.absolute().parent.is_dir():
        raise ArgumentError(f"out: no such folder: {out.absolute().parent}")
    found = suggest(path, **asked)
    if asked["candidates"] is not None:  # rows count from 0
        found = found.rename_axis("row").reset_index()
    if out is not None:
        atomic_write(out, found.to_csv(index=False, float_format=DIGITS))
    if as_json:
        print(shown_as_json.dumps({**asked, "runs": found}))
        return
    print(as_cells(found).to_string(index=False))
    print()
    print(_summary(found, asked))


def as_cells(found: pd.DataFrame) -> pd.DataFrame:
    """Suggested runs as text cells."""
    columns = {"row": [str(row) for row in found["row"]]} if "row" in found else {}
    return pd.DataFrame(
        columns
        | {
            "C, FLOPs": [number_text.flops(C) for C in found["compute_budget"]],
            "N, parameters": [number_text.count(N) for N in found["num_params"]],
            "D, tokens": [number_text.count(D) for D in found["num_tokens"]],
            "gain": [number_text.percent(gain) for gain in found["gain"]],
            "why": found["why"],
        }
    )


def _summary(found: pd.DataFrame, asked: Mapping[str, Any]) -> str:
    """What the runs cost together, and what they will tell."""
    narrower = number_text.percent(1 - float(np.prod(1 - found["gain"].to_numpy(float))))
    return (
        f"{counted(len(found), 'run')} of {number_text.flops(found['flops'].sum())} FLOPs narrow "
        f"the interval of {IN_WORDS[asked['aim']]} at {number_text.flops(asked['target'])} FLOPs "
        f"by about {narrower}."
    )
