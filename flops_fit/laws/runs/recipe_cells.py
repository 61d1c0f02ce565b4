"""The runs that tell which learning rate and batch are best: those of pilots and checks."""

from __future__ import annotations

import pandas as pd

COLUMNS = (
    "compute_budget", "num_params", "num_tokens", "learning_rate", "batch_size", "loss",
)  # fmt: skip
ENDED = ("complete", "diverged")


def recipe_cells(runs: pd.DataFrame) -> pd.DataFrame:
    """The cells of pilots and checks, with the sweep's own runs where a check was made around them.

    Args:
        runs: A table of runs with the columns of `Run`.

    Returns:
        One row a run with `COLUMNS`; the loss is NaN where it diverged.
    """
    ended = runs[runs["state"].isin(ENDED)]
    checked = ended[ended["role"] == "check"]
    places = pd.MultiIndex.from_frame(checked[["compute_budget", "num_params"]].drop_duplicates())
    at_check = pd.MultiIndex.from_frame(ended[["compute_budget", "num_params"]]).isin(places)
    cells = ended[(ended["role"] == "pilot") | at_check]
    return cells[list(COLUMNS)].reset_index(drop=True).astype(float)
