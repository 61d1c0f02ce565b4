"""The held-out loss and metrics of a trained model."""

from __future__ import annotations

import math
from typing import Any

import torch
from accelerate.utils import send_to_device

from flops_fit.errors import DivergedError
from flops_fit.runtime.rng import seeded
from flops_fit.sweep.training.loop import TrainingLoop

_FIXED_BATCH = 16  # examples, if the loss depends on the batch and no loader sets a size


@torch.no_grad()
def evaluate(loop: TrainingLoop) -> dict[str, float]:
    """Mean loss (as "loss") and metrics over the held-out examples.

    Batches without a label that counts weigh nothing.

    Raises:
        DivergedError: The held-out loss is not finite.
        KeyboardInterrupt, SystemExit: A signal asked to stop; the trial's state is saved.
    """
    model = loop.prepared.model.eval()
    weighting = loop.task.weighting
    batch_size = loop.micro_batch
    if weighting.fixed_batch:
        batch_size = loop.source.batch_size or _FIXED_BATCH
    totals: dict[str, torch.Tensor] = {}
    weights: dict[str, Any] = {}
    # A fixed seed, so that held-out data drawn or masked at random are the same for every trial.
    with seeded(0):
        for batch in loop.source.held_out_batches(batch_size, loop.recipe.eval_examples):
            if not weighting.is_plain and not weighting.weight(batch):
                continue
            batch = send_to_device(batch, loop.accelerator.device)
            for name, (value, weight) in loop.task.held_out(model, batch).items():
                totals[name] = totals.get(name, 0) + value * weight
                weights[name] = weights.get(name, 0) + weight
            loop.between_held_out_batches()
    means = {
        name: total.item() / float(weights[name] or math.nan) for name, total in totals.items()
    }
    loss = means.get("loss", math.nan)
    if not math.isfinite(loss):
        raise DivergedError(f"the held-out loss is {loss} after the last step", loop.trial.steps)
    return means
