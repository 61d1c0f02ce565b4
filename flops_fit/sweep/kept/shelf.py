"""Shelf: where a worker puts the weights of a trained model, until it is known which are kept.

Which model is the best of its budget is known once all sizes of the budget have been trained. So a
worker puts weights into a folder beside the checkpoints before it records the trial as done.
Losers are deleted as soon as the ledger has a better model of their budget. At the end of the sweep
what is left is logged to MLflow, and deleted here after that. At each moment the weights of the
best model so far are in one of the two places.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path

from filelock import FileLock, Timeout

from flops_fit.display.notebook import tell
from flops_fit.display.number_text import flops
from flops_fit.errors import StoreError
from flops_fit.records import Run, Trial
from flops_fit.sweep.kept.weights import SUFFIX, Note, read_note
from flops_fit.sweep.task.hashing import digest
from flops_fit.tracking.ledger import Ledger
from flops_fit.tracking.logged_models import kept_models, log_model, mark_best
from flops_fit.warn import warn_user

WEIGHTS = "model.safetensors"  # a file of a logged model; a stored name
_LOCK_TIMEOUT_S = 600.0
_REFUSED = "/:.%\"'"  # characters that names of MLflow's models must not hold
_README = """\
The weights of a model that flops-fit has trained: a state dict as safetensors. To load it:

    import flops_fit
    model = flops_fit.load_model({name}, {budget:.6g}, name={sweep!r})

or, without flops-fit:

    from safetensors.torch import load_file
    model = {name}({arguments})
    model.load_state_dict(load_file("{weights}"))
"""


@dataclass(frozen=True)
class Shelf:
    """The weights of one sweep that are not in MLflow yet.

    Attributes:
        ledger: The sweep.
        setting: Hash of what all trials share.
        folder: Where the files lie.
        keep: `Recipe.keep_models`.
    """

    ledger: Ledger
    setting: str
    folder: Path
    keep: str | None

    def file_for(self, trial: Trial, code: str) -> Path | None:
        """Where the weights of a trial are to be put; None if they are not kept.

        Args:
            trial: The trial.
            code: Hashes of the source of model, loss and data.
        """
        if self.keep is None or trial.role != "sweep":
            return None
        return self._file(trial.trial_id, code)

    def drop_losers(self, runs: Iterable[Run]) -> None:
        """Delete the weights that are not to be kept, given one run for each trial."""
        complete = _of_sweep(runs)
        kept = {self._file(run.trial_id, run.code) for run in self._wanted(complete)}
        trained = {run.trial_id for run in complete}
        for file in self._files():
            if file not in kept and file.name.partition("-")[0] in trained:
                file.unlink(missing_ok=True)

    def log(
        self,
        runs: Iterable[Run],
        planned: Iterable[str],
        before_each: Callable[[], object] = lambda: None,
    ) -> None:
        """Log the models that are kept to MLflow; warns of what could not be logged.

        Args:
            runs: One run for each trial of the setting.
            planned: Ids of the planned trials.
            before_each: Called before each model.
        """
        if self.keep is None and not self._files():
            return
        runs = _of_sweep(runs)
        try:
            with FileLock(self._lock_file(), timeout=_LOCK_TIMEOUT_S, mode=0o600):
                missing = self._log(runs, before_each)
            self.drop_losers(runs)
        except (StoreError, OSError, Timeout) as error:
            warn_user(
                f"models that are to be kept could not be logged; their weights stay in "
                f"{self.folder} and are logged by the next call: {error}"
            )
            return
        ids = set(planned)
        if lacking := [run for run in missing if run.trial_id in ids]:
            budgets = ", ".join(flops(run.compute_budget) for run in lacking)
            warn_user(
                f"the weights of the models at C={budgets} are not here: they were trained before "
                "keep_models was set, or on another machine, whose worker logs them when it leaves"
            )

    def _log(self, runs: Sequence[Run], before_each: Callable[[], object]) -> list[Run]:
        """Log what is wanted and not there yet; returns the runs whose weights are not here."""
        logged = {model.run_id: model for model in kept_models(self.ledger)}
        best = {run.run_id for run in _best(runs)}
        missing, num_logged = [], 0
        for run in self._wanted(runs):
            file = self._file(run.trial_id, run.code)
            if run.run_id not in logged:
                note = read_note(file)
                if note is None:
                    missing.append(run)
                    continue
                before_each()
                self._log_one(run, file, note, is_best=run.run_id in best)
                num_logged += 1
            file.unlink(missing_ok=True)
        for model in logged.values():
            is_best = model.run_id in best
            if model.setting == self.setting and model.is_best != is_best:
                mark_best(self.ledger, model.model_id, is_best=is_best)
        if num_logged:
            models = "the model" if num_logged == 1 else f"{num_logged} models"
            tell(f"logged {models} to MLflow; flops_fit.load_model(...) loads one")
        return missing

    def _log_one(self, run: Run, file: Path, note: Note, *, is_best: bool) -> None:
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".") as name:
            folder = Path(name)
            try:
                os.link(file, folder / WEIGHTS)
            except OSError:  # a file system without links
                shutil.copyfile(file, folder / WEIGHTS)
            (folder / "README.md").write_text(self._readme(run, note), encoding="utf-8")
            fields = {"weights": WEIGHTS, **asdict(note)}
            title = _title(run, note)
            log_model(self.ledger, run, self.setting, folder, fields, title, is_best=is_best)

    def _readme(self, run: Run, note: Note) -> str:
        arguments = {note.size_param: note.size, **note.model_kwargs}
        written = [f"{key}={value!r}" for key, value in arguments.items()]
        written += [f"{key}=..." for key in note.not_plain]
        return _README.format(
            name=note.model.rpartition(".")[2],
            budget=run.compute_budget,
            sweep=self.ledger.name,
            arguments=", ".join(written),
            weights=WEIGHTS,
        )

    def _wanted(self, runs: Sequence[Run]) -> list[Run]:
        return list(runs) if self.keep == "all" else _best(runs)

    def _file(self, trial_id: str, code: str) -> Path:
        return self.folder / f"{trial_id}-{digest(code)[:8]}{SUFFIX}"

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"[!.]*{SUFFIX}"))

    def _lock_file(self) -> Path:
        self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder.mkdir(mode=0o700, exist_ok=True)
        return self.folder / ".lock"


def _of_sweep(runs: Iterable[Run]) -> list[Run]:
    """The finished runs that belong to rows, not to the search for the recipe."""
    return [run for run in runs if run.state == "complete" and run.role == "sweep"]


def _best(runs: Iterable[Run]) -> list[Run]:
    """The run with the least held-out loss of each budget."""
    best: dict[float, Run] = {}
    for run in runs:
        known = best.get(run.compute_budget)
        if known is None or run.loss < known.loss:
            best[run.compute_budget] = run
    return list(best.values())


def _title(run: Run, note: Note) -> str:
    """The name of a model in MLflow: size and budget, without a decimal point."""
    number = Decimal(f"{run.compute_budget:.3g}").normalize()
    _, digits, exponent = number.as_tuple()
    title = f"{note.size_param}={note.size} C={''.join(map(str, digits))}e{exponent}"
    return "".join("_" if character in _REFUSED else character for character in title)
