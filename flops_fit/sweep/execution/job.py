"""`Job`: everything that a worker needs to run the trials of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flops_fit.records import Trial
from flops_fit.store.uri import without_credentials
from flops_fit.sweep.devices.device import Packing
from flops_fit.sweep.kept.shelf import Shelf
from flops_fit.sweep.task.hashing import digest
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.recipe import Recipe
from flops_fit.tracking.ledger import Ledger


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know; sent by cloudpickle over the caller's own channel.

    Attributes:
        task: The user's model, data and loss.
        trials: The planned trials.
        recipe: How they train.
        ledger: Where runs are recorded.
        storage: Optuna storage URL of the study.
        setting: Hash of what all trials share.
        params: What is written on every run beside the trial's own fields.
        checkpoints: Folder of the checkpoints of unfinished trials.
        code: Hashes of the source of model, loss and data.
        note: The plan as the parent run's description shows it.
        size_param: Name of the size parameter.
        data_unit: What D counts: "tokens" or "examples".
        num_examples: Examples in the training data; None if unknown.
        plan: Hash of the plan, before it has grown.
        to_come: FLOPs expected beyond the trials known now, of a sweep that grows.
        longest_first: Whether the longest trial is trained first, as several workers do.
        packing: What trials take of a device, where several workers share one; else None.
        seconds_between_events: Least time between two events of a trial.
    """

    task: Task
    trials: tuple[Trial, ...]
    recipe: Recipe
    ledger: Ledger
    storage: str
    setting: str
    params: dict[str, str]
    checkpoints: Path
    code: str = ""
    note: str = ""
    size_param: str = "size"
    data_unit: str = "tokens"
    num_examples: int | None = None
    plan: str = ""
    to_come: float = 0.0
    longest_first: bool = False
    packing: Packing | None = None
    seconds_between_events: float = 0.2

    @property
    def study_name(self) -> str:
        """Name of the Optuna study: one per sweep and setting."""
        return f"{self.ledger.name} {self.setting}"

    @property
    def journal_folder(self) -> Path:
        """Folder of the records that the ledger lacks: one per sweep, beside the checkpoints.

        Its name holds the store's first address, so that records move with the store.
        """
        return self._beside_checkpoints("spool")

    @property
    def shelf(self) -> Shelf:
        """Where the weights of trained models are put."""
        folder = self._beside_checkpoints("weights")
        return Shelf(self.ledger, self.setting, folder, self.recipe.keep_models)

    def _beside_checkpoints(self, name: str) -> Path:
        uri = without_credentials(self.ledger.first_uri)
        return self.checkpoints.parent / name / digest([uri, self.ledger.experiment_id])

    @property
    def claims_folder(self) -> Path:
        """Folder of the claims on the devices of each host."""
        return self.checkpoints.parent / "devices"

    @property
    def trial_ids(self) -> set[str]:
        """Ids of the planned trials."""
        return {trial.trial_id for trial in self.trials}
