"""The commands: their options, their help, and the functions that they call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flops_fit.cli import options
from flops_fit.cli.outcome import Group
from flops_fit.cli.servers.commands import server, ui
from flops_fit.cli.tables.commands import fit, suggest
from flops_fit.version import __version__


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Find how big a model to train, on how much data, for a compute budget.

    flops-fit plans a sweep of small models, trains it, fits scaling laws to the losses, and
    predicts larger budgets. `flops-fit demo` shows this in about two minutes.
    """


@main.command()
@options.tracking_uri
@options.workers
def demo(tracking_uri: str | None, workers: str | None) -> int:
    """Run a small sweep: GPTs on Python's own source code.

    Prints the resulting table after about two minutes on two cores. The sweep can be stopped at
    any time; run the command again to continue it.

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
    """Show what `run` would train, without training.

    Takes the same options as `run`. With --name or --tracking-uri, trials that are already done are
    marked.

    \b
    Example:
      flops-fit plan --config sweep.yaml --hours 2
    """
    from flops_fit.cli import sweeps
    from flops_fit.cli.settings import read

    sweeps.plan(read(config, options.given(values)), as_json)


@main.command()
@options.of_driver
@click.option("--yes", "-y", is_flag=True, help="Start a large sweep without asking.")
def run(config: Path | None, yes: bool, **values: Any) -> int:
    """Plan a sweep, train what is missing, and fit.

    Running the same command again continues the sweep. Before training more than 1e14 FLOPs (1e17
    if there is a GPU), which takes about an hour, the command asks for confirmation, unless --hours
    is given. The exit code is 1 if trials failed, or if no law stands.

    \b
    Examples:
      flops-fit run --config sweep.yaml
      flops-fit run --model-cls my.models:GPT --model-size-param d_model \\
        --model-kwargs n_layer=4 --dataset my.data:train_set \\
        --loss-fn torch.nn.functional:cross_entropy --compute-budgets 1e14,5e14,2e15,1e16 \\
        --name gpt --workers auto

    \b
    sweep.yaml:
      model_cls: my.models:GPT
      model_size_param: d_model
      model_kwargs: {n_layer: 4}
      dataset: my.data:train_set
      loss_fn: torch.nn.functional:cross_entropy
      compute_budgets: [1e14, 5e14, 2e15, 1e16]
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
    """Train trials of a sweep that `run` drives elsewhere.

    Trains trials until none is waiting, then exits. Takes the same options as that `run`; on
    another host also its --tracking-uri (a server) and --storage (a database). Model and data are
    imported on this host, never read from a store. Failed trials are tried again, and the results
    are analysed, by `run`.

    \b
    Example:
      flops-fit worker --config sweep.yaml --name gpt --tracking-uri http://mlflow:5000 \\
        --storage postgresql://user:password@host/optuna
    """
    from flops_fit.cli import sweeps
    from flops_fit.cli.settings import read

    sweeps.join(read(config, options.given(values)))


main.command()(fit)
main.command()(suggest)


@main.command()
@options.name
@options.tracking_uri
@options.json
def analyze(name: str | None, tracking_uri: str | None, as_json: bool) -> None:
    """Fit the finished runs of a sweep again.

    The report, table, plots and laws are logged on the parent run of the sweep in MLflow.

    \b
    Example:
      flops-fit analyze --name gpt
    """
    from flops_fit.cli import results

    results.analyze(name, tracking_uri, as_json)


@main.command()
@click.argument("compute_budget", type=float, required=False)
@options.name
@options.tracking_uri
@options.params
@options.tokens
@options.spending
@options.terms
@options.anyway
@options.json
def predict(
    compute_budget: float | None,
    name: str | None,
    tracking_uri: str | None,
    params: list[float] | None,
    tokens: list[float] | None,
    anyway: bool,
    as_json: bool,
    **terms: Any,
) -> None:
    """Predict the model to train for FLOPs, hours or money, or the loss of models of given sizes.

    Uses only the finished runs of a sweep, and writes nothing.

    \b
    Examples:
      flops-fit predict 1e21 --name gpt --metric accuracy
      flops-fit predict --price 500 --price-per-hour 2.5 --devices 8 --name gpt
      flops-fit predict --params 1B,7B --tokens 2T --name gpt
    """
    from flops_fit.cli import results

    wanted = results.Wanted(compute_budget, params, tokens, options.given(terms), anyway)
    results.predict(wanted, name, tracking_uri, as_json)


@main.command()
@click.argument("compute_budget", type=float, required=False)
@options.name
@options.tracking_uri
@options.params
@options.tokens
@click.option("--note", default="", help="Text to keep with the forecast.")
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    help="File to write, or a folder. Default: a file in the folder forecasts.",
)
@options.anyway
def forecast(
    compute_budget: float | None,
    name: str | None,
    tracking_uri: str | None,
    params: list[float] | None,
    tokens: list[float] | None,
    note: str,
    output: Path | None,
    anyway: bool,
) -> None:
    """Write a prediction down with its date, to be compared with what will come.

    It is written to a file and to the sweep's parent run in MLflow. Later reports of the sweep say
    how it came out, and so does `flops-fit score`.

    \b
    Examples:
      flops-fit forecast 1e21 --name gpt --note "before the large run"
      flops-fit forecast --params 7B --tokens 2T --name gpt
    """
    from flops_fit.cli import results

    wanted = results.Wanted(compute_budget, params, tokens, anyway=anyway)
    results.forecast(wanted, name, tracking_uri, note, output)


@main.command()
@click.argument("forecasts", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--runs",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Table of the runs that came, as `fit` reads it.",
)
@click.option("--name", help="Sweep whose runs came, instead of a table.")
@options.tracking_uri
@click.option("--loss", type=float, help="Loss that a single forecast came to, instead of runs.")
@options.json
def score(
    forecasts: tuple[Path, ...],
    runs: Path | None,
    name: str | None,
    tracking_uri: str | None,
    loss: float | None,
    as_json: bool,
) -> None:
    """Compare forecasts with what came out.

    FORECASTS are files that `flops-fit forecast` wrote, or folders of them. A run whose N and D are
    within 5 % of a forecast's is its outcome; of several, the mean.

    \b
    Examples:
      flops-fit score forecasts --runs runs.csv
      flops-fit score forecasts --name gpt
    """
    from flops_fit.cli import results

    results.score_forecasts(forecasts, runs, name, tracking_uri, loss, as_json)


@main.command()
@click.argument("names", nargs=-1, required=True)
@options.tracking_uri
@click.option(
    "--budgets",
    type=options.Numbers(),
    metavar="C,C,...",
    help="Budgets in FLOPs to compare at. Default: those of the sweeps, and beyond.",
)
@click.option(
    "--bytes-per-token",
    type=options.Pair(),
    multiple=True,
    help="Mean bytes of text in a token, as gpt=4.2, for each sweep: compares losses per byte.",
)
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="File to write the page to, beside the parent runs of the sweeps.",
)
@options.anyway
@options.json
def compare(
    names: tuple[str, ...],
    tracking_uri: str | None,
    budgets: list[float] | None,
    bytes_per_token: tuple[tuple[str, float], ...],
    output: Path | None,
    anyway: bool,
    as_json: bool,
) -> None:
    """Compare sweeps: which needs less compute for the same loss, and how sure that is.

    NAMES are sweeps in the store; the others are compared with the first.

    \b
    Example:
      flops-fit compare gpt-learned gpt-rope --output rope.html
    """
    from flops_fit.cli import results

    per = dict(bytes_per_token) or None
    results.compare_sweeps(names, tracking_uri, budgets, per, output, anyway, as_json)


@main.command()
@options.name
@options.tracking_uri
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="File to write. Default: NAME.html in the current folder.",
)
def report(name: str | None, tracking_uri: str | None, output: Path | None) -> None:
    """Write the results of a sweep as one HTML page.

    The page is a single file that works without a network.

    \b
    Example:
      flops-fit report --name gpt --output gpt.html
    """
    from flops_fit.cli import results

    results.report(name, tracking_uri, output)


main.command()(ui)
main.command()(server)
