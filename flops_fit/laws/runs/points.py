"""`Points`: the columns of the runs that a law is fitted to."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from flops_fit.laws.model.arrays import Array


@dataclass(frozen=True)
class Points:
    """Runs as a fit sees them: columns of shape (n,), one entry per run.

    Attributes:
        N: Parameters.
        D: Tokens (or examples) seen in training.
        loss: Loss, in the unit of the loss.
        unique: Unique tokens among D; None where no run repeats data.
        clusters: Label of the group whose error the run shares; None for independent errors.
    """

    N: Array
    D: Array
    loss: Array
    unique: Array | None = None
    clusters: np.ndarray | None = None

    @classmethod
    def from_runs(cls, runs: pd.DataFrame) -> Points:
        """The points of a table with columns `num_params`, `num_tokens` and `loss`."""
        N, D, loss = (runs[name].to_numpy(float) for name in ("num_params", "num_tokens", "loss"))
        return cls(N, D, loss)

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def unique_tokens(self) -> Array:
        """Unique tokens of each run: `unique`, or all of D where no run repeats data."""
        return self.D if self.unique is None else self.unique

    def at(self, rows: np.ndarray) -> Points:
        """The points of some runs, chosen by a mask or by indices."""
        return replace(
            self,
            N=self.N[rows],
            D=self.D[rows],
            loss=self.loss[rows],
            unique=None if self.unique is None else self.unique[rows],
            clusters=None if self.clusters is None else self.clusters[rows],
        )
