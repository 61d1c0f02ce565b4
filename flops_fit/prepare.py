"""Before a sweep: check the caller's arguments, plan, and compare plans between ranks."""

from __future__ import annotations

import warnings
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from flops_fit import tracking
from flops_fit.errors import ArgumentError, FlopsFitWarning, StoreError, SweepError
from flops_fit.records import Run, Trial
from flops_fit.runtime import distributed
from flops_fit.sweep.data.held_out import BLOCKS, RANDOM, Rule
from flops_fit.sweep.devices.worker_faults import choice_problems, sending_faults, worker_problems
from flops_fit.sweep.execution.executors import count_workers
from flops_fit.sweep.execution.status import settled_losses
from flops_fit.sweep.forecast.chosen import choose_budgets, chosen_before, chosen_by_driver
from flops_fit.sweep.forecast.packing import Packer
from flops_fit.sweep.forecast.suggestion import BudgetSuggestion, suggest
from flops_fit.sweep.growth.rounds import Rounds
from flops_fit.sweep.growth.stages import Stage, Stages
from flops_fit.sweep.pilot.places import plan_pilot
from flops_fit.sweep.plan.grid import ChosenBudgets, Grid, PilotPlan
from flops_fit.sweep.plan.planner import Opened, Planned, make_plan, open_rows
from flops_fit.sweep.plan.request import PlanRequest, Spending
from flops_fit.sweep.task.hashing import digest, in_one_line
from flops_fit.sweep.task.kept_costs import FOLDER
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.task.twins import Twins
from flops_fit.sweep_plan import SweepPlan
from flops_fit.tracking.address import StoreAddress
from flops_fit.tracking.queries import latest_runs
from flops_fit.validate import is_positive, raise_problems
from flops_fit.warn import warn_user

DEFAULT_HOURS = 2.0  # of `suggest_budgets`


def prepare(
    task: Task,
    request: PlanRequest,
    address: StoreAddress,
    *,
    workers: int | str = 1,
    workers_per_device: int | None = None,
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
        workers_per_device: As of `find_optimal`.
        executor: As of `find_optimal`.
        on_code_change: As of `find_optimal`.
        joins: Whether a sweep is joined that another process drives, which then has chosen the
            budgets where a time or money is given.

    Raises:
        ArgumentError: Listing everything that is wrong with the arguments.
        InfeasiblePlanError: If no budget can be planned.
    """
    distributed.let_main_speak()
    faults_of_workers = worker_problems(workers, executor, workers_per_device)
    problems = address.problems() + faults_of_workers + distributed.launch_faults()
    count = 1 if faults_of_workers else count_workers(workers, workers_per_device)
    if not faults_of_workers and (executor is not None or count > 1):
        problems += sending_faults(task, request.recipe)
    if on_code_change not in ("warn", "error", "rerun"):
        problems.append(
            f"on_code_change: expected 'warn', 'error' or 'rerun', got {on_code_change!r}"
        )
    problems += choice_problems(request, executor)

    def choose(opened: Opened, spending: Spending) -> ChosenBudgets:
        find = chosen_by_driver if joins else chosen_before
        found = find(opened, spending, address)
        return found or choose_budgets(opened, spending, workers, request.price_per_hour)

    if not problems:  # else they are raised below, without waiting for other ranks
        distributed.join()
        request = distributed.from_main(lambda: _paired(request, task, address))
        rule = distributed.from_main(lambda: _rule_of_sweep(task, address, request.twins))
        task = replace(task, held_out_rule=rule)
    planned = with_pilot(make_plan(task, request, problems, _costs_folder(address), choose))
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
    folder = _costs_folder(address)
    problems = address.problems() + worker_problems(workers, None)
    if not problems:
        request = _paired(request, task, address)
    if address.is_given or request.twins is not None:
        task = replace(task, held_out_rule=_rule_of_sweep(task, address, request.twins))

    def choose(opened: Opened, spending: Spending) -> ChosenBudgets:
        before = None
        if address.is_given:
            with suppress(StoreError):  # reported below
                before = chosen_before(opened, spending, address)
        return before or choose_budgets(opened, spending, workers, request.price_per_hour)

    planned = with_pilot(make_plan(task, request, problems, folder, choose))
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
    problems = worker_problems(workers, None)
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
    opened = open_rows(task, request, [*problems, *choice_problems(request, None)])
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


def _costs_folder(address: StoreAddress) -> Path | None:
    return None if address.folder is None else address.folder / FOLDER


def stages(planned: Planned, *, extend: bool = False, workers: int | str = 1) -> Stages:
    """How the sweep of a plan grows while it is trained.

    Args:
        planned: The plan.
        extend: Whether sizes are added where the loss is least at an edge of a row.
        workers: As of `find_optimal`: a sweep with a goal chooses as many trials at once.
    """
    plan = planned.plan
    rounds = None
    if plan.goal is not None:
        rounds = Rounds(plan.goal, count_workers(workers, None))
    return Stages(planned.rows, plan.trials, plan.pilot, extend, plan.size_param, rounds)


def packer(planned: Planned, workers: int | str, per_device: int | None) -> Packer | None:
    """What decides how many workers share a device; None if one worker trains, in this process.

    Args:
        planned: The plan.
        workers: As of `find_optimal`.
        per_device: `workers_per_device` of `find_optimal`.
    """
    if workers == 1:
        return None
    plan = planned.plan
    return Packer(plan.with_expected, plan.tokens_per_example, workers, per_device)


def with_pilot(planned: Planned) -> Planned:
    """The plan, with what is trained to find its recipe; warns if it cannot be found."""
    pilot = plan_pilot(planned.rows, planned.plan.trials)
    if planned.rows.tuned and pilot is None:
        warn_user(
            "learning rate and batch follow a rule and are not looked for: at the smallest budget "
            "there are too few steps or data for a pilot; pass Recipe(learning_rate=..., "
            "batch_size=...), or larger budgets"
        )
    plan = replace(planned.plan, pilot=pilot)
    if plan.goal is not None:
        raise_problems(plan.goal.faults_of_start(plan.total_flops))
    return replace(planned, plan=plan)


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


def _paired(request: PlanRequest, task: Task, address: StoreAddress) -> PlanRequest:
    """The request, with the trials of the sweep that it is to be paired with.

    Raises:
        ArgumentError: There is no such sweep, or it is this one.
    """
    name: object = request.paired_with
    if name is None:
        return request
    if not isinstance(name, str):
        raise ArgumentError(f"paired_with: expected the name of a sweep, got {name!r:.80}")
    if name == address.sweep_name(task.short_name):
        raise ArgumentError(f"paired_with: {name!r} is this sweep; pass another name= for it")
    try:
        ledger = tracking.find_ledger(name, address.tracking_uri)
    except StoreError:
        raise
    except SweepError as error:
        raise ArgumentError(f"paired_with: {error}") from error
    meta = tracking.read_meta(ledger)
    runs = tracking.fetch_runs(ledger, meta.get("setting"))
    return replace(request, paired_with=Twins.of(name, meta, runs))


def _rule_of_sweep(task: Task, address: StoreAddress, twins: Twins | None = None) -> Rule:
    """How data are held out: as when the sweep began, so that all its losses compare."""
    if task.eval_dataset is not None or address.problems():
        return BLOCKS
    if twins is not None:
        return RANDOM if twins.held_out == RANDOM else BLOCKS
    with warnings.catch_warnings():  # what is amiss with the store is said when it is opened
        warnings.simplefilter("ignore", FlopsFitWarning)
        try:
            before = tracking.read_meta(address.find_ledger(task.short_name))
        except SweepError:  # there is no such sweep yet
            return BLOCKS
    # Older plans do not say how; their fingerprint has two parts if the held-out data were given.
    begun_at_random = "setting" in before and "+" not in before.get("data_fingerprint", "")
    return RANDOM if before.get("held_out", RANDOM if begun_at_random else "") == RANDOM else BLOCKS


def grid_digest(plan: Grid) -> str:
    """Hash of the planned trials."""
    # Trials that were chosen for another goal, and not begun, are withdrawn.
    goal = [] if plan.goal is None else [repr(plan.goal)]
    return digest([*(trial.trial_id for trial in plan.trials), *goal])


def plan_meta(planned: Planned) -> dict[str, str]:
    """What a plan writes about itself on the parent run; two plans of one setting agree in it."""
    plan = planned.plan
    return {
        "setting": plan.setting,
        **({"paired_with": planned.rows.twins.name} if planned.rows.twins else {}),
        "model": plan.model_name,
        "size_param": plan.size_param,
        "data_unit": plan.data_unit,
        "flops_convention": plan.flops_convention,
        "recipe": repr(plan.recipe),
        "data_fingerprint": planned.source.fingerprint,
        "held_out": planned.source.held_out_by,
        "loss_fn": in_one_line(plan.origin.task.loss_fn) if plan.origin else "",
        "eval_examples": str(plan.recipe.eval_examples),
    }


def _runs(plan: Grid, address: StoreAddress) -> list[Run]:
    """All runs of a plan's setting, latest first."""
    try:
        ledger = address.find_ledger(plan.short_name)
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
