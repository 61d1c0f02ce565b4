"""The public calls: `find_optimal`, `plan_sweep`, `suggest_budgets`, `analyze` and `fit`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from os import PathLike
from typing import Any, Literal

import torch

from flops_fit import tracking
from flops_fit.analysis import analyze_on_every_rank
from flops_fit.errors import StoreError
from flops_fit.fit_table import fit as fit
from flops_fit.laws.design.goal import Goal
from flops_fit.prepare import plan_only, prepare, suggest_only
from flops_fit.records import Size
from flops_fit.result import Result
from flops_fit.runtime import distributed
from flops_fit.runtime.caller_state import keeps_caller_state
from flops_fit.sweep.forecast.suggestion import BudgetSuggestion
from flops_fit.sweep.plan.request import PlanRequest
from flops_fit.sweep.task.model_cost import FlopsConvention
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.recipe import Recipe
from flops_fit.sweep_plan import SweepPlan
from flops_fit.sweep_setup import from_read_only_store, open_job, run_and_analyze
from flops_fit.tracking.address import StoreAddress
from flops_fit.validate import raise_problems


@keeps_caller_state
def find_optimal(
    model_cls: Callable[..., torch.nn.Module],
    model_size_param: str,
    model_kwargs: Mapping[str, Any] | None = None,
    dataset: Any = None,
    loss_fn: Callable[..., torch.Tensor] | None = None,
    compute_budgets: Iterable[float] | str | None = None,
    *,
    eval_dataset: Any = None,
    metrics: Mapping[str, Callable[..., Any]] | None = None,
    sizes: Sequence[Size] | None = None,
    recipe: Recipe | None = None,
    flops: FlopsConvention = "measured",
    name: str | None = None,
    tracking_uri: str | PathLike[str] | None = None,
    storage: str | PathLike[str] | None = None,
    workers: int | str = 1,
    workers_per_device: int | None = None,
    executor: Any = None,
    seed: int = 0,
    retry_failed: bool = False,
    on_code_change: Literal["warn", "error", "rerun"] = "warn",
    extend: bool = True,
    price_per_hour: float | None = None,
    paired_with: str | None = None,
    target: float | None = None,
    until: float | None = 1.25,
    until_loss: float | None = None,
    max_flops: float | None = None,
    gain_per: Literal["flop", "hour"] = "flop",
) -> Result:
    """Find by experiment the best model size and amount of data for a compute budget.

    Plans an IsoFLOP sweep (Hoffmann et al. 2022, approach 2), trains the trials that have not been
    trained yet, fits scaling laws to the runs and logs everything to MLflow. Calling again
    continues where the last call stopped: finished trials are never run again, and budgets added
    later reuse the rest.

    Under `torchrun` or `accelerate launch` all processes make this call, and train each trial
    together, data-parallel. Rank 0 alone claims and records trials; every rank returns its result.

    Args:
        model_cls: Class or function that returns an `nn.Module` when called with the size and
            `model_kwargs`; its instances have a method `num_params() -> int`.
        model_size_param: Name of the argument that sets the size, such as "d_model".
        model_kwargs: The other arguments of `model_cls`.
        dataset: Map-style or iterable dataset, `DataLoader` (its batch size, collate and workers
            are kept), or a function without arguments that returns one. Batches are
            `(inputs, targets)` or a mapping, which the model receives as keywords.
        loss_fn: `loss_fn(outputs, targets)`, or `loss_fn(outputs, batch)` for mapping batches;
            returns the mean loss as a scalar tensor.
        compute_budgets: Budgets C in FLOPs; at least four over two decades if possible. Or what
            the sweep may take, as "2h", "30 min" or "50 USD": budgets are then chosen as
            `suggest_budgets` does, and kept with the sweep, so that the same call continues it.
        eval_dataset: Held-out data; by default a twentieth of `dataset` is set aside, in contiguous
            blocks spread over it. Pass it where examples belong to groups, split by group.
        metrics: Other measures on held-out data, by name: functions that are called as `loss_fn`
            is and return a mean over the batch. Logged as `eval_<name>`; the result forecasts them
            (`predict(C, metric=...)`), and they change nothing else.
        sizes: Values of the size parameter to train at every budget; by default seven, spaced
            evenly in log N around the expected optimum of each.
        recipe: How each trial trains. By default a pilot finds learning rate and batch size before
            the sweep (`Recipe`).
        flops: "measured", "6ND", or a function from a model to FLOPs for one unit of D.
        name: Name of the sweep, which is its MLflow experiment; by default the model class's.
        tracking_uri: MLflow store; by default `MLFLOW_TRACKING_URI`, else `mlruns/mlflow.db`.
        storage: URL of an Optuna storage, or path of a `.db` file; by default `optuna.db` beside
            the MLflow store.
        workers: Number of worker processes. "auto" is as many on each GPU as its memory holds and
            keep it busy, else one per core. Must be 1 under a launch of several processes.
        workers_per_device: How many of "auto" share each GPU; 1 trains one trial at a time on it.
            Has no effect on a CPU.
        executor: Anything with `submit()`, to run the workers elsewhere; None under a launch.
        seed: Seed of the sweep; each trial derives its own.
        retry_failed: Whether to run trials again that have failed three times.
        on_code_change: What to do if the source of model, loss or data is not what finished trials
            were trained with: "warn" and use them, "error", or "rerun" them.
        extend: Whether to add up to two sizes to a budget whose loss is lowest at its smallest or
            largest size.
        price_per_hour: Price of one device, where `compute_budgets` is an amount of money.
        paired_with: Name of a finished sweep on the same data, with which this one is to be
            compared (`flops_fit.compare`). Trials of the same budget and place begin from the same
            random state and see the data in the same order, so that the comparison is sharper.
            Budgets, and sizes where the size parameter has the same name, are by default those of
            the other sweep.
        target: Compute budget, in FLOPs, that the answer is for. With it, not the whole grid is
            trained, but trials are chosen round by round, until the answer there is precise enough.
            `compute_budgets` then bounds what may be trained: two suffice.
        until: Factor that the 95 % interval of N_opt at the target shall span at most.
        until_loss: The same for the loss there, as 1.02; pass `until=None` to ask for it alone.
        max_flops: What a sweep with a target may spend at most, in FLOPs; by default what a grid of
            five budgets and seven sizes over the same range would.
        gain_per: With a target, choose the trials that gain most per "flop", or per "hour" that
            they are expected to take, by the times of the trials so far.

    Returns:
        The runs, the laws, and their predictions.

    Raises:
        ArgumentError: Listing everything that is wrong with the arguments, before any training.
        InfeasiblePlanError: If no budget can be planned.
        SweepError: If the store cannot be used, or workers die again and again.
        LostRankError: If a process of a launch dies, or is silent beyond `FLOPS_FIT_TIMEOUT`
            seconds (600 by default).
        NoRunsError: If no trial finished.
        FitError: If the runs are too few or too irregular for a fit; they are kept.
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
    request = PlanRequest(
        compute_budgets,
        sizes,
        Recipe() if recipe is None else recipe,
        flops,
        seed,
        price_per_hour,
        paired_with,
        Goal.asked(target, until, until_loss, max_flops, gain_per),
    )
    address = StoreAddress(name, tracking_uri, storage)
    planned = prepare(
        task,
        request,
        address,
        workers=workers,
        workers_per_device=workers_per_device,
        executor=executor,
        on_code_change=on_code_change,
    )
    try:
        job = open_job(task, planned, address)
    except StoreError as error:
        return from_read_only_store(planned, address, error)
    return run_and_analyze(
        job,
        planned,
        workers=workers,
        workers_per_device=workers_per_device,
        executor=executor,
        retry_failed=retry_failed,
        on_code_change=on_code_change,
        extend=extend,
    )


@keeps_caller_state
def plan_sweep(
    model_cls: Callable[..., torch.nn.Module],
    model_size_param: str,
    model_kwargs: Mapping[str, Any] | None = None,
    dataset: Any = None,
    loss_fn: Callable[..., torch.Tensor] | None = None,
    compute_budgets: Iterable[float] | str | None = None,
    *,
    eval_dataset: Any = None,
    sizes: Sequence[Size] | None = None,
    recipe: Recipe | None = None,
    flops: FlopsConvention = "measured",
    name: str | None = None,
    tracking_uri: str | PathLike[str] | None = None,
    seed: int = 0,
    workers: int | str = 1,
    price_per_hour: float | None = None,
    paired_with: str | None = None,
    target: float | None = None,
    until: float | None = 1.25,
    until_loss: float | None = None,
    max_flops: float | None = None,
    gain_per: Literal["flop", "hour"] = "flop",
) -> SweepPlan:
    """Plan the grid that `find_optimal` would train; nothing is trained.

    The arguments are those of `find_optimal`. If `name` or `tracking_uri` is given, the plan shows
    which trials are done already. Its methods `estimate()`, `precision()` and `plot()` forecast the
    cost of the sweep and the precision of its answer, and draw the grid.

    Raises:
        ArgumentError: Listing everything that is wrong with the arguments.
        InfeasiblePlanError: If no budget can be planned.
    """
    kwargs = {} if model_kwargs is None else model_kwargs
    task = Task(model_cls, model_size_param, kwargs, dataset, loss_fn, eval_dataset)
    request = PlanRequest(
        compute_budgets,
        sizes,
        Recipe() if recipe is None else recipe,
        flops,
        seed,
        price_per_hour,
        paired_with,
        Goal.asked(target, until, until_loss, max_flops, gain_per),
    )
    return plan_only(task, request, StoreAddress(name, tracking_uri), workers)


@keeps_caller_state
def suggest_budgets(
    model_cls: Callable[..., torch.nn.Module],
    model_size_param: str,
    model_kwargs: Mapping[str, Any] | None = None,
    dataset: Any = None,
    loss_fn: Callable[..., torch.Tensor] | None = None,
    *,
    hours: float | None = None,
    price: float | None = None,
    price_per_hour: float | None = None,
    eval_dataset: Any = None,
    sizes: Sequence[Size] | None = None,
    recipe: Recipe | None = None,
    flops: FlopsConvention = "measured",
    seed: int = 0,
    workers: int | str = 1,
) -> BudgetSuggestion:
    """Suggest compute budgets for a sweep that may take some hours, or cost some money.

    Times this device on a few steps of small models and then of larger ones, looks at how far the
    data last, and proposes four or five budgets over the decades that fit, with the time that the
    sweep will take and what its answer will be worth. This takes about a minute. Pilot and check
    are included; the fit at the end is not.

    Pass `hours` (2 by default), or `price` in the currency of `price_per_hour`, the price of one
    device. The other arguments are those of `find_optimal`.

    Raises:
        ArgumentError: Listing everything that is wrong with the arguments.
        InfeasiblePlanError: If the time or the data do not suffice for a sweep over a decade; says
            what would.
    """
    kwargs = {} if model_kwargs is None else model_kwargs
    task = Task(model_cls, model_size_param, kwargs, dataset, loss_fn, eval_dataset)
    request = PlanRequest(
        None, sizes, Recipe() if recipe is None else recipe, flops, seed, price_per_hour
    )
    return suggest_only(task, request, workers, hours, price)


@keeps_caller_state
def analyze(name: str, tracking_uri: str | PathLike[str] | None = None) -> Result:
    """Fit the finished runs of a sweep, and log table, plots and laws on its parent run.

    Args:
        name: Name of the sweep.
        tracking_uri: MLflow store; by default `MLFLOW_TRACKING_URI`, else `mlruns/mlflow.db`.

    Raises:
        SweepError: If there is no such sweep.
        NoRunsError: If none of its runs has finished.
        FitError: If the runs are too few or too irregular for a fit.
    """
    distributed.let_main_speak()
    raise_problems(distributed.launch_faults())
    distributed.join()
    return analyze_on_every_rank(lambda: tracking.find_ledger(name, tracking_uri), None)
