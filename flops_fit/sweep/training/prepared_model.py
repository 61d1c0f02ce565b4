"""A trial's model and optimiser, prepared by Accelerate, and their state for a checkpoint."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils.memory import should_reduce_batch_size

from flops_fit.records import Trial
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.model_state import model_state, restore_model
from flops_fit.sweep.training.optimizer import build_optimizer, restore_optimizer
from flops_fit.sweep.training.recipe import Recipe


class PreparedModel:
    """A model with its optimiser, on the device and in the precision of an accelerator.

    Attributes:
        model: The model.
        parameters: Its parameters, as a list.
        optimizer: Its optimiser.
        peak_rates: Learning rate of each parameter group at the peak of the schedule.
        backward: Runs the backward pass of a loss.
        clip: Clips the gradients of some parameters to a norm.
    """

    def __init__(self, accelerator: Accelerator, task: Task, trial: Trial, recipe: Recipe) -> None:
        self.accelerator = accelerator
        model = task.build(trial.size)
        optimizer = build_optimizer(recipe, model, trial.learning_rate)
        self.peak_rates: list[float] = [group["lr"] for group in optimizer.param_groups]
        if recipe.compile:
            model.compile()
        # Evaluation mode leaves out DistributedDataParallel, which would hang if one rank ran out
        # of memory; `distributed.gradient_sum` sums the gradients instead.
        self.model = accelerator.prepare_model(model, evaluation_mode=True)
        self.parameters = list(self.model.parameters())
        prepared = accelerator.prepare_optimizer(optimizer)
        # Accelerate's wrappers cost tiny models a few per cent; only a gradient scaler needs them.
        if accelerator.scaler is None:
            self.optimizer = prepared.optimizer
            self.backward = torch.Tensor.backward
            self.clip = torch.nn.utils.clip_grad_norm_
        else:
            self.optimizer = prepared
            self.backward = accelerator.backward
            self.clip = accelerator.clip_grad_norm_

    def set_learning_rate(self, share: float) -> None:
        """Set the learning rate of every group to a share of its peak."""
        for group, peak in zip(self.optimizer.param_groups, self.peak_rates, strict=True):
            group["lr"] = peak * share

    def state(self) -> dict[str, Any]:
        """State of model and optimiser for a checkpoint. Its keys are a stored format."""
        scaler = self.accelerator.scaler
        model = self.accelerator.unwrap_model(self.model)
        return {
            "model": model_state(model),
            "optimizer": self.optimizer.state_dict(),
            "scaler": scaler.state_dict() if scaler is not None else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Load a state returned by `state`."""
        model = self.accelerator.unwrap_model(self.model)
        if "buffers" in state:  # a checkpoint of schema 2
            model.load_state_dict(state["model"])
            for name, buffer in model.named_buffers():
                if name in state["buffers"]:
                    buffer.copy_(state["buffers"][name])
        else:
            restore_model(model, state["model"], self.accelerator.device)
        restore_optimizer(self.optimizer, state["optimizer"])
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError) or should_reduce_batch_size(error):
        return True
    return "CUBLAS_STATUS_ALLOC_FAILED" in str(error)  # memory beside that of torch's allocator


def device_lost(error: Exception) -> bool:
    """Whether a process can do nothing more on its GPU, as after an index out of bounds there."""
    return str(error).startswith("CUDA error") and not out_of_memory(error)
