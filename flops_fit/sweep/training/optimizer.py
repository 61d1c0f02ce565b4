"""The optimiser of a recipe, and its learning rate schedule."""

from __future__ import annotations

import math

import torch

from flops_fit.sweep.training.recipe import Recipe


def build_optimizer(recipe: Recipe, model: torch.nn.Module, peak: float) -> torch.optim.Optimizer:
    """The recipe's optimiser for a model, at a peak learning rate.

    AdamW is fused if the device supports it, and applies no weight decay to vectors (biases and
    normalisation weights).
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if callable(recipe.optimizer):
        return recipe.optimizer(parameters, peak)
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=peak, betas=recipe.betas, fused=fused
    )


def multiplier(recipe: Recipe, step: int, steps: int) -> float:
    """Learning rate at `step` (0 to steps - 1) as a share of its peak.

    Warm-up and decay are shares of the trial's own steps, so that every schedule ends with its
    trial (Hoffmann et al. 2022, appendix B).
    """
    if callable(recipe.schedule):
        return recipe.schedule(min(1.0, (step + 1) / steps))
    warmup_steps = max(1, round(recipe.warmup * steps))
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return _decay(recipe.schedule, (step - warmup_steps) / max(1, steps - warmup_steps))


def _decay(schedule: str, share: float) -> float:
    """Share of the peak rate after the warm-up; `share` of the decay runs from 0 to below 1."""
    if schedule == "linear":
        return 1 - share
    if schedule == "cosine":
        return 0.55 + 0.45 * math.cos(math.pi * share)  # from 1 down to a tenth
    if schedule == "wsd":
        return 1.0 if share < 0.8 else 1 - math.sqrt((share - 0.8) / 0.2)
    return 1.0
