"""`flops-fit plan`, `run` and `worker`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import click
import torch

from flops_fit.cli import as_json as shown_as_json
from flops_fit.cli.results import exit_code
from flops_fit.cli.settings import Settings
from flops_fit.errors import ArgumentError
from flops_fit.examples.show import show
from flops_fit.prepare import flops_to_come, packer, plan_only, prepare, stages
from flops_fit.report import plan_text
from flops_fit.runtime import distributed
from flops_fit.sweep.execution.driver import join_sweep
from flops_fit.sweep.plan.planner import Planned
from flops_fit.sweep.task.task import Task
from flops_fit.sweep_setup import join_job, open_job, run_and_analyze
from flops_fit.tracking.address import StoreAddress

# FLOPs of about an hour: on a CPU core at 3e10 FLOPs per second, on a GPU at 3e13.
ASK_ABOVE_ON_CPU = 1e14
ASK_ABOVE_ON_GPU = 1e17


def plan(settings: Settings, as_json: bool) -> None:
    """Print the plan."""
    with user_prints_on_stderr():
        task, request = settings.imported()
        planned = plan_only(task, request, _address(settings), settings.workers)
    print(shown_as_json.dumps(shown_as_json.of_plan(planned)) if as_json else planned)


def run(settings: Settings, yes: bool, worker_command: Callable[[str], str]) -> int:
    """Train what is missing, print the result, and return the exit code.

    Args:
        settings: What to train.
        yes: Do not ask for confirmation.
        worker_command: Gives the command line of a worker for the sweep's name.
    """
    task, planned = _prepared(settings)
    address = _address(settings)
    if not yes:
        _confirm(planned, flops_to_come(planned, address))
    job = open_job(task, planned, address)
    result = run_and_analyze(
        job,
        planned,
        workers=settings.workers,
        workers_per_device=settings.workers_per_device,
        retry_failed=settings.retry_failed,
        on_code_change=settings.on_code_change,
        extend=settings.extend,
        announcement=f"{plan_text.as_text(planned.plan)}\n"
        f"To add a worker from another terminal: {worker_command(job.ledger.name)}",
    )
    if distributed.rank() != 0:  # rank 0 prints the result
        return 0
    show(result)
    return exit_code(result, planned.plan.compute_budgets)


def join(settings: Settings) -> None:
    """Train waiting trials of a sweep that another process drives."""
    task, planned = _prepared(settings, joins=True)
    job = join_job(task, planned, _address(settings))
    join_sweep(
        job,
        workers=settings.workers,
        source=planned.source,
        stages=stages(planned),
        pack=packer(planned, settings.workers, settings.workers_per_device),
    )


@contextlib.contextmanager
def user_prints_on_stderr() -> Iterator[None]:
    """Send what the user's model and data print to stderr: stdout is for our output alone."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _prepared(settings: Settings, joins: bool = False) -> tuple[Task, Planned]:
    with user_prints_on_stderr():
        task, request = settings.imported()
        planned = prepare(
            task,
            request,
            _address(settings),
            workers=settings.workers,
            workers_per_device=settings.workers_per_device,
            on_code_change=settings.on_code_change,
            joins=joins,
        )
    return task, planned


def _address(settings: Settings) -> StoreAddress:
    return StoreAddress(settings.name, settings.tracking_uri, settings.storage)


def can_ask() -> bool:
    """Whether there is a terminal to ask at, and this is the only process of the launch."""
    return sys.stdin.isatty() and distributed.launched()[1] == 1


def _confirm(planned: Planned, flops: float) -> None:
    """Ask for confirmation before a large sweep.

    Raises:
        ArgumentError: There is no terminal to ask at.
        click.exceptions.Exit: The answer was no.
    """
    if planned.plan.chosen is not None:  # for a time that the user gave
        return
    # On a GPU an hour is worth a thousand times the FLOPs.
    limit = ASK_ABOVE_ON_GPU if torch.cuda.is_available() else ASK_ABOVE_ON_CPU
    if flops <= limit:
        return
    text = f"This sweep would train {flops:.3g} FLOPs, more than {limit:.0e}"
    if not can_ask():
        raise ArgumentError(f"{text}, and there is no terminal to ask at; pass --yes to start it")
    click.echo(plan_text.as_text(planned.plan), err=True)
    if not click.confirm(f"{text}. Continue?", err=True):
        click.echo("Nothing was trained", err=True)
        raise click.exceptions.Exit(1)
