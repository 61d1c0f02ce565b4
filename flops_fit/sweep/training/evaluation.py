"""flops_fit.sweep.training.evaluation."""

from __future__ import annotations

import math

import torch
from accelerate.utils import send_to_device

from flops_fit.errors import DivergedError
from flops_fit.runtime.rng import seeded
from flops_fit.sweep.data.source import count_examples
from flops_fit.sweep.training.loop import _Training


@torch.no_grad()
def _held_out(training: _Training) -> dict[str, float]:
    """Mean loss and metrics over the held-out examples."""
    model, recipe, trial = training.model, training.recipe, training.trial
    device = training.accelerator.device
    model.eval()
    totals: dict[str, torch.Tensor] = {}
    count = 0
    with seeded(0):  # where held-out data are drawn or masked at random, every trial sees the same
        for batch in training.source.held_out_batches(training.most, recipe.eval_examples):
            examples = count_examples(batch)
            batch = send_to_device(batch, device)
            for name, value in training.task.held_out(model, batch).items():
                totals[name] = totals.get(name, 0) + value * examples
            count += examples
            training.between_held_out_batches()
    means = {name: total.item() / count for name, total in totals.items()}
    if not math.isfinite(means["loss"]):
        loss = means["loss"]
        raise DivergedError(f"the held-out loss is {loss} after the last step", trial.steps)
    return means
