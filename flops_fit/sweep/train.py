"""One `Trial` -> its held-out loss, under Accelerate: exactly the planned steps, nothing else.

The loop waits for the device only where it logs. Data order, initialisation and dropout depend on
the trial alone, not on what ran before it in the process.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration, send_to_device
from torch.optim.lr_scheduler import LambdaLR

from flops_fit.errors import DivergedError
from flops_fit.records import Trial
from flops_fit.sweep.recipe import Recipe, build_optimizer, multiplier
from flops_fit.sweep.seeding import seeded
from flops_fit.sweep.source import Source, count_examples
from flops_fit.sweep.task import Task
from flops_fit.sweep.threads import threads_that_help


@dataclass(frozen=True)
class Point:
    """A point on a training curve.

    Attributes:
        num_tokens: Units of D seen so far.
        flops: FLOPs spent so far.
        train_loss: Mean training loss since the last point.
        learning_rate: Of the last step.
        tokens_per_second: Since the trial began.
    """

    num_tokens: int
    flops: float
    train_loss: float
    learning_rate: float
    tokens_per_second: float


@dataclass(frozen=True)
class Outcome:
    """What a finished trial brings home.

    Attributes:
        loss: Mean held-out loss.
        train_loss: Mean training loss over the last stretch.
        flops: FLOPs actually spent in training.
        wall_time_s: Seconds of training, without the held-out evaluation.
        tokens_per_second: Units of D trained on a second.
        epochs: Passes over the training data; NaN where its length is not known.
        device: Type of the device trained on.
    """

    loss: float
    train_loss: float
    flops: float
    wall_time_s: float
    tokens_per_second: float
    epochs: float
    device: str


Report = Callable[[Point], None]


def train(task: Task, source: Source, trial: Trial, recipe: Recipe, report: Report) -> Outcome:
    """Train one trial and measure its held-out loss.

    Args:
        task: The user's model, data and loss.
        source: The user's data, opened.
        trial: What to train.
        recipe: How to train it.
        report: Called with each `Point`, about `recipe.log_points` times.

    Raises:
        DivergedError: If the loss stops being finite.
    """
    accelerator = _accelerator(recipe)
    with threads_that_help(), seeded(trial_seed(trial)), _memory_returned(accelerator):
        model = task.build(trial.size)
        optimizer = build_optimizer(recipe, model, trial.learning_rate)
        loader = source.training_batches(trial.batch_size, trial.steps, seed=trial_seed(trial))
        model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
        started = time.perf_counter()
        last = _loop(accelerator, task, model, optimizer, loader, trial, recipe, report)
        wall_time_s = time.perf_counter() - started
        loss = _held_out_loss(accelerator, task, source, model, trial, recipe)
    return Outcome(
        loss=loss,
        train_loss=last.train_loss,
        flops=last.flops,
        wall_time_s=wall_time_s,
        tokens_per_second=last.num_tokens / wall_time_s,
        epochs=last.num_tokens / (source.num_tokens or math.nan),
        device=accelerator.device.type,
    )


def trial_seed(trial: Trial) -> int:
    """The seed of a trial's own randomness; trials of one sweep draw independent noise."""
    return int(trial.trial_id, 16) % 2**63


def _accelerator(recipe: Recipe) -> Accelerator:
    AcceleratorState._reset_state()  # another sweep in this process may have had another precision
    return Accelerator(
        mixed_precision=recipe.precision,
        dataloader_config=DataLoaderConfiguration(
            split_batches=True, dispatch_batches=False, use_seedable_sampler=True
        ),
    )


@contextmanager
def _memory_returned(accelerator: Accelerator) -> Iterator[None]:
    try:
        yield
    finally:
        accelerator.free_memory()  # collects garbage too


def _loop(
    accelerator: Accelerator,
    task: Task,
    model: torch.nn.Module,
    optimizer: Any,
    batches: Any,
    trial: Trial,
    recipe: Recipe,
    report: Report,
) -> Point:
    """The steps of a trial; returns the last point."""
    scheduler = LambdaLR(optimizer.optimizer, lambda step: multiplier(recipe, step, trial.steps))
    parameters = list(model.parameters())
    every = max(1, trial.steps // recipe.log_points)
    # Accelerate's wrapper looks for an optional package at every step; only a scaler needs it.
    update = optimizer if accelerator.scaler is not None else optimizer.optimizer
    started, done = time.perf_counter(), 0
    total = torch.zeros((), device=accelerator.device)
    model.train()
    for step, batch in zip(range(1, trial.steps + 1), batches, strict=False):
        loss = task.loss(model, batch)
        accelerator.backward(loss)
        if recipe.clip is not None:
            accelerator.clip_grad_norm_(parameters, recipe.clip)
        update.step()
        update.zero_grad()
        total += loss.detach()
        if step % every == 0 or step == trial.steps:
            mean = total.item() / (step - done)
            rate = float(scheduler.get_last_lr()[0])
            report(point := _point(trial, step, mean, rate, time.perf_counter() - started))
            if not math.isfinite(mean):
                raise DivergedError(f"the training loss is {mean} at step {step}", step)
            done = step
            total.zero_()
        scheduler.step()
    return point


def _point(trial: Trial, step: int, loss: float, rate: float, seconds: float) -> Point:
    share = step / trial.steps
    tokens = round(trial.num_tokens * share)
    return Point(tokens, trial.flops * share, loss, rate, tokens / seconds)


@torch.no_grad()
def _held_out_loss(
    accelerator: Accelerator,
    task: Task,
    source: Source,
    model: torch.nn.Module,
    trial: Trial,
    recipe: Recipe,
) -> float:
    """Mean loss over the held-out examples. Every process reads them all, so all agree."""
    model.eval()
    total, count = torch.zeros((), device=accelerator.device), 0
    with seeded(0):  # where held-out data are drawn or masked at random, every trial sees the same
        for batch in source.held_out_batches(trial.batch_size, recipe.eval_examples):
            examples = count_examples(batch)
            batch = send_to_device(batch, accelerator.device)
            total += task.loss(model, batch) * examples
            count += examples
    loss = total.item() / count
    if not math.isfinite(loss):
        raise DivergedError(f"the held-out loss is {loss} after the last step", trial.steps)
    return loss
