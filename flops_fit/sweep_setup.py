"""From a plan to a `Job`, whose ledger describes it, and from the `Job` to a `Result`."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import Subset

from flops_fit import store, tracking
from flops_fit.analysis import analyze_on_every_rank
from flops_fit.display.notebook import tell
from flops_fit.errors import ArgumentError, StoreError, SweepError
from flops_fit.prepare import flops_to_come, grid_digest, packer, plan_meta, stages
from flops_fit.records import Size
from flops_fit.report import plan_text
from flops_fit.result import Result
from flops_fit.runtime import distributed
from flops_fit.runtime.polling import poll
from flops_fit.sweep.data.held_out import Strided
from flops_fit.sweep.execution import status, trial_queue
from flops_fit.sweep.execution.driver import run_sweep
from flops_fit.sweep.execution.job import Job
from flops_fit.sweep.forecast.chosen import store_chosen
from flops_fit.sweep.growth.rounds_file import last_points
from flops_fit.sweep.growth.stages import Stages
from flops_fit.sweep.plan.grid import Grid
from flops_fit.sweep.plan.planner import Planned
from flops_fit.sweep.task.hashing import qualified_name
from flops_fit.sweep.task.source_code import code_of
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.recipe import FIRST_RULE
from flops_fit.tracking import mlflow_project
from flops_fit.tracking.address import StoreAddress, local_folder
from flops_fit.tracking.ledger import Ledger
from flops_fit.version import __version__
from flops_fit.warn import warn_user


def open_job(task: Task, planned: Planned, address: StoreAddress) -> Job:
    """What workers need to run a plan; the sweep's ledger is created where it is missing.

    Args:
        task: The user's model, data and loss.
        planned: Its plan.
        address: Where the sweep's records are kept.

    Raises:
        SweepError: If the store cannot be used.
    """
    ledger = distributed.from_main(lambda: _open_ledger(planned, address))
    if distributed.rank() == 0:
        planned.keep_costs()
    return _job(task, planned, ledger, address)


def join_job(task: Task, planned: Planned, address: StoreAddress) -> Job:
    """The job of a sweep that another process drives; nothing is written.

    Waits a few seconds for a driver that was started at the same moment.

    Args:
        task: The user's model, data and loss, as the driver has them.
        planned: Its plan.
        address: Where the sweep's records are kept.

    Raises:
        ArgumentError: The latest plan of the sweep differs from this one.
        SweepError: There is no such sweep, or no study of it in the storage.
    """

    def find() -> Ledger:
        job = _job(task, planned, _joined_ledger(planned, address), address)
        if not trial_queue.study_exists(job.study_name, job.storage):
            raise SweepError(
                f"{store.without_credentials(job.storage)} holds no study of the sweep "
                f"{job.ledger.name!r}: pass storage= with the same value as the sweep's driver"
            )
        return job.ledger

    def wait_until_begun() -> Ledger:
        # No message to other ranks meanwhile: they wait for what `from_main` sends, briefly.
        message = f"Waiting {status.BEGIN_S:g} s for the sweep to begin"
        return poll(
            find,
            is_temporary=lambda error: (
                isinstance(error, ArgumentError | SweepError) and not isinstance(error, StoreError)
            ),
            timeout_s=status.BEGIN_S,
            pause_s=status.PAUSE_S,
            report=lambda error: tell(message),
        )

    ledger = distributed.from_main(wait_until_begun)
    return _job(task, planned, ledger, address)


def _job(task: Task, planned: Planned, ledger: Ledger, address: StoreAddress) -> Job:
    plan = planned.plan
    return Job(
        task=replace(task, weighting=planned.weighting, held_out_rule=planned.held_out_rule),
        trials=plan.trials,
        recipe=plan.recipe,
        ledger=ledger,
        storage=address.storage_url(ledger),
        setting=plan.setting,
        params=_run_params(planned),
        checkpoints=local_folder(ledger) / "checkpoints",
        code=code_of(task),
        note=_description(plan),
        size_param=plan.size_param,
        data_unit=plan.data_unit,
        num_examples=planned.source.num_examples,
        plan=grid_digest(plan),
    )


def _open_ledger(planned: Planned, address: StoreAddress) -> Ledger:
    """Open the ledger, and write this plan on its parent run."""
    ledger = address.open_ledger(planned.plan.short_name)
    meta = plan_meta(planned)
    _warn_of_change(ledger, planned, meta)
    written = {**meta, **_for_report(planned.plan), "plan": grid_digest(planned.plan)}
    tracking.write_meta(ledger, written, _description(planned.plan))
    if planned.plan.chosen is not None:
        store_chosen(ledger, planned.plan.chosen)
    tracking.log_dataset(ledger, *_data_description(planned))
    mlflow_project.nest_under_project_run(ledger)
    return ledger


def _for_report(plan: Grid) -> dict[str, str]:
    """What the report says of how the runs were trained, beside `plan_meta`."""
    schedule, warmup = plan.recipe.schedule, str(plan.recipe.warmup)
    if not isinstance(schedule, str):
        schedule, warmup = "a function of the share of steps done", ""
    return {
        "versions": _versions(),
        "tokens_per_example": str(plan.tokens_per_example),
        "schedule": schedule,
        "warmup": warmup,
    }


def _data_description(planned: Planned) -> tuple[str, str, dict[str, int | None]]:
    """Class, fingerprint and size of the training data."""
    source = planned.source
    # The held-out split wraps the user's dataset.
    data = source.train.dataset if isinstance(source.train, Subset | Strided) else source.train
    size = {"num_examples": source.num_examples, f"num_{source.unit}": source.num_tokens}
    return qualified_name(type(data)), source.fingerprint, size


def _joined_ledger(planned: Planned, address: StoreAddress) -> Ledger:
    """The ledger of a sweep whose latest plan is this one.

    Raises:
        ArgumentError: The plans differ; lists in what.
    """
    ledger = address.find_ledger(planned.plan.short_name)
    theirs = tracking.read_meta(ledger)
    ours = plan_meta(planned)
    same_setting = theirs.get("setting") == ours["setting"]
    if same_setting and theirs.get("plan") == grid_digest(planned.plan):
        return ledger
    differences = [
        f"{key}: {_without_shared(theirs[key], ours[key])} there, "
        f"{_without_shared(ours[key], theirs[key])} here"
        for key in ours
        if key != "setting" and theirs.get(key, ours[key]) != ours[key]
    ]
    if not differences and same_setting:
        differences = ["budgets, sizes, seed or learning rates differ"]
    elif not differences:
        differences = ["the arguments of the model, the data or the loss differ"]
    raise ArgumentError(
        differences,
        f"the sweep {ledger.name!r} runs another plan; give a worker what its driver was given:",
    )


def _without_shared(text: str, other: str) -> str:
    """The fields of a comma-separated list that another list lacks."""
    return ", ".join(part for part in text.split(", ") if part not in other.split(", "))


def _versions() -> str:
    return (
        f"trained with flops-fit {__version__}, torch {torch.__version__}, Python "
        f"{platform.python_version()}"
    )


def _warn_of_change(ledger: tracking.Ledger, planned: Planned, meta: Mapping[str, str]) -> None:
    """Warn if earlier runs are of another setting: they are not fitted together with new ones."""
    before = tracking.read_meta(ledger)
    if before.get("setting", meta["setting"]) == meta["setting"]:
        return
    by_rule = replace(planned.plan.recipe, learning_rate=FIRST_RULE, batch_size=FIRST_RULE)
    if planned.rows.tuned and before["setting"] == planned.setting_with(by_rule):
        warn_user(
            f"sweep {ledger.name!r} was begun when learning rate and batch followed the rule of "
            "DeepSeek LLM by default; its runs stay in the store but take no part, because rate "
            "and batch are now found by experiment. To go on with them, pass "
            f'Recipe(learning_rate="{FIRST_RULE}", batch_size="{FIRST_RULE}")'
        )
        return
    # Plans of older versions say less of themselves.
    differ = {key for key in meta if before.get(key, meta[key]) != meta[key]}
    changed = sorted(differ - {"setting"}, key=list(meta).index)
    what = ", ".join(changed) or "the arguments of the model, the data or the loss"
    warn_user(
        f"sweep {ledger.name!r}: since its last call something changed ({what}), so its earlier "
        "runs stay in the store but take no part; pass another name= to keep the two apart"
    )


def _run_params(planned: Planned) -> dict[str, str]:
    """What is written on every run beside its trial's fields."""
    return {
        **plan_meta(planned),
        "tokens_per_example": str(planned.plan.tokens_per_example),
        "flops_fit_version": __version__,
        "torch_version": torch.__version__,
        "python_version": platform.python_version(),
        "ranks": str(distributed.count()),
    }


def _description(plan: Grid) -> str:
    """The plan as Markdown."""
    return f"```\n{plan_text.as_text(plan)}\n```"


def announced(plan: Grid) -> str:
    """What is printed before anything trains."""
    text = plan_text.as_text(plan)
    if distributed.count() == 1:
        return text
    return f"{text}\n{distributed.count()} processes train each trial together, data-parallel"


def from_read_only_store(planned: Planned, address: StoreAddress, error: StoreError) -> Result:
    """The result of a finished sweep whose store can be read only; else the error is raised."""
    try:
        left = flops_to_come(planned, address)
    except StoreError:
        raise error from None
    if left:
        raise error
    warn_user(f"all trials are done, and this plan was not recorded: {error}")
    ledger = address.find_ledger(planned.plan.short_name)
    return analyze_on_every_rank(lambda: ledger, _builder(planned))


def _as_it_was_left(stages: Stages, job: Job) -> Stages:
    """How a sweep grows, with the round that was chosen for the same goal before it was stopped."""
    rounds = stages.rounds
    if rounds is None:
        return stages
    return replace(stages, rounds=replace(rounds, chosen=last_points(job.ledger, rounds.goal)))


def run_and_analyze(
    job: Job,
    planned: Planned,
    *,
    workers: int | str = 1,
    workers_per_device: int | None = None,
    executor: Any = None,
    retry_failed: bool = False,
    on_code_change: str = "warn",
    extend: bool = True,
    announcement: str | None = None,
) -> Result:
    """The rest of `find_optimal` after its plan: run missing trials, then fit and log.

    Args:
        job: What to run, from `open_job`.
        planned: Its plan, from `prepare`.
        workers: As of `find_optimal`.
        workers_per_device: As of `find_optimal`.
        executor: As of `find_optimal`.
        retry_failed: As of `find_optimal`.
        on_code_change: As of `find_optimal`.
        extend: As of `find_optimal`.
        announcement: Printed before anything trains; by default the plan.

    Raises:
        SweepError: If the store cannot be used, or workers die again and again.
        NoRunsError: If no trial finished.
        FitError: If the runs are too few or too irregular for a fit; they are kept.
    """
    run_sweep(
        job,
        workers=workers,
        executor=executor,
        source=planned.source,
        announcement=announced(planned.plan) if announcement is None else announcement,
        stages=_as_it_was_left(stages(planned, extend=extend, workers=workers), job),
        retry_failed=retry_failed,
        on_code_change=on_code_change,
        pack=None if executor is not None else packer(planned, workers, workers_per_device),
    )
    if distributed.rank() == 0:
        planned.keep_costs()  # with those of sizes that were added meanwhile
    return analyze_on_every_rank(lambda: job.ledger, _builder(planned))


def _builder(planned: Planned) -> Callable[[float], Size | None] | None:
    """From N to a size value; None if the user gave the sizes, between which none may exist."""
    return planned.finder.nearest if planned.finder.given is None else None
