"""The calls: plan, run, analyse, fit."""

from __future__ import annotations

import platform
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch

from flops_fit import __version__, store, tracking
from flops_fit.analysis import analyze_ledger
from flops_fit.errors import ArgumentError, FlopsFitWarning
from flops_fit.records import Size
from flops_fit.result import Result
from flops_fit.result import fit as fit
from flops_fit.sweep import ranks
from flops_fit.sweep.code import code_of
from flops_fit.sweep.flops import FlopsConvention
from flops_fit.sweep.grid import SweepPlan
from flops_fit.sweep.plan import Planned, make_plan
from flops_fit.sweep.recipe import Recipe
from flops_fit.sweep.runner import run_sweep
from flops_fit.sweep.study import storage_url
from flops_fit.sweep.task import Task, digest, raise_problems
from flops_fit.sweep.worker import Job
from flops_fit.tracking import Ledger


def find_optimal(
    model_cls: Callable[..., torch.nn.Module],
    model_size_param: str,
    model_kwargs: Mapping[str, Any] | None = None,
    dataset: Any = None,
    loss_fn: Callable[..., torch.Tensor] | None = None,
    compute_budgets: Iterable[float] | None = None,
    *,
    eval_dataset: Any = None,
    metrics: Mapping[str, Callable[..., Any]] | None = None,
    sizes: Sequence[Size] | None = None,
    recipe: Recipe | None = None,
    flops: FlopsConvention = "measured",
    name: str | None = None,
    tracking_uri: str | PathLike[str] | None = None,
    storage: str | None = None,
    workers: int | str = 1,
    executor: Any = None,
    seed: int = 0,
    retry_failed: bool = False,
    on_code_change: Literal["warn", "error", "rerun"] = "warn",
) -> Result:
    """How big a model, on how much data, and what loss will it reach? Answered by experiment.

    Plans an IsoFLOP sweep, trains what has not been trained yet, fits scaling laws to the runs and
    logs them. Calling again goes on where the last call stopped: what has finished is never run
    again, and budgets added later reuse the rest.

    Under `torchrun` or `accelerate launch` all processes call this alike and train each trial
    together, data-parallel; rank 0 alone claims and records, and every rank returns its result.

    Args:
        model_cls: Class or function that returns an `nn.Module` when called with the size and
            `model_kwargs`; its instances offer `num_params() -> int`.
        model_size_param: Name of the argument that sets the size, as "d_model".
        model_kwargs: The other arguments of `model_cls`.
        dataset: Map-style or iterable dataset, `DataLoader` (its batch size, collate and workers
            are kept), or a function without arguments that returns one. Batches are
            `(inputs, targets)` or a mapping, which the model gets as keywords.
        loss_fn: `loss_fn(outputs, targets)`, or `loss_fn(outputs, batch)` for mapping batches;
            returns the mean loss as a scalar tensor.
        compute_budgets: Budgets C in FLOPs, at least four over two decades where possible.
        eval_dataset: Held-out data; by default a twentieth of `dataset` is set aside.
        metrics: What else to measure on held-out data, by name: functions called as `loss_fn` is
            that return a mean over the batch. Logged as `eval_<name>`; they change no result.
        sizes: Values of the size parameter to train at every budget; by default seven, spaced
            evenly in log N around the expected optimum of each.
        recipe: How each trial trains.
        flops: "measured", "6ND", or a function from a model to FLOPs for one unit of D.
        name: Name of the sweep, which is its MLflow experiment; by default the model class's.
        tracking_uri: MLflow store; by default `MLFLOW_TRACKING_URI`, else `mlruns/mlflow.db`.
        storage: Optuna storage URL; by default `optuna.db` beside the MLflow store.
        workers: Worker processes; "auto" is one per GPU, else one per core. 1 under a launch.
        executor: Anything with `submit()`, to run the workers elsewhere; none under a launch.
        seed: Seed of the sweep; each trial derives its own.
        retry_failed: Try trials again that have failed three times.
        on_code_change: Where the source of model, loss or data is no longer what finished trials
            were trained with: "warn" and use them, "error", or "rerun" them.

    Returns:
        The runs, the laws, and what they predict.

    Raises:
        ArgumentError: Listing everything that is wrong with the arguments, before any training.
        InfeasiblePlanError: If no budget can be planned.
        SweepError: If the store cannot be used, or workers die again and again.
        LostRankError: If a process of a launch dies, or is silent beyond `FLOPS_FIT_TIMEOUT`
            seconds (600 by default).
        NoRunsError: If no trial finished.
        FitError: If the runs do not carry a fit; they are kept.
    """
    task = Task(
        model_cls,
        model_size_param,
        {} if model_kwargs is None else model_kwargs,
        dataset,
        loss_fn,
        eval_dataset,
        {} if metrics is None else metrics,
    )
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
    ledger = ranks.from_main(lambda: _open_ledger(planned, name, tracking_uri))
    job = Job(
        task=task,
        trials=planned.plan.trials,
        recipe=planned.plan.recipe,
        ledger=ledger,
        storage=storage_url(ledger.home, storage),
        setting=planned.plan.setting,
        params=_run_params(planned),
        checkpoints=(ledger.home or Path("mlruns").absolute()) / "checkpoints",
        code=code_of(task),
    )
    run_sweep(
        job,
        workers=workers,
        executor=executor,
        source=planned.source,
        said_first=_said_first(planned.plan),
        retry_failed=retry_failed,
        on_code_change=on_code_change,
    )
    build = None if sizes is not None else planned.finder.nearest
    return _analyzed(lambda: ledger, build)


def plan_sweep(
    model_cls: Callable[..., torch.nn.Module],
    model_size_param: str,
    model_kwargs: Mapping[str, Any] | None = None,
    dataset: Any = None,
    loss_fn: Callable[..., torch.Tensor] | None = None,
    compute_budgets: Iterable[float] | None = None,
    *,
    eval_dataset: Any = None,
    sizes: Sequence[Size] | None = None,
    recipe: Recipe | None = None,
    flops: FlopsConvention = "measured",
    seed: int = 0,
) -> SweepPlan:
    """The grid that `find_optimal` would train, and its FLOPs; nothing is trained.

    The arguments are those of `find_optimal`.

    Raises:
        ArgumentError: Listing everything that is wrong with the arguments.
        InfeasiblePlanError: If no budget can be planned.
    """
    ranks.let_main_speak()
    task = Task(
        model_cls,
        model_size_param,
        {} if model_kwargs is None else model_kwargs,
        dataset,
        loss_fn,
        eval_dataset,
    )
    return make_plan(task, compute_budgets, sizes=sizes, recipe=recipe, flops=flops, seed=seed).plan


def analyze(name: str, tracking_uri: str | PathLike[str] | None = None) -> Result:
    """Fit the finished runs of a sweep, and log table, plots and laws on its parent run.

    Args:
        name: Name of the sweep.
        tracking_uri: MLflow store; by default `MLFLOW_TRACKING_URI`, else `mlruns/mlflow.db`.

    Raises:
        SweepError: If there is no such sweep.
        NoRunsError: If none of its runs has finished.
        FitError: If the runs do not carry a fit.
    """
    ranks.let_main_speak()
    raise_problems(ranks.launch_faults())
    ranks.join()
    return _analyzed(lambda: tracking.find_ledger(name, tracking_uri), None)


def _analyzed(find: Callable[[], Ledger], build: Callable[[float], Size | None] | None) -> Result:
    """What rank 0 makes of the runs, on every rank."""

    def made() -> Result:
        return replace(analyze_ledger(find(), build_size=build), build_size=None)

    return replace(ranks.from_main(made), build_size=build)


def _meet(plan: SweepPlan) -> None:
    """Meet the other ranks, which must have planned the same."""
    ranks.join()
    plans = ranks.gather(digest([plan.setting, [trial.trial_id for trial in plan.trials]]))
    others = [rank for rank, plan in enumerate(plans) if plan != plans[0]]
    if others:
        raise ArgumentError(
            f"ranks {', '.join(map(str, others))} of {len(plans)} have planned another sweep than "
            "rank 0: give every rank the same model and data; draw data from a fixed seed, and "
            "leave it to flops-fit to share each batch out"
        )


def _open_ledger(
    planned: Planned, name: str | None, tracking_uri: str | PathLike[str] | None
) -> Ledger:
    ledger = tracking.open_ledger(name or planned.plan.model_name.rpartition(".")[2], tracking_uri)
    _say_what_changed(ledger, _meta(planned))
    tracking.write_meta(ledger, _meta(planned), _description(planned.plan))
    return ledger


def _said_first(plan: SweepPlan) -> str:
    if ranks.count() == 1:
        return repr(plan)
    return f"{plan!r}\n{ranks.count()} processes train each trial together, data-parallel"


def _launch_faults(
    workers: int | str, executor: Any, name: str | None, tracking_uri: object
) -> list[str]:
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
        stacklevel=6,  # the call of find_optimal
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
