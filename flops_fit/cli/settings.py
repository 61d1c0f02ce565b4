"""`Settings`: a sweep as given by the command line and a YAML file, before anything is imported."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import yaml

from flops_fit.cli import imports, safe_yaml
from flops_fit.errors import ArgumentError
from flops_fit.laws.design.goal import UNTIL, Goal
from flops_fit.sweep.plan.request import PlanRequest, Spending
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.recipe import Recipe
from flops_fit.validate import is_positive, raise_problems

_T = TypeVar("_T")
_REQUIRED = ("model_cls", "model_size_param", "dataset", "loss_fn", "compute_budgets")
_TEXTS = (
    "model_cls", "model_size_param", "dataset", "eval_dataset", "loss_fn", "name", "tracking_uri",
    "storage", "paired_with",
)  # fmt: skip
_MAPPINGS = ("model_kwargs", "dataset_kwargs", "eval_dataset_kwargs", "metrics", "recipe")
_LISTS = ("compute_budgets", "sizes")
_FUNCTIONS = ("learning_rate", "optimizer", "schedule")  # fields of the recipe: may be import paths
# Keys of earlier versions.
_ALIASES = {
    "model": "model_cls",
    "size_param": "model_size_param",
    "model_args": "model_kwargs",
    "data": "dataset",
    "data_args": "dataset_kwargs",
    "eval_data": "eval_dataset",
    "eval_data_args": "eval_dataset_kwargs",
    "loss": "loss_fn",
    "budgets": "compute_budgets",
}


@dataclass(frozen=True)
class Settings:
    """The arguments of `flops_fit.find_optimal` as import paths, numbers and text.

    Attributes:
        model_cls: Import path of the model class.
        model_size_param: Name of its size argument.
        model_kwargs: Its other arguments.
        dataset: Import path of the data, or of a function that returns it.
        dataset_kwargs: Arguments of that function.
        eval_dataset: Import path of the held-out data, or of a function that returns it; None sets
            aside a share of the data.
        eval_dataset_kwargs: Arguments of that function.
        loss_fn: Import path of the loss function.
        metrics: Import paths of further measurements on the held-out data, by name.
        compute_budgets: Budgets in FLOPs, or what the sweep may take, as "2h".
        hours: What the sweep may take, in place of budgets.
        price_per_hour: Price of one device, where budgets are an amount of money.
        target: Compute budget that the answer is for; None trains the whole grid.
        until: Factor that the interval of N_opt there may span; by default 1.25, or any where
            `until_loss` is given.
        until_loss: The same for the loss there.
        max_flops: What a sweep with a target may spend.
        gain_per: "flop" or "hour": by which a sweep with a target weighs what a trial gains.
        sizes: Values of the size argument; None to plan them.
        recipe: Fields of `flops_fit.Recipe`; functions by import path.
        flops: "measured", "6ND", or the import path of a function.
        name: Name of the sweep.
        tracking_uri: MLflow store.
        storage: Optuna storage.
        workers: Number of worker processes, or "auto".
        workers_per_device: How many of "auto" share each GPU; None for as many as can be of use.
        seed: Random seed of the sweep.
        paired_with: Name of a sweep whose randomness this one shares.
        retry_failed: Whether to train failed trials again.
        on_code_change: "warn", "error" or "rerun".
        extend: Whether to add sizes to budgets whose lowest loss is at an end of their sizes.
    """

    model_cls: str | None = None
    model_size_param: str | None = None
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    dataset: str | None = None
    dataset_kwargs: Mapping[str, Any] = field(default_factory=dict)
    eval_dataset: str | None = None
    eval_dataset_kwargs: Mapping[str, Any] = field(default_factory=dict)
    loss_fn: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    compute_budgets: Sequence[Any] | None = None
    hours: float | None = None
    price_per_hour: float | None = None
    target: float | None = None
    until: float | None = None
    until_loss: float | None = None
    max_flops: float | None = None
    gain_per: str = "flop"
    sizes: Sequence[Any] | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)
    flops: str = "measured"
    name: str | None = None
    tracking_uri: str | None = None
    storage: str | None = None
    workers: int | str = 1
    workers_per_device: int | None = None
    seed: int = 0
    paired_with: str | None = None
    retry_failed: bool = False
    on_code_change: str = "warn"
    extend: bool = True

    def imported(self) -> tuple[Task, PlanRequest]:
        """Model, data and loss, and the request of a plan.

        Raises:
            ArgumentError: Lists everything that is missing, not found or invalid.
        """
        problems: list[str] = []
        task = _or_problems(self.task, problems)
        request = _or_problems(self.request, problems)
        raise_problems(problems)
        assert task is not None
        assert request is not None
        return task, request

    def task(self) -> Task:
        """Model, data and loss, imported.

        Raises:
            ArgumentError: Lists everything that is missing or not found.
        """
        problems: list[str] = []
        missing = [key for key in _REQUIRED if not getattr(self, key)]
        if "compute_budgets" in missing and (self.hours is not None or self.paired_with):
            missing.remove("compute_budgets")
        if missing:
            options = ", ".join(_option(key) for key in missing)
            problems.append(f"missing: {options} (or the same keys in the file of --config)")
        model = _import("model_cls", self.model_cls, problems)
        loss = _import("loss_fn", self.loss_fn, problems)
        dataset = _data("dataset", self.dataset, self.dataset_kwargs, problems)
        eval_dataset = _data("eval_dataset", self.eval_dataset, self.eval_dataset_kwargs, problems)
        metrics = {
            name: _import(f"metrics.{name}", path, problems) for name, path in self.metrics.items()
        }
        raise_problems(problems)
        assert self.model_size_param is not None
        # A loss class such as torch.nn:CrossEntropyLoss is used with its default arguments.
        loss_fn = loss() if isinstance(loss, type) else loss
        return Task(
            model,
            self.model_size_param,
            self.model_kwargs,
            dataset,
            loss_fn,
            eval_dataset,
            metrics,
        )

    def request(self) -> PlanRequest:
        """What to plan: budgets, sizes, recipe, FLOPs convention and seed.

        Raises:
            ArgumentError: The recipe is invalid, or something it names is not found.
        """
        problems: list[str] = []
        flops: Any = self.flops
        if isinstance(flops, str) and ":" in flops:  # else "measured" or "6ND"
            flops = _import("flops", flops, problems)
        recipe = {key: _recipe_value(key, value, problems) for key, value in self.recipe.items()}
        problems += _unknown(recipe, [f.name for f in fields(Recipe)], "recipe: unknown field")
        budgets = self._budgets(problems)
        goal = _or_problems(self._goal, problems)
        raise_problems(problems)
        return PlanRequest(
            budgets,
            self.sizes,
            Recipe(**recipe),
            flops,
            self.seed,
            self.price_per_hour,
            self.paired_with,
            goal,
        )

    def _goal(self) -> Goal | None:
        """How precisely the answer is to be known.

        Raises:
            ArgumentError: Something is given that needs a target.
        """
        until = self.until
        if self.target is None and until is not None:
            raise ArgumentError("until: needs target, the compute budget that the answer is for")
        if until is None and self.until_loss is None:
            until = UNTIL
        return Goal.asked(self.target, until, self.until_loss, self.max_flops, self.gain_per)

    def _budgets(self, problems: list[str]) -> Sequence[float] | str | Spending | None:
        """Budgets, or what the sweep may take; errors are added to `problems`."""
        budgets, hours = self.compute_budgets, self.hours
        if hours is None:
            is_text = budgets is not None and len(budgets) == 1 and isinstance(budgets[0], str)
            return budgets[0] if is_text and budgets else budgets
        if budgets:
            problems.append("hours: compute_budgets is given too; pass one of them")
        if not is_positive(hours):
            problems.append(f"hours: expected a positive number, got {hours!r}")
            return budgets
        return Spending.of_hours(hours)


def read(file: Path | None, given: Mapping[str, Any]) -> Settings:
    """The settings of a file, overridden by those of the command line.

    Args:
        file: A YAML file; None for the command line alone.
        given: What the command line gave; mappings are merged key by key.

    Raises:
        ArgumentError: Lists what is wrong with the file: unreadable, unknown keys, wrong types.
    """
    values = {} if file is None else _read_file(file)
    for one, other in (("hours", "compute_budgets"), ("compute_budgets", "hours")):
        if one in given and other not in given:  # one stands in place of the other
            values.pop(other, None)
    for key, value in given.items():
        values[key] = {**values.get(key, {}), **value} if key in _MAPPINGS else value
    return Settings(**values)


def _option(key: str) -> str:
    """The option of a required setting, and what may be given in its place."""
    return f"--{key.replace('_', '-')}" + (" or --hours" if key == "compute_budgets" else "")


def _or_problems(part: Callable[[], _T], problems: list[str]) -> _T | None:
    """What `part` returns; None if it raises, with its problems added to the list."""
    try:
        return part()
    except ArgumentError as error:
        problems += error.problems
        return None


def _read_file(file: Path) -> dict[str, Any]:
    try:
        document = safe_yaml.load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentError(f"{file}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ArgumentError(f"{file}: cannot be read: {_position(error)}") from error
    if not isinstance(document, dict):
        raise ArgumentError(
            f"{file}: expected a mapping with keys such as 'model_cls:', got {document!r:.80}"
        )
    problems: list[str] = []
    values = _canonical(document, file, problems)
    problems += _unknown(values, [f.name for f in fields(Settings)], f"{file}: unknown key")
    # A key without a value means "not given".
    values = {key: _as_list(key, value) for key, value in values.items() if value is not None}
    for key, value in values.items():
        problems += _wrong_type(key, value)
    raise_problems(problems)
    return values


def _canonical(document: Mapping[Any, Any], file: Path, problems: list[str]) -> dict[str, Any]:
    """The keys in their current spelling: `-` becomes `_`, and aliases are replaced."""
    values: dict[str, Any] = {}
    spellings: dict[str, object] = {}
    for written, value in document.items():
        key = str(written).replace("-", "_")
        key = _ALIASES.get(key, key)
        if key in values:
            problems.append(f"{file}: {key} is given twice, as {spellings[key]!r} and {written!r}")
        values[key] = value
        spellings[key] = written
    return values


def _position(error: yaml.YAMLError) -> str:
    """What YAML reports, with the line number."""
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    return f"{problem}, in line {mark.line + 1}" if mark else str(error).splitlines()[0]


def _as_list(key: str, value: Any) -> Any:
    return [value] if key in _LISTS and not isinstance(value, list) else value


def _wrong_type(key: str, value: Any) -> Iterable[str]:
    if key in _TEXTS and not isinstance(value, str):
        yield f"{key}: expected text, got {value!r}"
    if key in _MAPPINGS and not (
        isinstance(value, dict) and all(isinstance(name, str) for name in value)
    ):
        yield f"{key}: expected a mapping such as {{n_layer: 4}}, got {value!r}"


def _unknown(keys: Iterable[str], known: Sequence[str], what: str) -> list[str]:
    def hint(key: str) -> str:
        near = difflib.get_close_matches(key, known, 1)  # a misspelt key
        return f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"

    return [f"{what} {key!r}; {hint(key)}" for key in keys if key not in known]


def _import(key: str, path: str | None, problems: list[str]) -> Any:
    """The object at an import path; None, and an entry in `problems`, if it is not found."""
    if not path:
        return None
    try:
        return imports.load(path)
    except imports.NotFoundError as error:
        problems.append(f"{key}: {error}")
        return None


def _data(key: str, path: str | None, arguments: Mapping[str, Any], problems: list[str]) -> Any:
    """A dataset, or its function bound to the arguments."""
    found = _import(key, path, problems)
    if arguments and not path:
        problems.append(f"{key}_kwargs: given without {key}")
    elif arguments and found is not None and not callable(found):
        problems.append(
            f"{key}_kwargs: {key} is not a function, so it takes no arguments: {found!r:.80}"
        )
    # A partial, not a call: each worker process then opens the data itself.
    return partial(found, **arguments) if arguments and callable(found) else found


def _recipe_value(key: str, value: Any, problems: list[str]) -> Any:
    if key in _FUNCTIONS and isinstance(value, str) and ":" in value:
        return _import(f"recipe.{key}", value, problems)
    # YAML has lists where the recipe has tuples (betas, lr_multipliers).
    return tuple(value) if isinstance(value, list) else value
