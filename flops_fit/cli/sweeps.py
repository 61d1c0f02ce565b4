"""What `plan`, `run` and `worker` do."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

import click
import torch

from flops_fit.api import run_and_analyze
from flops_fit.cli import as_json as shown_as_json
from flops_fit.cli.results import exit_code
from flops_fit.cli.settings import Settings
from flops_fit.errors import ArgumentError
from flops_fit.examples.show import show
from flops_fit.prepare import flops_to_come, plan_only, prepare
from flops_fit.report import plan_text
from flops_fit.runtime import distributed
from flops_fit.sweep.execution.driver import join_sweep
from flops_fit.sweep.plan.planner import Planned
from flops_fit.sweep.task.task import Task
from flops_fit.sweep_setup import join_job, open_job
from flops_fit.tracking.address import StoreAddress

# About an hour: of a CPU core at 3e10 FLOPs a second, of a GPU at 3e13.
ASK_ABOVE_ON_CPU, ASK_ABOVE_ON_GPU = 1e14, 1e17


def plan(settings: Settings, as_json: bool) -> None:
    """Print what would be trained."""
    with user_prints_on_stderr():
        task, request = settings.imported()
        made = plan_only(task, request, _address(settings))
    print(shown_as_json.dumps(shown_as_json.of_plan(made)) if as_json else made)


def run(settings: Settings, yes: bool, joined_by: Callable[[str], str]) -> int:
    """Train what is missing and show what it says; returns the exit code.

    Args:
        settings: What to train.
        yes: Do not ask.
        joined_by: From the sweep's name to the command by which a worker joins.
    """
    task, planned = _prepared(settings)
    address = _address(settings)
    if not yes:
        _ask(planned, flops_to_come(planned, address))
    job = open_job(task, planned, address)
    result = run_and_analyze(
        job,
        planned,
        workers=settings.workers,
        retry_failed=settings.retry_failed,
        on_code_change=settings.on_code_change,
        extend=settings.extend,
        announcement=f"{plan_text.as_text(planned.plan)}\n"
        f"To help from another terminal: {joined_by(job.ledger.name)}",
    )
    if distributed.rank():
        return 0
    show(result)
    return exit_code(result, planned.plan.compute_budgets)


def help_out(settings: Settings) -> None:
    """Train what waits of a sweep that runs elsewhere."""
    task, planned = _prepared(settings)
    job = join_job(task, planned, _address(settings))
    join_sweep(job, workers=settings.workers, source=planned.source)


@contextlib.contextmanager
def user_prints_on_stderr() -> Iterator[None]:
    """Within, what model and data print does not mix with what a script reads."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def _prepared(settings: Settings) -> tuple[Task, Planned]:
    with user_prints_on_stderr():
        task, request = settings.imported()
        planned = prepare(
            task,
            request,
            _address(settings),
            workers=settings.workers,
            on_code_change=settings.on_code_change,
        )
    return task, planned


def _address(settings: Settings) -> StoreAddress:
    return StoreAddress(settings.name, settings.tracking_uri, settings.storage)


def can_ask() -> bool:
    """Whether somebody is there to answer, and one process alone to listen."""
    return sys.stdin.isatty() and distributed.launched()[1] == 1


def _ask(planned: Planned, flops: float) -> None:
    """Ask before a large sweep.

    Raises:
        ArgumentError: Nobody can be asked.
        click.exceptions.Exit: The answer was no.
    """
    limit = ASK_ABOVE_ON_GPU if torch.cuda.is_available() else ASK_ABOVE_ON_CPU
    if flops <= limit:
        return
    text = f"{flops:.3g} FLOPs are to be trained, more than {limit:.0e}"
    if not can_ask():
        raise ArgumentError(f"{text}, and there is no terminal to ask at: pass --yes")
    click.echo(plan_text.as_text(planned.plan), err=True)
    if not click.confirm(f"{text}. Go on?", err=True):
        click.echo("Nothing was trained", err=True)
        raise click.exceptions.Exit(1)
