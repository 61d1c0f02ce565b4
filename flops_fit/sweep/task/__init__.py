"""The user's model, data and loss: their requirements, cost and hash."""

from flops_fit.sweep.task.task import Task

__all__ = ["Task"]
