"""One `Trial` -> its held-out loss, under Accelerate: exactly the planned steps, nothing else.

The loop waits for the device only where it logs. Data order, initialisation and dropout depend on
the trial alone, not on what ran before it in the process. Its state is kept from time to time and
when a signal asks it to stop; taken up again, a trial on the CPU ends with the same bits.

Where several ranks train it together, each takes its share of every batch, and loss and gradients
are summed over them after the backward pass. Before they are, the ranks agree by a word on the host
that all have come so far, and on what follows the step, so that all halve, keep, stop or fail
alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from flops_fit.records import Trial
from flops_fit.runtime import distributed
from flops_fit.runtime.cpu_threads import threads_that_help
from flops_fit.runtime.malloc import freed_memory_kept
from flops_fit.runtime.rng import seeded
from flops_fit.runtime.signals import StopRequest
from flops_fit.sweep.data.source import Source
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.checkpoint import Keeper
from flops_fit.sweep.training.evaluation import _held_out
from flops_fit.sweep.training.loop import Report, _Training, trial_seed
from flops_fit.sweep.training.recipe import Recipe


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
        keeper: Where its state is kept, and taken up from if there is one; None to keep none.
            Of several ranks only rank 0 has one.
        stop: Looked at between two steps.

    Raises:
        DivergedError: If the loss stops being finite.
        RankError: If another rank failed.
        LostRankError: If another rank is gone, or silent beyond the timeout.
        KeyboardInterrupt, SystemExit: When asked to stop, once the state is kept.
    """
    with distributed.together():
        accelerator = _accelerator(recipe)
    with (
        freed_memory_kept(),
        threads_that_help(),
        seeded(trial_seed(trial)),
        _memory_returned(accelerator),
    ):
        with distributed.together():
            training = _Training(accelerator, task, source, trial, recipe, keeper, stop)
        training.begin()
        last = training.run(report)
        held_out = distributed.from_main(lambda: _held_out(training))
    return Outcome(
        loss=held_out.pop("loss"),
        train_loss=last.train_loss,
        flops=last.flops,
        wall_time_s=training.seconds,
        tokens_per_second=last.num_tokens / training.seconds,
        epochs=last.num_tokens / (source.num_tokens or math.nan),
        device=accelerator.device.type,
        metrics=held_out,
    )


def _accelerator(recipe: Recipe) -> Accelerator:
    AcceleratorState._reset_state()  # another sweep in this process may have had another precision
    accelerator = Accelerator(mixed_precision=recipe.precision)
    if recipe.precision == "fp16" and not accelerator.native_amp:
        # On the CPU, Accelerate leaves fp16 off without a word; torch has it.
        accelerator.native_amp = True
        accelerator.scaler = torch.amp.GradScaler(accelerator.device.type)
    return accelerator


@contextmanager
def _memory_returned(accelerator: Accelerator) -> Iterator[None]:
    try:
        yield
    finally:
        accelerator.free_memory()  # collects garbage too
