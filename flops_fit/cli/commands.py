"""The commands: their options, their help, and what they call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flops_fit.cli import options
from flops_fit.cli.outcome import Group
from flops_fit.version import __version__

_PORT = click.IntRange(1, 65535)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """How big a model, on how much data, and what loss will it reach?

    Answered by experiment: plan a sweep of small models, train it, fit scaling laws to it, and
    predict. `flops-fit demo` shows it in three minutes.
    """


@main.command()
@options.tracking_uri
@options.workers
def demo(tracking_uri: str | None, workers: str | None) -> int:
    """Train small GPTs on Python's own source.

    Shows the table that comes of it, after about three minutes on two cores. Stop it when you
    like, and run it again to go on.

    \b
    Example:
      flops-fit demo
    """
    from flops_fit.cli.demo import run_demo

    return run_demo(tracking_uri, options.given({"workers": workers}).get("workers", "auto"))


@main.command()
@options.of_driver
@options.json
def plan(config: Path | None, as_json: bool, **values: Any) -> None:
    """Show what `run` would train; train nothing.

    Takes the options of `run`. With a --name it shows what that sweep has done already.

    \b
    Example:
      flops-fit plan --model my.models:GPT --size-param d_model --model-arg n_layer=4 \\
        --data my.data:train_set --loss torch.nn.functional:cross_entropy \\
        --budgets 1e15,1e16,1e17
    """
    from flops_fit.cli import sweeps
    from flops_fit.cli.settings import read

    sweeps.plan(read(config, options.given(values)), as_json)


@main.command()
@options.of_driver
@click.option("--yes", "-y", is_flag=True, help="Do not ask before a large sweep.")
def run(config: Path | None, yes: bool, **values: Any) -> int:
    """Plan, train what is missing, and fit.

    Run again, it goes on where it stopped. It asks before it trains more than 1e14 FLOPs (1e17
    where there is a GPU): about an hour. Exits with 1 where trials failed.

    \b
    Examples:
      flops-fit run --config sweep.yaml
      flops-fit run --model my.models:GPT --size-param d_model --model-arg n_layer=4 \\
        --data my.data:train_set --loss torch.nn.functional:cross_entropy \\
        --budgets 1e15,1e16,1e17 --name gpt --workers auto

    \b
    sweep.yaml:
      model: my.models:GPT
      size_param: d_model
      model_args: {n_layer: 4}
      data: my.data:train_set
      loss: torch.nn.functional:cross_entropy
      budgets: [1e15, 1e16, 1e17]
      recipe: {warmup: 0.05}
    """
    from flops_fit.cli import sweeps
    from flops_fit.cli.settings import read

    given = {"config": config, **values}
    return sweeps.run(
        read(config, options.given(values)), yes, lambda name: options.worker_command(given, name)
    )


@main.command()
@options.of_task
def worker(config: Path | None, **values: Any) -> None:
    """Help a sweep that `run` drives elsewhere.

    Trains what waits, and leaves when nothing does. Takes the options of that `run`; from another
    host, with the same --tracking-uri (a server) and --storage (a database). Model and data are
    imported here, never read from a store. What fails is tried again, and analysed, by `run`.

    \b
    Example:
      flops-fit worker --config sweep.yaml --name gpt --tracking-uri http://mlflow:5000 \\
        --storage postgresql://user:password@host/optuna
    """
    from flops_fit.cli import sweeps
    from flops_fit.cli.settings import read

    sweeps.help_out(read(config, options.given(values)))


@main.command()
@options.name
@options.tracking_uri
@options.json
def analyze(name: str, tracking_uri: str | None, as_json: bool) -> None:
    """Fit a sweep's finished runs again.

    Table, plots and laws are logged beside them, on the sweep's run.

    \b
    Example:
      flops-fit analyze --name gpt
    """
    from flops_fit.cli import results

    results.analyze(name, tracking_uri, as_json)


@main.command()
@click.argument("compute_budget", type=float)
@options.name
@options.tracking_uri
@click.option("--tokens-per-param", type=float, help="Train at this ratio, not at the best one.")
@click.option("--inference-tokens", type=float, help="Tokens to be served; the budget pays both.")
@click.option("--unique-tokens", type=float, help="Tokens there are; beyond, they are repeated.")
@options.json
def predict(
    compute_budget: float, name: str, tracking_uri: str | None, as_json: bool, **terms: float | None
) -> None:
    """Say what to train for a budget in FLOPs.

    Answers from the finished runs of a sweep alone, and writes nothing.

    \b
    Example:
      flops-fit predict 1e21 --name gpt
    """
    from flops_fit.cli import results

    results.predict(compute_budget, name, tracking_uri, terms, as_json)


@main.command()
@options.name
@options.tracking_uri
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="Where to write it; by default NAME.html here.",
)
def report(name: str, tracking_uri: str | None, output: Path | None) -> None:
    """Write what a sweep says as an HTML page.

    One file, which needs no network.

    \b
    Example:
      flops-fit report --name gpt --output gpt.html
    """
    from flops_fit.cli import results

    results.report(name, tracking_uri, output)


@main.command()
@click.option("--name", help="Sweep to link to; by default all.")
@options.tracking_uri
@click.option("--port", type=_PORT, default=5000, show_default=True)
def ui(name: str | None, tracking_uri: str | None, port: int) -> None:
    """Serve MLflow's pages, with links to sweeps.

    \b
    Example:
      flops-fit ui --name gpt
    """
    from flops_fit.cli.pages import serve

    serve(name, tracking_uri, port)


@main.command()
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default="flops_fit_server",
    show_default=True,
    help="Where databases, artifacts and passwords are kept.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=_PORT, default=5000, show_default=True, help="MLflow's.")
@click.option("--postgres-port", type=_PORT, default=5432, show_default=True)
def server(folder: Path, host: str, port: int, postgres_port: int) -> None:
    """Serve PostgreSQL and MLflow, for sweeps on several machines.

    Needs `pip install 'flops-fit[server]'`, and no Docker. PostgreSQL asks for a password; MLflow
    does not: with a --host that others reach, they can read and change what it holds.

    \b
    Example:
      flops-fit server --host 0.0.0.0
    """
    from flops_fit.cli.server import serve

    serve(folder, host, port, postgres_port)
