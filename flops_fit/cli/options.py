"""The options that commands share, and what was given of them as plain values."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from json import dumps
from pathlib import Path
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])
_LISTS = ("budgets", "sizes")
_ADDRESSES = ("tracking_uri", "storage")
_DRIVER_ALONE = ("workers", "retry_failed", "on_code_change", "extend")
_PAIRS = {
    "model_arg": "model_args",
    "data_arg": "data_args",
    "eval_data_arg": "eval_data_args",
    "metric": "metrics",
    "recipe": "recipe",
}
_SECRET = re.compile(
    r"(^|_)(pass(word|wd|phrase)?|secret|token|credentials?|(api|access|private)_?key)$", re.I
)
# An empty one counts as not given: entry points of `mlflow run` cannot leave a parameter out.
_MAY_BE_EMPTY = ("name", "sizes", "storage", "eval_data")


class Pair(click.ParamType[Any]):
    """`name=value`; the value reads as in YAML."""

    name = "name=value"

    def convert(self, value: Any, param: Any, ctx: Any) -> Any:
        """The name and the value."""
        from flops_fit.cli import safe_yaml

        key, sign, text = str(value).partition("=")
        if not sign or not key.strip():
            self.fail(f"expected name=value, as n_layer=4, got {value!r}", param, ctx)
        return key.strip(), safe_yaml.scalar(text)


name = click.option("--name", required=True, help="Name of the sweep.")
tracking_uri = click.option(
    "--tracking-uri",
    metavar="URI",
    help="MLflow store; by default MLFLOW_TRACKING_URI, else mlruns/mlflow.db.",
)
json = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
storage = click.option(
    "--storage", metavar="URL", help="Optuna storage; by default optuna.db beside the MLflow store."
)
workers = click.option(
    "--workers",
    metavar="COUNT",
    default=None,
    help='Worker processes; "auto" is one per GPU, else one per core.',
)
_PATH = "PACKAGE.MODULE:NAME"
_TASK = [
    click.option(
        "--config",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="YAML file with these options as keys (model, size_param, model_args, ...); options "
        "given here go before its own.",
    ),
    click.option("--model", metavar=_PATH, help="Model class, or a function that builds one."),
    click.option("--size-param", metavar="NAME", help="Its argument that sets the size."),
    click.option(
        "--model-arg", type=Pair(), multiple=True, help="Another argument of it; repeatable."
    ),
    click.option("--data", metavar=_PATH, help="Function that returns the data (or the data)."),
    click.option("--data-arg", type=Pair(), multiple=True, help="An argument of it; repeatable."),
    click.option(
        "--eval-data", metavar=_PATH, help="The same for held-out data; by default a twentieth."
    ),
    click.option(
        "--eval-data-arg", type=Pair(), multiple=True, help="An argument of it; repeatable."
    ),
    click.option("--loss", metavar=_PATH, help="Loss function of (outputs, targets)."),
    click.option(
        "--metric",
        type=Pair(),
        multiple=True,
        help="What else to measure on held-out data, as accuracy=my.module:accuracy; repeatable.",
    ),
    click.option("--budgets", metavar="C,C,...", help="Budgets in FLOPs, as 1e15,1e16,1e17."),
    click.option("--sizes", metavar="S,S,...", help="Sizes to train; by default they are planned."),
    click.option(
        "--recipe",
        type=Pair(),
        multiple=True,
        help="A field of the recipe, as warmup=0.05 or learning_rate=my.module:rule; repeatable.",
    ),
    click.option(
        "--flops", metavar="HOW", help=f"measured (the default), 6ND, or a function, {_PATH}."
    ),
    click.option("--seed", type=int, help="Seed of the sweep; 0 by default."),
    click.option("--name", help="Name of the sweep; by default the model's."),
    tracking_uri,
    storage,
    workers,
]
_DRIVER = [
    click.option(
        "--retry-failed", is_flag=True, default=None, help="Try again what failed three times."
    ),
    click.option(
        "--on-code-change",
        type=click.Choice(["warn", "error", "rerun"]),
        help="What to do where the source of model, loss or data has changed since.",
    ),
    click.option(
        "--extend/--no-extend",
        default=None,
        help="Add sizes to a budget's row where the loss is least at its edge (the default).",
    ),
]


def of_task(function: _F) -> _F:
    """Options that say what is trained, and where it is kept."""
    return _with(_TASK, function)


def of_driver(function: _F) -> _F:
    """Those, and options of the process that drives a sweep."""
    return _with([*_TASK, *_DRIVER], function)


def given(values: Mapping[str, Any]) -> dict[str, Any]:
    """What the command line gave, under the keys of `Settings`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if value is None or value == () or (value == "" and key in _MAY_BE_EMPTY):
            continue
        if key in _PAIRS:
            found[_PAIRS[key]] = dict(value)
        else:
            found[key] = _value(key, value)
    return found


def _value(key: str, value: Any) -> Any:
    from flops_fit.cli import safe_yaml

    if key in _LISTS:
        parts = value.strip(" ,").split(",")
        return [safe_yaml.scalar(part.strip()) for part in parts]
    return safe_yaml.scalar(value) if key == "workers" else value


def worker_command(values: Mapping[str, Any], name: str) -> str:
    """The command line by which a worker joins the sweep that these options start.

    It goes to logs, and so without the passwords of stores, and with `***` for the values of
    arguments that are named like secrets.
    """
    from flops_fit.store.uri import without_credentials

    words = ["flops-fit", "worker"]
    for key, value in {**values, "name": name}.items():
        if key in _DRIVER_ALONE:
            continue
        option = f"--{key.replace('_', '-')}"
        if key in _PAIRS:
            for inner, typed in value:
                text = typed if isinstance(typed, str) else dumps(typed)
                words += [option, f"{inner}={'***' if _SECRET.search(inner) else text}"]
        elif value not in (None, "", ()):
            shown = without_credentials(value) if key in _ADDRESSES else str(value)
            words += [option, shown]
    return shlex.join(words)


def _with(options: Sequence[Callable[[Any], Any]], function: _F) -> _F:
    for option in reversed(options):
        function = option(function)
    return function
