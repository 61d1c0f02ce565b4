"""The optimiser of a recipe, and its learning rate schedule."""

from __future__ import annotations

import math
from typing import Any

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


def restore_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Load a state dict, with the number formats that its tensors had.

    `load_state_dict` casts the state of each parameter to the parameter's own format: integers and
    sums of higher precision would be rounded.
    """
    optimizer.load_state_dict(state)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for index, saved in state["state"].items():
        key = parameters[index] if isinstance(index, int) else index
        if key in optimizer.state:
            optimizer.state[key] = _in_formats_of(saved, optimizer.state[key])


def _in_formats_of(saved: Any, loaded: Any) -> Any:
    """The loaded tree, with the saved tensors wherever loading has changed their format."""
    if isinstance(saved, torch.Tensor) and isinstance(loaded, torch.Tensor):
        return loaded if loaded.dtype == saved.dtype else saved.to(loaded.device)
    if isinstance(saved, dict) and isinstance(loaded, dict):
        return {k: _in_formats_of(saved.get(k), value) for k, value in loaded.items()}
    if isinstance(saved, list | tuple) and isinstance(loaded, list | tuple):
        pairs = zip(saved, loaded, strict=True)
        return type(saved)(_in_formats_of(one, two) for one, two in pairs)
    return saved if isinstance(saved, str) else loaded  # a text is taken for a list of characters


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
