"""From what the user passed to a `Job`: checked, planned, and met by its ledger."""

from __future__ import annotations

import platform
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Subset

from flops_fit import projects, store, tracking
from flops_fit.errors import ArgumentError, FlopsFitWarning, StoreError, SweepError
from flops_fit.records import Size
from flops_fit.sweep import ranks, standing
from flops_fit.sweep import study as dispatch
from flops_fit.sweep.code import code_of
from flops_fit.sweep.flops import FlopsConvention
from flops_fit.sweep.grid import SweepPlan
from flops_fit.sweep.plan import Planned, make_plan
from flops_fit.sweep.recipe import Recipe
from flops_fit.sweep.source import Strided
from flops_fit.sweep.task import Task, digest, qualified_name
from flops_fit.sweep.worker import Job
from flops_fit.tracking import Ledger
from flops_fit.version import __version__


def prepare(
    task: Task,
    compute_budgets: Iterable[float] | None,
    *,
    sizes: Sequence[Size] | None = None,
    recipe: Recipe | None = None,
    flops: FlopsConvention = "measured",
    seed: int = 0,
    name: str | None = None,
    tracking_uri: str | PathLike[str] | None = None,
    workers: int | str = 1,
    executor: Any = None,
    on_code_change: str = "warn",
) -> Planned:
    """Check everything that `flops_fit.find_optimal` was given, and plan; nothing is written.

    Raises:
        ArgumentError: Listing everything that is wrong with the arguments.
        InfeasiblePlanError: If no budget can be planned.
    """
    ranks.let_main_speak()
    faults = _launch_faults(workers, executor, name, tracking_uri)
    if on_code_change not in ("warn", "error", "rerun"):
        faults.append(
            f"on_code_change: expected 'warn', 'error' or 'rerun', got {on_code_change!r}"
        )
    planned = make_plan(
        task, compute_budgets, sizes=sizes, recipe=recipe, flops=flops, seed=seed, faults=faults
    )
    _meet(planned.plan)
    return planned


def plan_only(
    task: Task,
    compute_budgets: Iterable[float] | None,
    *,
    sizes: Sequence[Size] | None = None,
    recipe: Recipe | None = None,
    flops: FlopsConvention = "measured",
    seed: int = 0,
    name: str | None = None,
    tracking_uri: str | PathLike[str] | None = None,
) -> SweepPlan:
    """Plan, and go no further: other ranks are not met.

    Which trials are done is looked up where a name or a store is given; a store that cannot be
    used is warned of.

    Raises:
        ArgumentError: Listing everything that is wrong with the arguments.
        InfeasiblePlanError: If no budget can be planned.
    """
    ranks.let_main_speak()
    plan = make_plan(
        task,
        compute_budgets,
        sizes=sizes,
        recipe=recipe,
        flops=flops,
        seed=seed,
        faults=_store_faults(name, tracking_uri),
    ).plan
    if name is None and tracking_uri is None:
        return plan
    try:
        return replace(plan, done=_ended(plan, name, tracking_uri))
    except StoreError as error:
        told = f"which trials are done already is not known: {error}"
        warnings.warn(told, FlopsFitWarning, stacklevel=3)  # the call of plan_sweep
        return plan


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
    ledger = ranks.from_main(lambda: _open_ledger(planned, name, tracking_uri))
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

    ledger = ranks.from_main(lambda: _once_begun(find).ledger)
    return _job(task, planned, ledger, storage)


def _once_begun(find: Callable[[], Job]) -> Job:
    deadline = time.monotonic() + standing.BEGIN_S
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
            print(f"Waiting {standing.BEGIN_S:g} s for the sweep to begin", file=sys.stderr)
        told = True
        time.sleep(standing.PAUSE_S)


def flops_to_come(
    planned: Planned, name: str | None = None, tracking_uri: str | PathLike[str] | None = None
) -> float:
    """FLOPs of the planned trials that have not ended yet; nothing is written.

    Raises:
        StoreError: If the store cannot be used.
    """
    ended = _ended(planned.plan, name, tracking_uri)
    return sum(trial.flops for trial in planned.plan.trials if trial.trial_id not in ended)


def _ended(
    plan: SweepPlan, name: str | None, tracking_uri: str | PathLike[str] | None
) -> frozenset[str]:
    """Ids of the planned trials that have a loss, or have diverged."""
    try:
        ledger = tracking.find_ledger(_name(name, plan, tracking_uri), tracking_uri)
    except StoreError:
        raise
    except SweepError:  # not begun
        return frozenset()
    runs = tracking.fetch_runs(ledger, plan.setting)
    ended = {run.trial_id for run in runs if run.state in tracking.ENDED}
    return frozenset(trial.trial_id for trial in plan.trials if trial.trial_id in ended)


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


def _name(
    name: str | None, plan: SweepPlan, tracking_uri: str | PathLike[str] | None = None
) -> str:
    """As asked, else that of the experiment `mlflow run` was given, else the model class's."""
    own = plan.model_name.rpartition(".")[2]
    return name or projects.project_experiment(tracking_uri) or own


def _open_ledger(
    planned: Planned, name: str | None, tracking_uri: str | PathLike[str] | None
) -> Ledger:
    ledger = tracking.open_ledger(_name(name, planned.plan, tracking_uri), tracking_uri)
    _say_what_changed(ledger, _meta(planned))
    meta = {**_meta(planned), "plan": _grid(planned.plan), "versions": _versions()}
    tracking.write_meta(ledger, meta, _description(planned.plan))
    tracking.log_dataset(ledger, *_data_in_words(planned))
    projects.nest_under_project_run(ledger)
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


def _grid(plan: SweepPlan) -> str:
    return digest([trial.trial_id for trial in plan.trials])


def _meet(plan: SweepPlan) -> None:
    """Meet the other ranks, which must have planned the same."""
    ranks.join()
    plans = ranks.gather(plan.setting + _grid(plan))
    others = [rank for rank, plan in enumerate(plans) if plan != plans[0]]
    if others:
        raise ArgumentError(
            f"ranks {', '.join(map(str, others))} of {len(plans)} have planned another sweep than "
            "rank 0: give every rank the same model and data; draw data from a fixed seed, and "
            "leave it to flops-fit to share each batch out"
        )


def _store_faults(name: str | None, tracking_uri: object) -> list[str]:
    problems = []
    try:
        if name is not None:
            tracking.check_name(name)
    except ArgumentError as error:
        problems += error.problems
    try:
        if tracking_uri is not None:
            store.check_uri(tracking_uri)
    except ArgumentError as error:
        problems += error.problems
    return problems


def _launch_faults(
    workers: int | str, executor: Any, name: str | None, tracking_uri: object
) -> list[str]:
    problems = _store_faults(name, tracking_uri)
    whole = isinstance(workers, int) and not isinstance(workers, bool) and workers > 0
    if workers != "auto" and not whole:
        problems.append(f"workers: expected a positive whole number or 'auto', got {workers!r}")
    if executor is not None and not callable(getattr(executor, "submit", None)):
        problems.append(f"executor: expected something with submit(), got {executor!r}")
    size = ranks.launched()[1]
    if size > 1 and (executor is not None or workers != 1):
        problems.append(
            f"{'workers' if executor is None else 'executor'}: this script was launched as "
            f"{size} processes, which train each trial together; leave it out, or start "
            "the script once, without torchrun or accelerate launch, to train trials side by side"
        )
    problems += ranks.launch_faults()
    return problems


def _versions() -> str:
    return (
        f"trained with flops-fit {__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}"
    )


def _meta(planned: Planned) -> dict[str, str]:
    plan = planned.plan
    return {
        "setting": plan.setting,
        "model": plan.model_name,
        "size_param": plan.size_param,
        "data_unit": plan.data_unit,
        "flops_convention": plan.flops_convention,
        "recipe": repr(plan.recipe),
        "data_fingerprint": planned.source.fingerprint,
    }


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
        "ranks": str(ranks.count()),
    }


def _description(plan: SweepPlan) -> str:
    return f"```\n{plan!r}\n```"
