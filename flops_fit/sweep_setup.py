"""flops_fit.sweep_setup."""

from __future__ import annotations

import platform
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path

import torch
from torch.utils.data import Subset

from flops_fit import store, tracking
from flops_fit.errors import ArgumentError, FlopsFitWarning, StoreError, SweepError
from flops_fit.prepare import _grid, _meta, _name
from flops_fit.report import plan_text
from flops_fit.runtime import distributed
from flops_fit.sweep.data.source import Strided
from flops_fit.sweep.execution import status
from flops_fit.sweep.execution import trial_queue as dispatch
from flops_fit.sweep.execution.job import Job
from flops_fit.sweep.plan.grid import Grid
from flops_fit.sweep.plan.planner import Planned
from flops_fit.sweep.task.hashing import qualified_name
from flops_fit.sweep.task.source_code import code_of
from flops_fit.sweep.task.task import Task
from flops_fit.tracking import mlflow_project
from flops_fit.tracking.ledger import Ledger
from flops_fit.version import __version__


def open_job(
    task: Task,
    planned: Planned,
    name: str | None = None,
    tracking_uri: str | PathLike[str] | None = None,
    storage: str | None = None,
) -> Job:
    """What workers need to run a plan; its ledger is made where it is missing.

    Raises:
        SweepError: If the store cannot be used.
    """
    ledger = distributed.from_main(lambda: _open_ledger(planned, name, tracking_uri))
    return _job(task, planned, ledger, storage)


def join_job(
    task: Task,
    planned: Planned,
    name: str | None = None,
    tracking_uri: str | PathLike[str] | None = None,
    storage: str | None = None,
) -> Job:
    """The job of a sweep that another process drives; nothing is written.

    A driver that was started in the same moment is waited for.

    Raises:
        ArgumentError: The sweep's latest plan is another than this one.
        SweepError: There is no such sweep, or no study of it in the storage.
    """

    def find() -> Job:
        job = _job(task, planned, _joined_ledger(planned, name, tracking_uri), storage)
        if not dispatch.study_exists(job.study_name, job.storage):
            raise SweepError(
                f"{store.without_credentials(job.storage)} holds no study of the sweep "
                f"{job.ledger.name!r}: pass storage= as the sweep's driver has it"
            )
        return job

    ledger = distributed.from_main(lambda: _once_begun(find).ledger)
    return _job(task, planned, ledger, storage)


def _once_begun(find: Callable[[], Job]) -> Job:
    deadline = time.monotonic() + status.BEGIN_S
    told = False
    while True:
        try:
            return find()
        except StoreError:
            raise
        except (ArgumentError, SweepError):
            if time.monotonic() > deadline:
                raise
        if not told:
            print(f"Waiting {status.BEGIN_S:g} s for the sweep to begin", file=sys.stderr)
        told = True
        time.sleep(status.PAUSE_S)


def _job(task: Task, planned: Planned, ledger: Ledger, storage: str | None) -> Job:
    return Job(
        task=task,
        trials=planned.plan.trials,
        recipe=planned.plan.recipe,
        ledger=ledger,
        storage=dispatch.storage_url(ledger.home, storage),
        setting=planned.plan.setting,
        params=_run_params(planned),
        checkpoints=(ledger.home or Path("mlruns").absolute()) / "checkpoints",
        code=code_of(task),
        note=_description(planned.plan),
    )


def _open_ledger(
    planned: Planned, name: str | None, tracking_uri: str | PathLike[str] | None
) -> Ledger:
    ledger = tracking.open_ledger(_name(name, planned.plan, tracking_uri), tracking_uri)
    _say_what_changed(ledger, _meta(planned))
    meta = {**_meta(planned), "plan": _grid(planned.plan), "versions": _versions()}
    tracking.write_meta(ledger, meta, _description(planned.plan))
    tracking.log_dataset(ledger, *_data_in_words(planned))
    mlflow_project.nest_under_project_run(ledger)
    return ledger


def _data_in_words(planned: Planned) -> tuple[str, str, dict[str, int | None]]:
    """Name, fingerprint and size of the training data."""
    source = planned.source
    data = source.train.dataset if isinstance(source.train, Subset | Strided) else source.train
    size = {"num_examples": source.num_examples, f"num_{source.unit}": source.num_tokens}
    return qualified_name(type(data)), source.fingerprint, size


def _joined_ledger(
    planned: Planned, name: str | None, tracking_uri: str | PathLike[str] | None
) -> Ledger:
    ledger = tracking.find_ledger(_name(name, planned.plan, tracking_uri), tracking_uri)
    theirs, ours = tracking.read_meta(ledger), _meta(planned)
    if theirs.get("setting") == ours["setting"] and theirs.get("plan") == _grid(planned.plan):
        return ledger
    differ = [
        f"{key}: {_without(theirs[key], ours[key])} there, {_without(ours[key], theirs[key])} here"
        for key in ours
        if key != "setting" and theirs.get(key, ours[key]) != ours[key]
    ]
    what = "budgets, sizes, seed or learning rates"
    if theirs.get("setting") != ours["setting"]:
        what = "what model, data or loss were given"
    raise ArgumentError(
        differ or [f"{what} differ"],
        f"the sweep {ledger.name!r} runs another plan; give a worker what its driver was given:",
    )


def _without(text: str, other: str) -> str:
    """Of a list of fields those that the other has not."""
    return ", ".join(part for part in text.split(", ") if part not in other.split(", "))


def _versions() -> str:
    return (
        f"trained with flops-fit {__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}"
    )


def _say_what_changed(ledger: tracking.Ledger, meta: Mapping[str, str]) -> None:
    """Runs of another setting are not fitted together with new ones: nobody should wonder."""
    before = tracking.read_meta(ledger)
    if before.get("setting", meta["setting"]) == meta["setting"]:
        return
    changed = [key for key in meta if before.get(key) != meta[key] and key != "setting"]
    warnings.warn(
        f"sweep {ledger.name!r}: since its last call something changed "
        f"({', '.join(changed) or 'what the model, data or loss were given'}), so its earlier runs "
        "stay in the store but take no part; pass another name= to keep the two apart",
        FlopsFitWarning,
        stacklevel=7,  # the call of find_optimal
    )


def _run_params(planned: Planned) -> dict[str, str]:
    return {
        **_meta(planned),
        "tokens_per_example": str(planned.plan.tokens_per_example),
        "flops_fit_version": __version__,
        "torch_version": torch.__version__,
        "python_version": platform.python_version(),
        "ranks": str(distributed.count()),
    }


def _description(plan: Grid) -> str:
    return f"```\n{plan_text.as_text(plan)}\n```"
