"""What is wrong with `workers` and `executor`, and with what would be sent to the workers."""

from __future__ import annotations

from inspect import isfunction
from typing import Any

from flops_fit.display.number_text import memory
from flops_fit.runtime import distributed
from flops_fit.runtime.sending import UnsendableError, size_to_send
from flops_fit.sweep.plan.request import PlanRequest, Spending
from flops_fit.sweep.task.hashing import qualified_name
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.recipe import Recipe
from flops_fit.validate import is_count_or_auto
from flops_fit.warn import warn_user

_DATA = ("dataset", "eval_dataset")
_MUCH_TO_SEND = 256 * 2**20  # bytes


def sending_faults(task: Task, recipe: Recipe) -> list[str]:
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


def choice_problems(request: PlanRequest, executor: Any) -> list[str]:
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


def worker_problems(
    workers: int | str, executor: Any, workers_per_device: int | None = None
) -> list[str]:
    """What is wrong with these arguments, also under a launch of several processes."""
    problems: list[str] = []
    if not is_count_or_auto(workers):
        problems.append(f"workers: expected a positive whole number or 'auto', got {workers!r}")
    if workers_per_device is not None:
        problems += _per_device_problems(workers, executor, workers_per_device)
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


def _per_device_problems(workers: int | str, executor: Any, per_device: object) -> list[str]:
    if per_device == "auto" or not is_count_or_auto(per_device):
        return [f"workers_per_device: expected a positive whole number, got {per_device!r}"]
    if executor is not None:
        return ["workers_per_device: the executor places its workers itself; leave it out"]
    if workers != "auto":
        return [
            f"workers_per_device: expected workers='auto' with it, got workers={workers!r}, which "
            "is the number of all workers; leave one of the two out"
        ]
    return []
