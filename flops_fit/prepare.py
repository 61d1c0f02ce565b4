"""From what the user passed to a `Job`: checked, planned, and met by its ledger."""

from __future__ import annotations

import warnings
from dataclasses import replace
from os import PathLike
from typing import Any

from flops_fit import store, tracking
from flops_fit.errors import ArgumentError, FlopsFitWarning, StoreError, SweepError
from flops_fit.runtime import distributed
from flops_fit.sweep.plan.grid import Grid
from flops_fit.sweep.plan.planner import Planned, make_plan
from flops_fit.sweep.plan.request import PlanRequest
from flops_fit.sweep.task.hashing import digest
from flops_fit.sweep.task.task import Task
from flops_fit.sweep_plan import SweepPlan
from flops_fit.tracking import mlflow_project


def prepare(
    task: Task,
    request: PlanRequest,
    *,
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
    distributed.let_main_speak()
    faults = _launch_faults(workers, executor, name, tracking_uri)
    if on_code_change not in ("warn", "error", "rerun"):
        faults.append(
            f"on_code_change: expected 'warn', 'error' or 'rerun', got {on_code_change!r}"
        )
    planned = make_plan(task, request, faults)
    _meet(planned.plan)
    return planned


def plan_only(
    task: Task,
    request: PlanRequest,
    *,
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
    distributed.let_main_speak()
    grid = make_plan(task, request, _store_faults(name, tracking_uri)).plan
    plan = SweepPlan.of(grid)
    if name is None and tracking_uri is None:
        return plan
    try:
        return replace(plan, done=_ended(plan, name, tracking_uri))
    except StoreError as error:
        told = f"which trials are done already is not known: {error}"
        warnings.warn(told, FlopsFitWarning, stacklevel=3)  # the call of plan_sweep
        return plan


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
    plan: Grid, name: str | None, tracking_uri: str | PathLike[str] | None
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


def _name(name: str | None, plan: Grid, tracking_uri: str | PathLike[str] | None = None) -> str:
    """As asked, else that of the experiment `mlflow run` was given, else the model class's."""
    own = plan.model_name.rpartition(".")[2]
    return name or mlflow_project.project_experiment(tracking_uri) or own


def _grid(plan: Grid) -> str:
    return digest([trial.trial_id for trial in plan.trials])


def _meet(plan: Grid) -> None:
    """Meet the other ranks, which must have planned the same."""
    distributed.join()
    plans = distributed.gather(plan.setting + _grid(plan))
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
    size = distributed.launched()[1]
    if size > 1 and (executor is not None or workers != 1):
        problems.append(
            f"{'workers' if executor is None else 'executor'}: this script was launched as "
            f"{size} processes, which train each trial together; leave it out, or start "
            "the script once, without torchrun or accelerate launch, to train trials side by side"
        )
    problems += distributed.launch_faults()
    return problems


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
