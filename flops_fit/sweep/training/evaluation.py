"""The held-out loss and metrics of a trained model."""

from __future__ import annotations

import math

import torch
from accelerate.utils import send_to_device

from flops_fit.errors import DivergedError
from flops_fit.runtime.rng import seeded
from flops_fit.sweep.data.source import count_examples
from flops_fit.sweep.training.loop import TrainingLoop


@torch.no_grad()
def evaluate(loop: TrainingLoop) -> dict[str, float]:
    """Mean loss (as "loss") and metrics over the held-out examples.

    Raises:
        DivergedError: The held-out loss is not finite.
        KeyboardInterrupt, SystemExit: A signal asked to stop; the trial's state is saved.
    """
    model = loop.prepared.model.eval()
    totals: dict[str, torch.Tensor] = {}
    num_examples = 0
    # A fixed seed, so that held-out data drawn or masked at random are the same for every trial.
    with seeded(0):
        for batch in loop.source.held_out_batches(loop.micro_batch, loop.recipe.eval_examples):
            batch_examples = count_examples(batch)
            batch = send_to_device(batch, loop.accelerator.device)
            for name, value in loop.task.held_out(model, batch).items():
                totals[name] = totals.get(name, 0) + value * batch_examples
            num_examples += batch_examples
            loop.between_held_out_batches()
    means = {name: total.item() / num_examples for name, total in totals.items()}
    loss = means["loss"]
    if not math.isfinite(loss):
        raise DivergedError(f"the held-out loss is {loss} after the last step", loop.trial.steps)
    return means
