"""What a sweep is asked for on the command line and in a file, before anything is imported."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from flops_fit.cli import imports, safe_yaml
from flops_fit.errors import ArgumentError
from flops_fit.sweep.plan.request import PlanRequest
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.recipe import Recipe

_NEEDED = ("model", "size_param", "data", "loss", "budgets")
_NAMES = ("model", "size_param", "data", "eval_data", "loss", "name", "tracking_uri", "storage")
_MAPPINGS = ("model_args", "data_args", "eval_data_args", "metrics", "recipe")
_LISTS = ("budgets", "sizes")
_FUNCTIONS = ("learning_rate", "optimizer", "schedule")  # of the recipe, which may be imported


@dataclass(frozen=True)
class Settings:
    """A sweep as the keys of a file: import paths, numbers and words.

    Attributes:
        model: Import path of the model class.
        size_param: Name of its size argument.
        model_args: Its other arguments.
        data: Import path of a function that returns the data, or of the data.
        data_args: What that function is given.
        eval_data: The same for held-out data; None sets a share of the data aside.
        eval_data_args: What that function is given.
        loss: Import path of the loss function.
        metrics: Import paths of what else is measured on held-out data, by name.
        budgets: Budgets in FLOPs.
        sizes: Values of the size argument; None to plan them.
        recipe: Fields of `flops_fit.Recipe`; functions by import path.
        flops: "measured", "6ND", or the import path of a function.
        name: Name of the sweep.
        tracking_uri: MLflow store.
        storage: Optuna storage.
        workers: How many, or "auto".
        seed: Seed of the sweep.
        retry_failed: Try failed trials again.
        on_code_change: "warn", "error" or "rerun".
        extend: Whether rows with the least loss at an edge get more sizes.
    """

    model: str | None = None
    size_param: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    data: str | None = None
    data_args: Mapping[str, Any] = field(default_factory=dict)
    eval_data: str | None = None
    eval_data_args: Mapping[str, Any] = field(default_factory=dict)
    loss: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    budgets: Sequence[float] | None = None
    sizes: Sequence[Any] | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    flops: str = "measured"
    name: str | None = None
    tracking_uri: str | None = None
    storage: str | None = None
    workers: int | str = 1
    seed: int = 0
    retry_failed: bool = False
    on_code_change: str = "warn"
    extend: bool = True

    def imported(self) -> tuple[Task, PlanRequest]:
        """Model, data and loss, and what to plan for them.

        Raises:
            ArgumentError: Listing all that is missing, not to be found, or cannot be followed.
        """
        problems: list[str] = []
        made: list[Any] = []
        for part in (self.task, self.request):
            try:
                made.append(part())
            except ArgumentError as error:
                problems += error.problems
        if problems:
            raise ArgumentError(problems)
        task, request = made
        return task, request

    def task(self) -> Task:
        """Model, data and loss, imported.

        Raises:
            ArgumentError: Listing all that is missing or not to be found.
        """
        missing = [key for key in _NEEDED if not getattr(self, key)]
        shown = f"missing: {', '.join(missing)} (options, as --model, or keys of --config)"
        problems = [shown] * bool(missing)

        def found(key: str) -> Any:
            path = getattr(self, key)
            return None if not path else _import(key, path, problems)

        model, loss = found("model"), found("loss")
        data = _given("data", self.data, self.data_args, problems)
        held_out = _given("eval_data", self.eval_data, self.eval_data_args, problems)
        metrics = {
            key: _import(f"metrics {key}", path, problems) for key, path in self.metrics.items()
        }
        if problems:
            raise ArgumentError(problems)
        assert self.size_param is not None
        loss = loss() if isinstance(loss, type) else loss  # torch.nn:CrossEntropyLoss
        return Task(model, self.size_param, self.model_args, data, loss, held_out, metrics)

    def request(self) -> PlanRequest:
        """What to plan.

        Raises:
            ArgumentError: The recipe cannot be followed, or what it names is not to be found.
        """
        problems: list[str] = []
        flops: Any = self.flops
        if isinstance(flops, str) and ":" in flops:
            flops = _import("flops", flops, problems)
        recipe = {key: _recipe_value(key, value, problems) for key, value in self.recipe.items()}
        problems += _unknown(recipe, [f.name for f in fields(Recipe)], "recipe: unknown field")
        if problems:
            raise ArgumentError(problems)
        return PlanRequest(self.budgets, self.sizes, Recipe(**recipe), flops, self.seed)


def read(file: Path | None, given: Mapping[str, Any]) -> Settings:
    """A file's settings, and over them those of the command line.

    Args:
        file: A YAML file; None for the command line alone.
        given: What the command line gave; mappings are merged key by key.

    Raises:
        ArgumentError: Listing what is wrong with the file: unreadable, unknown keys, wrong kinds.
    """
    values = {} if file is None else _read_file(file)
    for key, value in given.items():
        values[key] = {**values.get(key, {}), **value} if key in _MAPPINGS else value
    return Settings(**values)


def _read_file(file: Path) -> dict[str, Any]:
    try:
        values = safe_yaml.load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"{file}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ArgumentError(f"{file}: cannot be read: {_where(error)}") from error
    if not isinstance(values, dict):
        raise ArgumentError(f"{file}: expected a mapping of keys as 'model:', got {values!r:.80}")
    values = {str(key).replace("-", "_"): value for key, value in values.items()}
    problems = _unknown(values, [f.name for f in fields(Settings)], f"{file}: unknown key")
    kept = {key: _listed(key, value) for key, value in values.items() if value is not None}
    problems += [fault for key, value in kept.items() for fault in _wrong_kind(key, value)]
    if problems:
        raise ArgumentError(problems)
    return kept


def _where(error: yaml.YAMLError) -> str:
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    return f"{problem}, in line {mark.line + 1}" if mark else str(error).splitlines()[0]


def _listed(key: str, value: Any) -> Any:
    return [value] if key in _LISTS and not isinstance(value, list) else value


def _wrong_kind(key: str, value: Any) -> Iterable[str]:
    if key in _NAMES and not isinstance(value, str):
        yield f"{key}: expected text, got {value!r}"
    if key in _MAPPINGS and not (
        isinstance(value, dict) and all(isinstance(k, str) for k in value)
    ):
        yield f"{key}: expected names and values, as 'n_layer: 4', got {value!r}"


def _unknown(keys: Iterable[str], known: Sequence[str], what: str) -> list[str]:
    def hint(key: str) -> str:
        near = difflib.get_close_matches(key, known, 1)
        return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"

    return [f"{what} {key!r}; {hint(key)}" for key in keys if key not in known]


def _import(key: str, path: str, problems: list[str]) -> Any:
    try:
        return imports.load(path)
    except imports.NotFoundError as error:
        problems.append(f"{key}: {error}")
        return None


def _given(key: str, path: str | None, arguments: Mapping[str, Any], problems: list[str]) -> Any:
    found = _import(key, path, problems) if path else None
    if arguments and not path:
        problems.append(f"{key}_args: given without {key}")
    elif arguments and found is not None and not callable(found):
        problems.append(f"{key}_args: {key} names an object that takes no arguments, {found!r:.80}")
    return partial(found, **arguments) if arguments and callable(found) else found


def _recipe_value(key: str, value: Any, problems: list[str]) -> Any:
    if key in _FUNCTIONS and isinstance(value, str) and ":" in value:
        return _import(f"recipe {key}", value, problems)
    return tuple(value) if isinstance(value, list) else value
