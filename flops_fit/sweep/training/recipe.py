"""`Recipe`: how trials train: optimiser, learning rate, batch, schedule, number format.

`"auto"` follows DeepSeek LLM (2024, section 3.1): peak learning rate .3118 C^-.125 and batch
.2920 C^.3271 tokens, the same for all sizes of a budget. There is no published rule for images: if
the unit of D is examples, the batch is 64 examples. The plan prints the resulting values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

from flops_fit.errors import ArgumentError
from flops_fit.records import Trial
from flops_fit.validate import (
    is_count,
    is_count_or_auto,
    is_fraction,
    is_non_negative,
    is_number,
    is_positive,
)

if TYPE_CHECKING:
    import torch

SCHEDULES = ("linear", "cosine", "wsd", "constant")
PRECISIONS = ("no", "bf16", "fp16")
AUTO_EXAMPLES = 64
CHECKED_MULTIPLIERS = (0.5, 1.0, 2.0)  # of the learning rate, with `check_learning_rate`

# Fields that may change between two calls of one sweep: finished runs stay comparable.
_FREE = {
    "lr_multipliers", "check_learning_rate", "max_epochs", "log_points", "accumulate", "compile",
    "checkpoint_every",
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """How every trial of a sweep trains.

    Attributes:
        learning_rate: Peak learning rate: a number, a function of the `Trial` (its own learning
            rate not yet set), or "auto" (DeepSeek's rule).
        lr_multipliers: Multiples of the learning rate to train every size with; the fits use the
            best run of each budget and size.
        check_learning_rate: Also train at half and twice the learning rate, but only the smallest
            size (at its smallest budget) and the largest (at its largest): a rate that suits one
            end better biases the fit without showing in its residuals. The fits do not use these
            runs; a check reports them.
        batch_size: Examples a step, or "auto" (DeepSeek's rule, in tokens).
        batch_tokens: Units of D a step, instead of `batch_size`; rounded to whole examples.
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
    """

    learning_rate: float | Callable[[Trial], float] | Literal["auto"] = "auto"
    lr_multipliers: Sequence[float] = (1.0,)
    check_learning_rate: bool = False
    batch_size: int | Literal["auto"] = "auto"
    batch_tokens: int | None = None
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

    def __post_init__(self) -> None:
        problems = list(_problems(self))
        if problems:
            raise ArgumentError(problems, "invalid recipe:")

    def peak_learning_rate(self, trial: Trial) -> float:
        """Peak learning rate of a trial."""
        if self.learning_rate == "auto":
            return 0.3118 * trial.compute_budget**-0.125
        if callable(self.learning_rate):
            rate = self.learning_rate(trial)
            if not is_positive(rate):
                raise ArgumentError(
                    "learning_rate: expected its function to return a positive number, got "
                    f"{rate!r} for size {trial.size!r} at {trial.compute_budget:.3g} FLOPs"
                )
            return float(rate)
        return float(self.learning_rate)

    def examples_per_step(self, compute_budget: float, unit: str, tokens_per_example: float) -> int:
        """Examples a step for a budget in FLOPs."""
        if self.batch_tokens is not None:
            return max(1, round(self.batch_tokens / tokens_per_example))
        if self.batch_size != "auto":
            return self.batch_size
        if unit == "examples":
            return AUTO_EXAMPLES
        return max(1, round(0.2920 * compute_budget**0.3271 / tokens_per_example))

    def identity(self) -> dict[str, Any]:
        """The fields that determine a trial's result, besides its learning rate and batch size."""
        left_out = {"learning_rate", "batch_size", "batch_tokens"}
        return {key: value for key, value in self.setting().items() if key not in left_out}

    def setting(self) -> dict[str, Any]:
        """The fields that must be equal for two runs to be comparable."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in _FREE}


def _problems(recipe: Recipe) -> Iterable[str]:
    """A message for each field with an invalid value."""
    rate, batch = recipe.learning_rate, recipe.batch_size
    if not (rate == "auto" or callable(rate) or is_positive(rate)):
        yield f"learning_rate: expected a positive number, a function or 'auto', got {rate!r}"
    if not is_count_or_auto(batch):
        yield f"batch_size: expected a positive whole number or 'auto', got {batch!r}"
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
    if not isinstance(recipe.check_learning_rate, bool):
        yield f"check_learning_rate: expected True or False, got {recipe.check_learning_rate!r}"
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
    for name in ("eval_examples", "log_points", "accumulate"):
        value = getattr(recipe, name)
        if not is_count(value):
            yield f"{name}: expected a positive whole number, got {value!r}"


def _are_multipliers(values: Any) -> bool:
    if not isinstance(values, tuple | list) or not all(map(is_number, values)):
        return False
    return 1 in values and len(set(values)) == len(values) and 0 < min(values) <= max(values) < 1e6
