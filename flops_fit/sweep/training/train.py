"""`train`: one `Trial` -> its held-out loss, under Accelerate, in exactly the planned steps.

The loop waits for the device only when it logs. Data order, initialisation and dropout depend on
the trial alone, not on what ran before it in the process. The trial's state is saved at intervals
and when a signal asks to stop; on a CPU a resumed trial ends with the same bits.

If several ranks train it together, each takes its share of every batch, and loss and gradients are
summed over them after the backward pass.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator

from flops_fit.records import Trial
from flops_fit.runtime import distributed
from flops_fit.runtime.caller_state import own_accelerate_state
from flops_fit.runtime.cpu_threads import threads_that_help
from flops_fit.runtime.malloc import freed_memory_kept
from flops_fit.runtime.rng import seeded
from flops_fit.runtime.signals import StopRequest
from flops_fit.sweep.data.batch_order import trial_seed
from flops_fit.sweep.data.source import Source
from flops_fit.sweep.kept import weights
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.checkpoint import Keeper
from flops_fit.sweep.training.evaluation import evaluate
from flops_fit.sweep.training.loop import Report, TrainingLoop
from flops_fit.sweep.training.recipe import Recipe
from flops_fit.sweep.training.weighed_step import Counted

_LOG = logging.getLogger("flops_fit")


@dataclass(frozen=True)
class Outcome:
    """The result of a finished trial.

    Attributes:
        loss: Mean held-out loss.
        train_loss: Mean training loss since the last but one point of the curve.
        flops: FLOPs actually spent in training.
        num_tokens: Labels trained on, where examples differ in length; else None.
        padded_tokens: The same with padding and labels that do not count.
        wall_time_s: Seconds of training, without the held-out evaluation.
        tokens_per_second: Units of D trained on per second.
        epochs: Passes over the training data; NaN if its length is unknown.
        device: Type of the device trained on.
        metrics: Means of the task's metrics over the held-out examples.
    """

    loss: float
    train_loss: float
    flops: float
    wall_time_s: float
    tokens_per_second: float
    epochs: float
    device: str
    metrics: dict[str, float] = field(default_factory=dict)
    num_tokens: int | None = None
    padded_tokens: int | None = None


def train(
    task: Task,
    source: Source,
    trial: Trial,
    recipe: Recipe,
    report: Report,
    keeper: Keeper | None = None,
    stop: StopRequest | None = None,
) -> Outcome:
    """Train one trial and measure its held-out loss.

    Args:
        task: The user's model, data and loss.
        source: The user's data, opened.
        trial: What to train.
        recipe: How to train it.
        report: Called with each `Point`, about `recipe.log_points` times.
        keeper: The trial's checkpoints: the last one is resumed, new ones are saved; and the place
            of the trained weights. None saves none. Of several ranks only rank 0 passes one.
        stop: Checked between two steps.

    Raises:
        DivergedError: The loss stopped being finite.
        RankError: Another rank failed.
        LostRankError: Another rank is gone, or silent beyond the timeout.
        KeyboardInterrupt, SystemExit: A signal asked to stop; the state is saved first.
    """
    with own_accelerate_state():
        return _train(task, source, trial, recipe, report, keeper, stop)


def _train(
    task: Task,
    source: Source,
    trial: Trial,
    recipe: Recipe,
    report: Report,
    keeper: Keeper | None,
    stop: StopRequest | None,
) -> Outcome:
    with distributed.together():
        accelerator = _accelerator(recipe)
    with (
        freed_memory_kept(),
        threads_that_help(),
        seeded(trial_seed(trial)),
        _memory_returned(accelerator),
    ):
        with distributed.together():
            loop = TrainingLoop(accelerator, task, source, trial, recipe, keeper, stop)
        loop.begin()
        last = loop.run(report)
        loop.counted.gather()
        held_out = distributed.from_main(lambda: _measured_and_kept(loop))
    counted = loop.counted if source.lengths is not None else None
    num_tokens = counted.labels if counted else last.num_tokens
    return Outcome(
        loss=held_out.pop("loss"),
        train_loss=last.train_loss,
        flops=_flops_of(trial, counted) if counted else last.flops,
        wall_time_s=loop.seconds,
        tokens_per_second=num_tokens / loop.seconds,
        epochs=_epochs(source, trial, last.num_tokens),
        device=accelerator.device.type,
        metrics=held_out,
        num_tokens=counted.labels if counted else None,
        padded_tokens=counted.elements if counted else None,
    )


def _measured_and_kept(loop: TrainingLoop) -> dict[str, float]:
    """The held-out loss and metrics; the weights are written if they are to be kept."""
    measures = evaluate(loop)
    file = loop.keeper and loop.keeper.weights
    if file:
        model = loop.accelerator.unwrap_model(loop.prepared.model)
        try:
            weights.write(file, model, loop.task, loop.trial, measures["loss"])
        except Exception as error:  # a full disk must not lose the trial
            _LOG.warning("the weights of size %r are not kept: %s", loop.trial.size, error)
    return measures


def _epochs(source: Source, trial: Trial, num_tokens: int) -> float:
    if source.lengths is None:
        return num_tokens / (source.num_tokens or math.nan)
    return trial.steps * trial.batch_size / (source.num_examples or math.nan)


def _flops_of(trial: Trial, counted: Counted) -> float:
    """FLOPs spent: in proportion to what was computed, or to D if that is how they are counted."""
    if trial.padded_tokens:
        return trial.flops * counted.elements / trial.padded_tokens
    return trial.flops * counted.labels / trial.num_tokens


def _accelerator(recipe: Recipe) -> Accelerator:
    accelerator = Accelerator(mixed_precision=recipe.precision)
    if recipe.precision == "fp16" and not accelerator.native_amp:
        # On a CPU, Accelerate ignores fp16 without a warning, though torch supports it.
        accelerator.native_amp = True
        accelerator.scaler = torch.amp.GradScaler(accelerator.device.type)
    return accelerator


@contextmanager
def _memory_returned(accelerator: Accelerator) -> Iterator[None]:
    try:
        yield
    finally:
        accelerator.free_memory()  # also runs the garbage collector
