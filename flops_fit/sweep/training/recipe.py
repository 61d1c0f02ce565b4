"""`Recipe`: how trials train: optimiser, learning rate, batch, schedule, number format.

`"auto"` is found by experiment: a pilot before the sweep trains a few models at several learning
rates and batches (`sweep.pilot`). A published rule can be named instead. The rules for the batch
are in tokens: if the unit of D is examples, such as images, they give 64 examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from flops_fit.errors import ArgumentError
from flops_fit.laws.model.recipe_rules import RULES, batch_by_rule
from flops_fit.records import Trial
from flops_fit.validate import (
    is_count,
    is_fraction,
    is_non_negative,
    is_number,
    is_positive,
)

if TYPE_CHECKING:
    import torch

Choice = Literal["auto", "deepseek", "steplaw", "porian"]
SCHEDULES = ("linear", "cosine", "wsd", "constant")
PRECISIONS = ("no", "bf16", "fp16")
FIRST_RULE: Choice = "deepseek"  # where a pilot starts; what "auto" meant before there were pilots

# Fields that may change between two calls of one sweep: finished runs stay comparable.
_FREE = {
    "pilot", "lr_multipliers", "max_epochs", "log_points", "accumulate", "compile",
    "checkpoint_every", "keep_models",
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """How every trial of a sweep trains.

    Attributes:
        learning_rate: Peak learning rate: "auto" finds it by experiment; a number; a function of
            the `Trial` (its own learning rate not yet set); or a published rule: "deepseek",
            "steplaw" or "porian" (`laws.model.recipe_rules`).
        batch_size: Examples a step: "auto" finds them by experiment, unless the data is a
            `DataLoader`, whose batch size is kept; a number; or a published rule. By "auto" a batch
            is smaller than the best one for 1,000 steps, if that costs under .5 % of loss.
        batch_tokens: Units of D a step, instead of `batch_size`; rounded to whole examples.
        pilot: Whether "auto" is found by experiment. If False, it is the rule "deepseek".
        lr_multipliers: Multiples of the learning rate to train every size with; the fits use the
            best run of each budget and size.
        optimizer: "adamw", or a function `(parameters, learning_rate) -> Optimizer`.
        schedule: "linear" to zero, "cosine" to a tenth, "wsd" (warm-up, stable, decay as 1 - sqrt
            over the last fifth), "constant", or a function from the share of steps done to a
            multiplier of the peak rate, which includes its own warm-up.
        warmup: Share of a trial's steps over which the learning rate rises linearly.
        weight_decay: AdamW's weight decay, applied to matrices only.
        betas: AdamW's betas.
        clip: Largest gradient norm; None for no clipping.
        precision: "no" (float32), "bf16" or "fp16" autocast.
        max_epochs: Most passes over the data in a trial (Muennighoff et al. 2023: up to 4 are
            nearly as good as new data).
        eval_examples: Held-out examples that the reported loss averages over, the same for all.
        log_points: Points on each training curve.
        accumulate: Micro-batches that a step's batch is divided into to save memory, their
            gradients summed. If memory runs out, they are divided further automatically.
        compile: Compile the model with `torch.compile`.
        checkpoint_every: Seconds between two checkpoints of a running trial.
        keep_models: Which trained models are logged to MLflow, for `flops_fit.load_model`: "best",
            the one with the least held-out loss of each budget; "all" those of the sweep, which
            leaves out pilot and check; None for none.
    """

    learning_rate: float | Callable[[Trial], float] | Choice = "auto"
    batch_size: int | Choice = "auto"
    batch_tokens: int | None = None
    pilot: bool = True
    lr_multipliers: Sequence[float] = (1.0,)
    optimizer: str | Callable[[Iterable[Any], float], torch.optim.Optimizer] = "adamw"
    schedule: str | Callable[[float], float] = "linear"
    warmup: float = 0.1
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float | None = 1.0
    precision: str = "no"
    max_epochs: float = 4.0
    eval_examples: int = 2048
    log_points: int = 100
    accumulate: int = 1
    compile: bool = False
    checkpoint_every: float = 600.0
    keep_models: Literal["best", "all"] | None = None

    def __post_init__(self) -> None:
        problems = list(_problems(self))
        if problems:
            raise ArgumentError(problems, "invalid recipe:")

    def __repr__(self) -> str:
        """The fields, as a dataclass shows them. It is stored, so a later field shows if it is set.

        Sweeps from before that field have then the same text.
        """
        shown = [f.name for f in fields(self) if f.name != "keep_models" or self.keep_models]
        return f"Recipe({', '.join(f'{name}={getattr(self, name)!r}' for name in shown)})"

    @property
    def rules(self) -> dict[str, str]:
        """The published rules that "learning_rate" and "batch_size" follow, or begin with."""
        choices: dict[str, object] = {"learning_rate": self.learning_rate}
        if self.batch_tokens is None:
            choices["batch_size"] = self.batch_size
        return {name: _rule(c) for name, c in choices.items() if isinstance(c, str)}

    @property
    def finds_rate(self) -> bool:
        """Whether the learning rate is found by experiment."""
        return self.learning_rate == "auto" and self.pilot

    @property
    def finds_batch(self) -> bool:
        """Whether the batch is found by experiment, unless the data have one of their own."""
        return self.batch_size == "auto" and self.batch_tokens is None and self.pilot

    def peak_learning_rate(self, trial: Trial) -> float:
        """Peak learning rate of a trial; where it is to be found, the rate to start from."""
        if callable(self.learning_rate):
            rate = self.learning_rate(trial)
            if not is_positive(rate):
                raise ArgumentError(
                    "learning_rate: expected its function to return a positive number, got "
                    f"{rate!r} for size {trial.size!r} at {trial.compute_budget:.3g} FLOPs"
                )
            return float(rate)
        if isinstance(self.learning_rate, str):
            rule = RULES[_rule(self.learning_rate)]
            return rule(trial.compute_budget, trial.num_params, trial.num_tokens)[0]
        return float(self.learning_rate)

    def examples_per_step(
        self, C: float, N: float, D: float, unit: str, tokens_per_example: float
    ) -> int:
        """Examples a step; where they are to be found, those to start from.

        Args:
            C: Budget in FLOPs.
            N: Parameters.
            D: Units of data.
            unit: What D counts: "tokens" or "examples".
            tokens_per_example: Units of D in an example.
        """
        if self.batch_tokens is not None:
            return max(1, round(self.batch_tokens / tokens_per_example))
        if not isinstance(self.batch_size, str):
            return self.batch_size
        return batch_by_rule(_rule(self.batch_size), C, N, D, unit, tokens_per_example)

    def identity(self) -> dict[str, Any]:
        """The fields that determine a trial's result, besides its learning rate and batch size."""
        left_out = {"learning_rate", "batch_size", "batch_tokens"}
        return {key: value for key, value in self.setting().items() if key not in left_out}

    def setting(self) -> dict[str, Any]:
        """The fields that must be equal for two runs to be comparable. A stored format."""
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _FREE}
        for name in ("learning_rate", "batch_size"):
            # Before there were pilots, "auto" was the name of DeepSeek's rule.
            if values[name] == "auto" and self.pilot:
                values[name] = "found"
            elif values[name] == FIRST_RULE:
                values[name] = "auto"
        return values


def _rule(name: str) -> str:
    """The rule that a choice stands for."""
    return FIRST_RULE if name == "auto" else name


def _problems(recipe: Recipe) -> Iterable[str]:
    """A message for each field with an invalid value."""
    rate, batch = recipe.learning_rate, recipe.batch_size
    names = ("auto", *RULES)
    listed = ", ".join(map(repr, names))
    if not (_is_one_of(rate, names) or callable(rate) or is_positive(rate)):
        yield f"learning_rate: expected a positive number, a function or {listed}; got {rate!r}"
    if not (_is_one_of(batch, names) or is_count(batch)):
        yield f"batch_size: expected a positive whole number or {listed}; got {batch!r}"
    if not isinstance(recipe.pilot, bool):
        yield f"pilot: expected True or False, got {recipe.pilot!r}"
    if recipe.batch_tokens is not None:
        if not is_count(recipe.batch_tokens):
            yield f"batch_tokens: expected a positive whole number, got {recipe.batch_tokens!r}"
        if batch != "auto":
            yield "batch_tokens: batch_size is set too; set only one of them"
    if not _are_multipliers(recipe.lr_multipliers):
        yield (
            "lr_multipliers: expected different positive numbers including 1, as (0.5, 1, 2); "
            f"got {recipe.lr_multipliers!r}"
        )
    if recipe.optimizer != "adamw" and not callable(recipe.optimizer):
        yield f"optimizer: expected 'adamw' or a function, got {recipe.optimizer!r}"
    if recipe.schedule not in SCHEDULES and not callable(recipe.schedule):
        yield f"schedule: expected one of {', '.join(SCHEDULES)}, got {recipe.schedule!r}"
    if recipe.precision not in PRECISIONS:
        yield f"precision: expected one of {', '.join(PRECISIONS)}, got {recipe.precision!r}"
    if not is_fraction(recipe.warmup):
        yield f"warmup: expected a share of the steps in [0, 1), got {recipe.warmup!r}"
    if not is_non_negative(recipe.weight_decay):
        yield f"weight_decay: expected a number from 0 up, got {recipe.weight_decay!r}"
    betas = recipe.betas
    if not (isinstance(betas, tuple) and len(betas) == 2 and all(map(is_fraction, betas))):
        yield f"betas: expected two numbers in [0, 1), got {betas!r}"
    if not (is_number(recipe.max_epochs) and recipe.max_epochs > 0):
        yield f"max_epochs: expected a positive number, got {recipe.max_epochs!r}"
    if recipe.clip is not None and not (is_number(recipe.clip) and recipe.clip > 0):
        yield f"clip: expected a positive number or None, got {recipe.clip!r}"
    if not (is_number(recipe.checkpoint_every) and recipe.checkpoint_every >= 0):
        yield f"checkpoint_every: expected seconds from 0 up, got {recipe.checkpoint_every!r}"
    if not isinstance(recipe.compile, bool):
        yield f"compile: expected True or False, got {recipe.compile!r}"
    if not (recipe.keep_models is None or _is_one_of(recipe.keep_models, ("best", "all"))):
        yield f"keep_models: expected 'best', 'all' or None, got {recipe.keep_models!r}"
    for name in ("eval_examples", "log_points", "accumulate"):
        value = getattr(recipe, name)
        if not is_count(value):
            yield f"{name}: expected a positive whole number, got {value!r}"


def _is_one_of(value: Any, names: Sequence[str]) -> bool:
    return isinstance(value, str) and value in names


def _are_multipliers(values: Any) -> bool:
    if not isinstance(values, tuple | list) or not all(map(is_number, values)):
        return False
    return 1 in values and len(set(values)) == len(values) and 0 < min(values) <= max(values) < 1e6
