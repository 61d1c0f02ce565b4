"""Records shared by all packages: a planned `Trial`, a `Run` of it, and what workers report.

Units: compute in FLOPs, data in *units* (tokens, or examples where a target holds one element),
loss in whatever the user's loss returns (nats for cross-entropy), time in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import pandas as pd

from flops_fit.display.number_text import flops, ratio

Size = int | float | str


@dataclass(frozen=True)
class Trial:
    """One planned grid point: a model of one size, trained on exactly `num_tokens`.

    Attributes:
        trial_id: Hash of everything that determines the result.
        compute_budget: The budget C of its row, in FLOPs.
        size: Value of the user's size parameter.
        size_index: Index in its budget's row, ascending in size.
        num_params: N, as the model's own `num_params()` counts.
        num_tokens: D, in tokens or examples (see `SweepPlan.data_unit`): steps x batch.
        flops: FLOPs that the trial will spend: `num_tokens` times FLOPs per token.
        steps: Optimiser steps.
        batch_size: Examples a step, over all processes.
        learning_rate: Peak learning rate.
        seed: Seed of initialisation, data order and dropout.
        lr_multiplier: `learning_rate` divided by the recipe's own learning rate.
        at_own_rate: Id of the trial that it is compared with, whose initialisation and data order
            it shares: at another rate, or in another sweep; empty if it has its own.
        added: Whether it was decided on while the sweep ran: by the pilot, the check, or because
            the loss of a row was least at its edge.
        padded_tokens: Expected D with padding and labels that do not count, where examples differ
            in length and FLOPs were measured on padded batches; else 0.
        role: "sweep", "pilot" (trained to find the recipe) or "check" (trained to check it).
    """

    trial_id: str
    compute_budget: float
    size: Size
    size_index: int
    num_params: int
    num_tokens: int
    flops: float
    steps: int
    batch_size: int
    learning_rate: float
    seed: int
    lr_multiplier: float = 1.0
    at_own_rate: str = ""
    added: bool = False
    padded_tokens: int = 0
    role: str = "sweep"

    @property
    def flops_per_token(self) -> float:
        """FLOPs for one unit of D."""
        return self.flops / self.num_tokens

    @property
    def length(self) -> tuple[float, int]:
        """What trials are sorted by to have the longest last.

        The trials of a budget spend the same FLOPs; of these, those of small models take longest,
        for they make more steps, and each step costs some time whatever its size.
        """
        return self.compute_budget, self.steps

    def label(self, size_param: str) -> str:
        """Size and budget for display, with the recipe where it is what is tried."""
        text = f"{size_param}={self.size} C={flops(self.compute_budget)}"
        if self.role != "sweep":
            return f"{self.role} {text} lr={ratio(self.learning_rate)} batch={self.batch_size}"
        return text if self.lr_multiplier == 1 else f"{text} lr x{self.lr_multiplier:g}"


@dataclass(frozen=True)
class Run:
    """The state and result of one trial: a row of `Result.runs`.

    Attributes:
        trial_id: Id of the trial.
        run_id: Id of its MLflow run.
        compute_budget: The budget C, in FLOPs.
        size: Value of the size parameter; None if not recorded.
        num_params: N.
        num_tokens: D, in tokens or examples.
        flops: FLOPs actually spent; NaN until the run is complete.
        loss: Held-out loss; NaN until the run is complete.
        wall_time_s: Seconds of training.
        seed: Seed of the sweep.
        state: One of `planned running complete failed diverged`.
        excluded: Why the fits do not use the run; empty if they do.
        steps: Optimiser steps.
        learning_rate: Peak learning rate.
        lr_multiplier: `learning_rate` divided by the recipe's own learning rate.
        epochs: Passes over the training data; NaN if its length is unknown.
        code: Hashes of the source of model, loss and data.
        role: "sweep", "pilot" (trained to find the recipe) or "check" (trained to check it).
        batch_size: Examples a step; NaN if not recorded.
        metrics: Other measures on held-out data, by name; columns `eval_<name>` of the table.
    """

    trial_id: str
    run_id: str
    compute_budget: float
    size: Size | None
    num_params: float
    num_tokens: float
    flops: float
    loss: float
    wall_time_s: float
    seed: int
    state: str
    excluded: str = ""
    steps: float = math.nan
    learning_rate: float = math.nan
    lr_multiplier: float = 1.0
    epochs: float = math.nan
    code: str = ""
    role: str = "sweep"
    batch_size: float = math.nan
    metrics: Mapping[str, float] = field(default_factory=dict, hash=False)


ROLES = ("sweep", "pilot", "check")
RUN_COLUMNS: tuple[str, ...] = tuple(
    column.name for column in fields(Run) if column.name != "metrics"
)
# Older versions wrote tables without the last two.
FIRST_RUN_COLUMNS = RUN_COLUMNS[: RUN_COLUMNS.index("role")]
TRIAL_COLUMNS: tuple[str, ...] = tuple(column.name for column in fields(Trial))
# What the name of a metric has before it, in the ledger and in a table of runs.
METRIC_PREFIX = "eval_"


def to_frame(records: Iterable[Trial | Run], columns: tuple[str, ...]) -> pd.DataFrame:
    """Records as a DataFrame with the given columns, in the given order."""
    rows: list[dict[str, Any]] = [asdict(record) for record in records]
    return pd.DataFrame(rows, columns=list(columns))


@dataclass(frozen=True)
class Event:
    """A worker's report on the progress or the end of a trial.

    Attributes:
        trial_id: Id of the trial.
        label: The trial's budget and size, for display.
        flops: FLOPs spent on it so far.
        loss: Training loss so far, or the held-out loss at the end.
        state: "running", "resumed", or the state in which it ended.
        tokens_per_second: Units of D trained on per second.
    """

    trial_id: str
    label: str
    flops: float
    loss: float
    state: str = "running"
    tokens_per_second: float = math.nan


Listener = Callable[[Event], None]


@dataclass(frozen=True)
class Skipped:
    """A grid point that was not planned, and why.

    Attributes:
        compute_budget: The budget in FLOPs; NaN if the size was refused at all budgets.
        size: Value of the size parameter.
        reason: Why, as a phrase for display.
    """

    compute_budget: float
    size: Size
    reason: str
