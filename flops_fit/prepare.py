"""Before a sweep: check the caller's arguments, plan, and compare plans between ranks."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from inspect import isfunction
from typing import Any

from flops_fit import tracking
from flops_fit.errors import ArgumentError, StoreError, SweepError
from flops_fit.records import Run, Trial
from flops_fit.report.number_text import memory
from flops_fit.runtime import distributed
from flops_fit.runtime.sending import UnsendableError, size_to_send
from flops_fit.sweep.execution.executors import count_workers
from flops_fit.sweep.execution.status import settled_losses
from flops_fit.sweep.forecast.chosen import choose_budgets, chosen_before, chosen_by_driver
from flops_fit.sweep.forecast.suggestion import BudgetSuggestion, suggest
from flops_fit.sweep.pilot.places import plan_pilot
from flops_fit.sweep.pilot.stages import Stage, Stages
from flops_fit.sweep.plan.grid import ChosenBudgets, Grid, PilotPlan
from flops_fit.sweep.plan.planner import Opened, Planned, make_plan, open_rows
from flops_fit.sweep.plan.request import PlanRequest, Spending
from flops_fit.sweep.task.hashing import digest, qualified_name
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.recipe import Recipe
from flops_fit.sweep_plan import SweepPlan
from flops_fit.tracking.address import StoreAddress
from flops_fit.tracking.queries import latest_runs
from flops_fit.validate import is_count_or_auto, is_positive
from flops_fit.warn import warn_user

_DATA = ("dataset", "eval_dataset")
DEFAULT_HOURS = 2.0  # of `suggest_budgets`
_MUCH_TO_SEND = 256 * 2**20  # bytes


def prepare(
    task: Task,
    request: PlanRequest,
    address: StoreAddress,
    *,
    workers: int | str = 1,
    executor: Any = None,
    on_code_change: str = "warn",
    joins: bool = False,
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
        joins: Whether a sweep is joined that another process drives, which then has chosen the
            budgets where a time or money is given.

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
    problems += _choice_problems(request, executor)

    def choose(opened: Opened, spending: Spending) -> ChosenBudgets:
        if joins:
            return chosen_by_driver(opened, spending, address)
        return chosen_before(opened, spending, address) or choose_budgets(
            opened, spending, workers=workers, price_per_hour=request.price_per_hour
        )

    planned = with_pilot(make_plan(task, request, problems, choose))
    distributed.join()
    _check_same_plan(planned.plan)
    return planned


def plan_only(
    task: Task, request: PlanRequest, address: StoreAddress, workers: int | str = 1
) -> SweepPlan:
    """Plan without meeting other ranks.

    If a name or a store is given, the plan shows which trials are done. A store that cannot be used
    causes a warning.

    Args:
        task: The user's model, data and loss.
        request: What to plan.
        address: The sweep and store to look in.
        workers: As of `find_optimal`; budgets for a time or money depend on it.

    Raises:
        ArgumentError: Listing everything that is wrong with the arguments.
        InfeasiblePlanError: If no budget can be planned.
    """
    distributed.let_main_speak()
    problems = address.problems() + _worker_problems(workers, None)

    def choose(opened: Opened, spending: Spending) -> ChosenBudgets:
        before = None
        if address.is_given:
            with suppress(StoreError):  # reported below
                before = chosen_before(opened, spending, address)
        return before or choose_budgets(
            opened, spending, workers=workers, price_per_hour=request.price_per_hour
        )

    planned = with_pilot(make_plan(task, request, problems, choose))
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


def suggest_only(
    task: Task, request: PlanRequest, workers: int | str, hours: float | None, price: float | None
) -> BudgetSuggestion:
    """Implements `flops_fit.suggest_budgets`; see there.

    Args:
        task: The user's model, data and loss.
        request: What to plan, without budgets.
        workers: As of `find_optimal`.
        hours: What the sweep may take; two hours if there is no price either.
        price: What it may cost, instead.
    """
    distributed.let_main_speak()
    problems = _worker_problems(workers, None)
    given = {"hours": hours, "price": price}
    problems += [
        f"{name}: expected a positive number, got {value!r}"
        for name, value in given.items()
        if value is not None and not is_positive(value)
    ]
    if hours is not None and price is not None:
        problems.append("price: hours is given too; pass one of them")
    if price is not None and not problems:
        spending = Spending(f"{price:g}", money=price)
    else:
        spending = Spending.of_hours(DEFAULT_HOURS if hours is None or problems else hours)
    request = replace(request, compute_budgets=spending)
    opened = open_rows(task, request, [*problems, *_choice_problems(request, None)])
    return suggest(opened, spending, workers=workers, price_per_hour=request.price_per_hour)


def _still_expected(pilot: PilotPlan, stage: Stage, ended: frozenset[str]) -> tuple[Trial, ...]:
    """The trials that pilot and check still have to train, as far as they are known or guessed."""
    of_grid = {trial.trial_id for trial in stage.grid}
    known = [t for t in stage.trials if t.trial_id not in of_grid and t.trial_id not in ended]
    guessed = [trial for trial in pilot.expected if trial.role == "pilot"]
    checks = [trial for trial in pilot.expected if trial.role == "check"]
    if stage.law is None and stage.to_come:
        return (*known, *guessed[len(stage.trials) :], *checks)
    return (*known, *(checks if stage.to_come else ()))


def stages(planned: Planned, *, extend: bool = False) -> Stages:
    """How the sweep of a plan grows while it is trained.

    Args:
        planned: The plan.
        extend: Whether sizes are added where the loss is least at an edge of a row.
    """
    return Stages(planned.rows, planned.plan.trials, planned.plan.pilot, extend)


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


def default_name(plan: Grid) -> str:
    """Name of a sweep that was given none: the model class's."""
    return plan.model_name.rpartition(".")[2]


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


def _choice_problems(request: PlanRequest, executor: Any) -> list[str]:
    """Why budgets cannot be chosen for a time or money here."""
    if not isinstance(request.compute_budgets, str | Spending):
        return []
    elsewhere = "workers of an executor may run on other machines" if executor is not None else ""
    if distributed.launched()[1] > 1:
        elsewhere = "a launch of several processes trains each trial on several devices"
    if not elsewhere:
        return []
    return [
        f"compute_budgets: {elsewhere}, but only this process can be timed; pass FLOPs, such as "
        "those that flops_fit.suggest_budgets suggests on a machine like theirs"
    ]


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
