"""The options that several commands share, and their values as plain data.

Options have the names of the arguments of `flops_fit.find_optimal`: `--model-cls`, `--dataset`, ...
Shorter, older spellings (`--model`, `--data`, ...) are accepted as aliases.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import Any, TypeVar

import click

from flops_fit.cli.goal_options import GOAL_OPTIONS

_F = TypeVar("_F", bound=Callable[..., Any])
_LISTS = ("compute_budgets", "sizes")
_ADDRESSES = ("tracking_uri", "storage")
# Options that a worker does not take over from the command that started the sweep.
_DRIVER_ONLY = ("workers", "workers_per_device", "retry_failed", "on_code_change", "extend")
_MAPPINGS = ("model_kwargs", "dataset_kwargs", "eval_dataset_kwargs", "metrics", "recipe")
# Names of arguments whose values must not appear in logs.
_SECRET = re.compile(
    r"(^|_)(pass(word|wd|phrase)?|secret|token|credentials?|(api|access|private)_?key)$", re.I
)
# `mlflow run` cannot leave out a parameter of an entry point, so an empty text means "not given".
_MAY_BE_EMPTY = ("name", "sizes", "storage", "eval_dataset", "paired_with")


class Pair(click.ParamType[Any]):
    """An option value of the form `name=value`; the value is read as YAML."""

    name = "name=value"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Split the text into the name and the parsed value."""
        from flops_fit.cli import safe_yaml

        key, sign, text = str(value).partition("=")
        if not sign or not key.strip():
            self.fail(f"expected name=value, for example n_layer=4; got {value!r}", param, ctx)
        return key.strip(), safe_yaml.scalar(text)


class Numbers(click.ParamType[Any]):
    """Numbers with commas between them, as people write them: 7e9 or 7B."""

    name = "numbers"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """Split the text into a list of floats."""
        import pandas as pd

        from flops_fit.laws.runs.numbers import to_numbers

        found = to_numbers(pd.Series(str(value).strip(" ,").split(","), dtype=object)).tolist()
        if not all(number > 0 for number in found):
            self.fail(f"expected positive numbers, for example 7e9 or 1B,7B; got {value!r}")
        return found


name = click.option(
    "--name",
    callback=lambda context, option, value: value or None,
    help="Name of the sweep. Default: the only one in the store.",
)
anyway = click.option(
    "--anyway", is_flag=True, help="Show predictions far beyond the runs, which are refused else."
)
tracking_uri = click.option(
    "--tracking-uri",
    metavar="URI",
    help="MLflow store. Default: MLFLOW_TRACKING_URI, else mlruns/mlflow.db.",
)
params = click.option(
    "--params",
    type=Numbers(),
    metavar="N,N,...",
    help="Sizes to predict the loss of, with --tokens.",
)
tokens = click.option(
    "--tokens", type=Numbers(), metavar="D,D,...", help="Tokens that each of --params trains on."
)


def _all(*several: Any) -> Callable[[Any], Any]:
    """Several options as one decorator, in their order."""

    def add(command: Any) -> Any:
        for option in reversed(several):
            command = option(command)
        return command

    return add


spending = _all(
    click.option("--hours", type=float, help="Hours to train in, instead of a budget in FLOPs."),
    click.option("--price", type=float, help="Money to train for, instead of a budget in FLOPs."),
    click.option("--price-per-hour", type=float, help="Price of one device, with --price."),
    click.option(
        "--devices", type=int, help="Devices that share the hours, without loss. Default: 1."
    ),
)
terms = _all(
    click.option(
        "--tokens-per-param",
        type=float,
        help="Train at this ratio D / N instead of the optimal one.",
    ),
    click.option(
        "--inference-tokens",
        type=float,
        help="Tokens that the model will serve; the budget then pays for training and serving.",
    ),
    click.option(
        "--unique-tokens", type=float, help="Tokens available; training beyond them repeats data."
    ),
    click.option("--metric", help="A metric of the runs to forecast beside the loss."),
)
json = click.option("--json", "as_json", is_flag=True, help="Print only JSON, for scripts.")
storage = click.option(
    "--storage",
    metavar="URL",
    help="Optuna storage. Default: optuna.db next to the MLflow store.",
)
workers = click.option(
    "--workers",
    metavar="COUNT",
    default=None,
    help='Number of worker processes; "auto" means as many on each GPU as can be of use, '
    "or one per CPU core. Default: 1 (demo: auto).",
)
_PATH = "MODULE:NAME"
_TASK = [
    click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="YAML file whose keys are these options (model_cls, model_size_param, ...). Options "
        "on the command line override the file.",
    ),
    click.option(
        "--model-cls",
        "--model",
        "model_cls",
        metavar=_PATH,
        help="Model class, or a function that builds the model.",
    ),
    click.option(
        "--model-size-param",
        "--size-param",
        "model_size_param",
        metavar="NAME",
        help="Argument of the model class that sets the size.",
    ),
    click.option(
        "--model-kwargs",
        "--model-arg",
        "model_kwargs",
        type=Pair(),
        multiple=True,
        help="Another argument of the model class. Repeatable.",
    ),
    click.option(
        "--dataset",
        "--data",
        "dataset",
        metavar=_PATH,
        help="Training data, or a function that returns it.",
    ),
    click.option(
        "--dataset-kwargs",
        "--data-arg",
        "dataset_kwargs",
        type=Pair(),
        multiple=True,
        help="An argument of the function of --dataset. Repeatable.",
    ),
    click.option(
        "--eval-dataset",
        "--eval-data",
        "eval_dataset",
        metavar=_PATH,
        help="Held-out data, or a function that returns it. Default: a twentieth of --dataset, in "
        "blocks spread over it.",
    ),
    click.option(
        "--eval-dataset-kwargs",
        "--eval-data-arg",
        "eval_dataset_kwargs",
        type=Pair(),
        multiple=True,
        help="An argument of the function of --eval-dataset. Repeatable.",
    ),
    click.option(
        "--loss-fn", "--loss", "loss_fn", metavar=_PATH, help="Loss function (outputs, targets)."
    ),
    click.option(
        "--metrics",
        "--metric",
        "metrics",
        type=Pair(),
        multiple=True,
        help="Another measurement on the held-out data, for example accuracy=my.module:accuracy. "
        "Repeatable.",
    ),
    click.option(
        "--compute-budgets",
        "--budgets",
        "compute_budgets",
        metavar="C,C,...",
        help="Compute budgets in FLOPs, for example 1e14,5e14,2e15,1e16; or what the sweep may "
        'take, from which they are chosen: 2h, 30min, "50 USD".',
    ),
    click.option(
        "--hours",
        type=float,
        help="Choose budgets for a sweep of so many hours on this machine, instead of "
        "--compute-budgets. The same command continues the sweep with the same budgets.",
    ),
    click.option(
        "--price-per-hour",
        type=float,
        help="Price of one device, where --compute-budgets is an amount of money.",
    ),
    *GOAL_OPTIONS,
    click.option(
        "--sizes",
        metavar="S,S,...",
        help="Values of the size parameter to train at every budget. Default: chosen for you.",
    ),
    click.option(
        "--recipe",
        type=Pair(),
        multiple=True,
        help="A field of flops_fit.Recipe, for example warmup=0.05 or "
        "learning_rate=my.module:rule. Repeatable.",
    ),
    click.option(
        "--flops",
        metavar="HOW",
        help=f"How to count FLOPs: measured (the default), 6ND, or a function, {_PATH}.",
    ),
    click.option(
        "--paired-with",
        metavar="NAME",
        help="A finished sweep on the same data that this one is to be compared with: trials share "
        "initialisation and data order, which makes `flops-fit compare` sharper.",
    ),
    click.option("--seed", type=int, help="Random seed of the sweep. Default: 0."),
    click.option("--name", help="Name of the sweep. Default: the name of the model class."),
    tracking_uri,
    storage,
    workers,
    click.option(
        "--workers-per-device",
        type=int,
        metavar="COUNT",
        help="Workers that share each GPU, with --workers auto. Default: as many as its memory "
        "holds and keep it busy.",
    ),
]
_DRIVER = [
    click.option(
        "--retry-failed",
        is_flag=True,
        default=None,
        help="Train trials again that have failed three times.",
    ),
    click.option(
        "--on-code-change",
        type=click.Choice(["warn", "error", "rerun"]),
        help="What to do if the source of the model, loss or data has changed since the finished "
        "trials were trained. Default: warn.",
    ),
    click.option(
        "--extend/--no-extend",
        default=None,
        help="Add up to two sizes to a budget whose lowest loss is at its smallest or largest "
        "size. Default: --extend.",
    ),
]


def of_task(function: _F) -> _F:
    """Add the options that define what is trained, and where runs are stored."""
    return _with(_TASK, function)


def of_driver(function: _F) -> _F:
    """Add the options of `of_task`, and those of the process that drives a sweep."""
    return _with([*_TASK, *_DRIVER], function)


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, as keys and values of `Settings`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if value is None or value == () or (value == "" and key in _MAY_BE_EMPTY):
            continue
        found[key] = dict(value) if key in _MAPPINGS else _value(key, value)
    return found


def _value(key: str, value: Any) -> Any:
    from flops_fit.cli import safe_yaml

    # A size may be a number or a name, and workers a number or "auto": YAML tells them apart.
    if key in _LISTS:
        parts = value.strip(" ,").split(",")
        return [safe_yaml.scalar(part.strip()) for part in parts]
    return safe_yaml.scalar(value) if key == "workers" else value


def worker_command(values: Mapping[str, Any], name: str) -> str:
    """The command line by which a worker joins the sweep that these options start.

    It is written to logs, so the passwords of stores are left out, and the values of arguments
    with names like `password` or `api_key` are replaced by `***`.
    """
    from flops_fit.store.uri import without_credentials

    words = ["flops-fit", "worker"]
    for key, value in {**values, "name": name}.items():
        if key in _DRIVER_ONLY:
            continue
        option = f"--{key.replace('_', '-')}"
        if key in _MAPPINGS:
            for argument, parsed in value:
                text = parsed if isinstance(parsed, str) else dumps(parsed)
                words += [option, f"{argument}={'***' if _SECRET.search(argument) else text}"]
        elif value not in (None, "", ()):
            shown = without_credentials(value) if key in _ADDRESSES else str(value)
            words += [option, shown]
    return shlex.join(words)


def _with(options: Sequence[Callable[[Any], Any]], function: _F) -> _F:
    # Click lists options in the reverse order in which the decorators are applied.
    for option in reversed(options):
        function = option(function)
    return function
