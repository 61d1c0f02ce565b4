"""Before a sweep: check the caller's arguments, plan, and compare plans between ranks."""

from __future__ import annotations

import warnings
from dataclasses import replace
from inspect import isfunction
from pathlib import Path
from typing import Any

from flops_fit import tracking
from flops_fit.display.number_text import memory
from flops_fit.errors import ArgumentError, FlopsFitWarning, StoreError, SweepError
from flops_fit.records import Run, Trial
from flops_fit.runtime import distributed
from flops_fit.runtime.sending import UnsendableError, size_to_send
from flops_fit.sweep.data.held_out import BLOCKS, RANDOM, Rule
from flops_fit.sweep.execution.executors import count_workers
from flops_fit.sweep.execution.status import settled_losses
from flops_fit.sweep.pilot.places import plan_pilot
from flops_fit.sweep.pilot.stages import Stage, Stages
from flops_fit.sweep.plan.grid import Grid, PilotPlan
from flops_fit.sweep.plan.planner import Planned, make_plan
from flops_fit.sweep.plan.request import PlanRequest
from flops_fit.sweep.task.hashing import digest, qualified_name
from flops_fit.sweep.task.kept_costs import FOLDER
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.recipe import Recipe
from flops_fit.sweep_plan import SweepPlan
from flops_fit.tracking.address import StoreAddress
from flops_fit.tracking.queries import latest_runs
from flops_fit.validate import is_count_or_auto
from flops_fit.warn import warn_user

_DATA = ("dataset", "eval_dataset")
_MUCH_TO_SEND = 256 * 2**20  # bytes


def prepare(
    task: Task,
    request: PlanRequest,
    address: StoreAddress,
    *,
    workers: int | str = 1,
    executor: Any = None,
    on_code_change: str = "warn",
) -> Planned:
    """Check all arguments of `flops_fit.find_optimal`, and plan; nothing is written.

    Under a launch of several processes the ranks meet here.

    Args:
        task: The user's model, data and loss.
        request: What to plan.
        address: Where the sweep's records are to be kept.
        workers: As of `find_optimal`.
        executor: As of `find_optimal`.
        on_code_change: As of `find_optimal`.

    Raises:
        ArgumentError: Listing everything that is wrong with the arguments.
        InfeasiblePlanError: If no budget can be planned.
    """
    distributed.let_main_speak()
    faults_of_workers = _worker_problems(workers, executor)
    problems = address.problems() + faults_of_workers + distributed.launch_faults()
    if not faults_of_workers and (executor is not None or count_workers(workers) > 1):
        problems += _sending_faults(task, request.recipe)
    if on_code_change not in ("warn", "error", "rerun"):
        problems.append(
            f"on_code_change: expected 'warn', 'error' or 'rerun', got {on_code_change!r}"
        )
    if not distributed.launch_faults():
        distributed.join()
        rule = distributed.from_main(lambda: _rule_of_sweep(task, address))
        task = replace(task, held_out_rule=rule)
    planned = with_pilot(make_plan(task, request, problems, _costs_folder(address)))
    _check_same_plan(planned.plan)
    return planned


def plan_only(task: Task, request: PlanRequest, address: StoreAddress) -> SweepPlan:
    """Plan without meeting other ranks.

    If a name or a store is given, the plan shows which trials are done. A store that cannot be used
    causes a warning.

    Args:
        task: The user's model, data and loss.
        request: What to plan.
        address: The sweep and store to look in.

    Raises:
        ArgumentError: Listing everything that is wrong with the arguments.
        InfeasiblePlanError: If no budget can be planned.
    """
    distributed.let_main_speak()
    folder = _costs_folder(address)
    if address.is_given:
        task = replace(task, held_out_rule=_rule_of_sweep(task, address))
    planned = with_pilot(make_plan(task, request, address.problems(), folder))
    if folder is not None and folder.parent.is_dir():  # a plan alone makes no store
        planned.keep_costs()
    plan = SweepPlan.of(planned.plan)
    if not address.is_given:
        return plan
    try:
        runs = _runs(plan, address)
    except StoreError as error:
        warn_user(f"which trials are done already is not known: {error}")
        return plan
    stage = stages(planned).next(latest_runs(runs), settled_losses(runs))
    ended = frozenset(run.trial_id for run in runs if run.state in tracking.ENDED)
    pilot = plan.pilot and replace(plan.pilot, expected=_still_expected(plan.pilot, stage, ended))
    return replace(plan, trials=stage.grid, pilot=pilot, found=stage.law, done=ended)


def _still_expected(pilot: PilotPlan, stage: Stage, ended: frozenset[str]) -> tuple[Trial, ...]:
    """The trials that pilot and check still have to train, as far as they are known or guessed."""
    of_grid = {trial.trial_id for trial in stage.grid}
    known = [t for t in stage.trials if t.trial_id not in of_grid and t.trial_id not in ended]
    guessed = [trial for trial in pilot.expected if trial.role == "pilot"]
    checks = [trial for trial in pilot.expected if trial.role == "check"]
    if stage.law is None and stage.to_come:
        return (*known, *guessed[len(stage.trials) :], *checks)
    return (*known, *(checks if stage.to_come else ()))


def _costs_folder(address: StoreAddress) -> Path | None:
    return None if address.folder is None else address.folder / FOLDER


def stages(planned: Planned, *, extend: bool = False) -> Stages:
    """How the sweep of a plan grows while it is trained.

    Args:
        planned: The plan.
        extend: Whether sizes are added where the loss is least at an edge of a row.
    """
    plan = planned.plan
    return Stages(planned.rows, plan.trials, plan.pilot, extend, plan.size_param)


def with_pilot(planned: Planned) -> Planned:
    """The plan, with what is trained to find its recipe; warns if it cannot be found."""
    pilot = plan_pilot(planned.rows, planned.plan.trials)
    if planned.rows.tuned and pilot is None:
        warn_user(
            "learning rate and batch follow a rule and are not looked for: at the smallest budget "
            "there are too few steps or data for a pilot; pass Recipe(learning_rate=..., "
            "batch_size=...), or larger budgets"
        )
    return replace(planned, plan=replace(planned.plan, pilot=pilot))


def flops_to_come(planned: Planned, address: StoreAddress) -> float:
    """FLOPs of the planned trials that have not ended yet; nothing is written.

    Raises:
        StoreError: If the store cannot be used.
    """
    runs = _runs(planned.plan, address)
    settled = settled_losses(runs)
    stage = stages(planned).next(latest_runs(runs), settled)
    left = sum(trial.flops for trial in stage.trials if trial.trial_id not in settled)
    return left + stage.to_come


def default_name(plan: Grid | Task) -> str:
    """Name of a sweep that was given none: the model class's."""
    return plan.model_name.rpartition(".")[2]


def _rule_of_sweep(task: Task, address: StoreAddress) -> Rule:
    """How data are held out: as when the sweep began, so that all its losses compare."""
    if task.eval_dataset is not None or address.problems():
        return BLOCKS
    with warnings.catch_warnings():  # what is amiss with the store is said when it is opened
        warnings.simplefilter("ignore", FlopsFitWarning)
        try:
            before = tracking.read_meta(address.find_ledger(default_name(task)))
        except SweepError:  # there is no such sweep yet
            return BLOCKS
    # Older plans do not say how; their fingerprint has two parts if the held-out data were given.
    begun_at_random = "setting" in before and "+" not in before.get("data_fingerprint", "")
    return RANDOM if before.get("held_out", RANDOM if begun_at_random else "") == RANDOM else BLOCKS


def grid_digest(plan: Grid) -> str:
    """Hash of the planned trials."""
    return digest([trial.trial_id for trial in plan.trials])


def plan_meta(planned: Planned) -> dict[str, str]:
    """What a plan writes about itself on the parent run; two plans of one setting agree in it."""
    plan = planned.plan
    return {
        "setting": plan.setting,
        "model": plan.model_name,
        "size_param": plan.size_param,
        "data_unit": plan.data_unit,
        "flops_convention": plan.flops_convention,
        "recipe": repr(plan.recipe),
        "data_fingerprint": planned.source.fingerprint,
        "held_out": planned.source.held_out_by,
    }


def _runs(plan: Grid, address: StoreAddress) -> list[Run]:
    """All runs of a plan's setting, latest first."""
    try:
        ledger = address.find_ledger(default_name(plan))
    except StoreError:
        raise
    except SweepError:  # there is no such sweep yet
        return []
    return tracking.fetch_all_runs(ledger, plan.setting)


def _check_same_plan(plan: Grid) -> None:
    """Compare the plans of all ranks.

    Raises:
        ArgumentError: They differ, on every rank.
    """
    digests = distributed.gather(plan.setting + grid_digest(plan))
    differing = [rank for rank, other in enumerate(digests) if other != digests[0]]
    if differing:
        raise ArgumentError(
            f"ranks {', '.join(map(str, differing))} of {len(digests)} have planned another sweep "
            "than rank 0: give every rank the same model and data, draw data from a fixed seed, "
            "and do not shard the data: flops-fit divides each batch between the ranks"
        )


def _sending_faults(task: Task, recipe: Recipe) -> list[str]:
    """Which arguments cannot be sent to workers; warns of those that take long to send."""
    faults = []
    arguments = {
        "model_cls": task.model_cls,
        "model_kwargs": task.model_kwargs,
        "dataset": task.dataset,
        "eval_dataset": task.eval_dataset,
        "loss_fn": task.loss_fn,
        "metrics": task.metrics,
        "recipe": recipe,
    }
    for name, value in arguments.items():
        try:
            num_bytes = size_to_send(value)
        except UnsendableError as error:
            remedy = "make it where it is used"
            if name in _DATA and not isfunction(value):
                remedy = f"pass a function that opens the data, as {name}=lambda: ..."
            faults.append(
                f"{name}: cannot be sent to workers: {name}{error.path} is of type "
                f"{qualified_name(type(error.part))} ({error.reason}); {remedy}, or leave out "
                "workers and executor"
            )
            continue
        if num_bytes > _MUCH_TO_SEND:
            warn_user(
                f"{name}: {memory(num_bytes)} in memory are copied to each worker; pass a function "
                "that opens the data there, or a memory map (np.memmap), whose path is sent alone"
            )
    return faults


def _worker_problems(workers: int | str, executor: Any) -> list[str]:
    """What is wrong with `workers` and `executor`, also under a launch of several processes."""
    problems: list[str] = []
    if not is_count_or_auto(workers):
        problems.append(f"workers: expected a positive whole number or 'auto', got {workers!r}")
    if executor is not None and not callable(getattr(executor, "submit", None)):
        problems.append(f"executor: expected something with submit(), got {executor!r}")
    _, size = distributed.launched()
    if size > 1 and (executor is not None or workers != 1):
        problems.append(
            f"{'workers' if executor is None else 'executor'}: this script was launched as "
            f"{size} processes, which train each trial together; leave it out, or start "
            "the script once, without torchrun or accelerate launch, to train trials side by side"
        )
    return problems
