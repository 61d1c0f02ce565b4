"""`Task`: the user's model, data and loss, with the ways they are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from flops_fit.records import Size
from flops_fit.runtime.announce import quietly
from flops_fit.sweep.data.held_out import BLOCKS, Rule
from flops_fit.sweep.data.loading import open_source
from flops_fit.sweep.data.source import Source, targets_of
from flops_fit.sweep.task.hashing import plain, qualified_name, short_name
from flops_fit.sweep.task.weighting import Weighting, split_loss


@dataclass(frozen=True)
class Task:
    """The user's objects, unchanged.

    Attributes:
        model_cls: Called as `model_cls(**{size_param: size}, **model_kwargs)`, returns a module.
        size_param: Name of the argument that sets the model's size.
        model_kwargs: The other arguments.
        dataset: Training data, or a function that returns it.
        loss_fn: `loss_fn(outputs, targets)`, or `loss_fn(outputs, batch)` for mapping batches.
            Returns the mean over the batch, or a tuple of sum and count.
        eval_dataset: Held-out data; None sets a share of `dataset` aside.
        metrics: Other measures of the held-out data, by name; called as `loss_fn` is.
        weighting: What a batch's loss weighs; found out while planning.
        held_out_rule: How a share of `dataset` is set aside, if it is.
    """

    model_cls: Callable[..., nn.Module]
    size_param: str
    model_kwargs: Mapping[str, Any] = field(default_factory=dict)
    dataset: Any = None
    loss_fn: Callable[..., torch.Tensor] | None = None
    eval_dataset: Any = None
    metrics: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    weighting: Weighting = field(default_factory=Weighting)
    held_out_rule: Rule = BLOCKS

    @property
    def model_name(self) -> str:
        """Dotted name of the model class."""
        return qualified_name(self.model_cls)

    @property
    def short_name(self) -> str:
        """The model class's own name, which a sweep has that was given none."""
        return short_name(self.model_name)

    def build(self, size: Size) -> nn.Module:
        """A new model of this size, on torch's current default device."""
        return self.model_cls(**{self.size_param: size}, **self.model_kwargs)

    def build_quietly(self, size: Size) -> nn.Module:
        """A new model of this size; what its constructor prints and warns of is dropped.

        Dozens are built before anything trains, and one of them is heard.
        """
        with quietly():
            return self.build(size)

    def loss(self, model: nn.Module, batch: Any) -> torch.Tensor:
        """The mean loss of a model on a batch, with its gradient graph."""
        return split_loss(self.raw_loss(model, batch))[0]

    def raw_loss(self, model: nn.Module, batch: Any) -> Any:
        """What the user's loss returns for a batch."""
        assert self.loss_fn is not None
        return self.loss_fn(outputs_of(model, batch), _truth_of(batch))

    def weighed_loss(self, model: nn.Module, batch: Any) -> tuple[torch.Tensor, Any]:
        """The mean loss of a model on a batch, and its weight in a mean over batches."""
        mean, count = split_loss(self.raw_loss(model, batch))
        return mean, self.weighting.weight(batch) if count is None else count

    def held_out(self, model: nn.Module, batch: Any) -> dict[str, tuple[torch.Tensor, Any]]:
        """Loss (as "loss") and metrics on a batch, from one forward pass.

        Returns:
            For each name the mean, a scalar tensor, and its weight in a mean over batches.
        """
        assert self.loss_fn is not None
        outputs = outputs_of(model, batch)
        truth = _truth_of(batch)
        loss, count = split_loss(self.loss_fn(outputs, truth))
        weight = self.weighting.weight(batch) if count is None else count
        measures = {"loss": (torch.as_tensor(loss), weight)}
        for name, metric in self.metrics.items():
            value, own_count = split_loss(metric(outputs, truth))
            measures[name] = torch.as_tensor(value), weight if own_count is None else own_count
        return measures

    def open(self) -> Source:
        """The data, opened and split."""
        return open_source(self.dataset, self.eval_dataset, self.held_out_rule)


def outputs_of(model: nn.Module, batch: Any) -> Any:
    """A model's outputs for a batch: a mapping is passed as keywords, of a pair the inputs."""
    return model(**batch) if isinstance(batch, Mapping) else model(batch[0])


def _truth_of(batch: Any) -> Any:
    """Second argument of loss and metrics: the targets of a pair, or a whole mapping."""
    return batch if isinstance(batch, Mapping) else targets_of(batch)


def task_identity(task: Task, source: Source) -> dict[str, Any]:
    """The parts of the task that determine a trial's result, as plain JSON values."""
    identity = {
        "model": plain(task.model_cls),
        "size_param": task.size_param,
        "model_kwargs": plain(task.model_kwargs),
        "data": source.fingerprint,
        "loss": plain(task.loss_fn),
    }
    if source.lengths is not None or task.weighting.rule is not None:
        # Not of data whose examples hold equally many labels: their ids are older than these.
        identity["weighting"] = repr(task.weighting)
        identity["tokens_per_example"] = source.tokens_per_example
    if source.held_out_by == BLOCKS:
        # Ids of other splits are older than this one.
        identity["held_out"] = BLOCKS
    return identity
