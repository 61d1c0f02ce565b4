"""flops_fit.sweep.training.optimizer."""

from __future__ import annotations

import math

import torch

from flops_fit.sweep.training.recipe import Recipe


def build_optimizer(recipe: Recipe, model: torch.nn.Module, peak: float) -> torch.optim.Optimizer:
    """The recipe's optimiser; AdamW is fused where the device has it and spares vectors decay."""
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

    Warm-up and decay are shares of the trial's own steps, so that each schedule ends at its own
    horizon (Hoffmann et al. 2022, appendix B).
    """
    if callable(recipe.schedule):
        return recipe.schedule(min(1.0, (step + 1) / steps))
    rise = max(1, round(recipe.warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return _decay(recipe.schedule, (step - rise) / max(1, steps - rise))


def _decay(schedule: str, share: float) -> float:
    """After the warm-up; `share` runs from 0 to just under 1."""
    if schedule == "linear":
        return 1 - share
    if schedule == "cosine":
        return 0.55 + 0.45 * math.cos(math.pi * share)
    if schedule == "wsd":
        return 1.0 if share < 0.8 else 1 - math.sqrt((share - 0.8) / 0.2)
    return 1.0
