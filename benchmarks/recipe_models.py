"""Models that recipes are judged on: a GPT of std .02, a ViT, a residual network, MLPs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

from flops_fit.examples.feedforward import FeedForwardLM
from flops_fit.examples.gpt import GPT, next_token_loss
from flops_fit.examples.images import Shapes
from flops_fit.examples.resnet import ResNet
from flops_fit.examples.text import stdlib_text
from flops_fit.examples.vit import ViT


class PlainGPT(GPT):
    """A GPT as most people write it: matrices of std .02, and the embedding is the head."""

    def __init__(self, d_model: int) -> None:
        super().__init__(d_model, n_layer=3, n_head=2, context=64, tie_weights=True)

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)


class MLP(nn.Module):
    """A regression with two hidden layers, in PyTorch's own initialisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(16, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Predictions, shape (B, 1)."""
        return self.layers(x)

    def num_params(self) -> int:
        """All parameters."""
        return sum(p.numel() for p in self.parameters())


@dataclass(frozen=True)
class Case:
    """A model with its data, loss, and a sweep of a decade.

    Attributes:
        model_cls: The model class.
        size_param: Its size parameter.
        data: Opens the training and the held-out data.
        loss_fn: The loss.
        budgets: Compute budgets in FLOPs.
        kwargs: Arguments of the model.
    """

    model_cls: Callable[..., nn.Module]
    size_param: str
    data: Callable[[], tuple[Any, Any]]
    loss_fn: Callable[..., torch.Tensor]
    budgets: tuple[float, ...]
    kwargs: dict[str, Any]


def _images(size: int) -> Callable[[], tuple[TensorDataset, TensorDataset]]:
    def data() -> tuple[TensorDataset, TensorDataset]:
        splits = []
        for split, count in (("train", 120_000), ("eval", 4096)):
            shapes = Shapes(split, size=size)
            images, labels = shapes.draw(np.arange(shapes.first, shapes.first + count))
            splits.append(TensorDataset(images, labels))
        return splits[0], splits[1]

    return data


def _regression() -> tuple[TensorDataset, TensorDataset]:
    """Targets of a smooth random network of 32 hidden units, with a little noise."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1_000_000, 16, generator=generator)
    hidden = torch.randn(16, 32, generator=generator) / 4
    y = torch.tanh(2 * x @ hidden) @ torch.randn(32, 1, generator=generator)
    y = (y - y.mean()) / y.std() + 0.1 * torch.randn(y.shape, generator=generator)
    return TensorDataset(x[4096:], y[4096:]), TensorDataset(x[:4096], y[:4096])


def _text() -> tuple[Any, Any]:
    return stdlib_text("train", 64), stdlib_text("eval", 64)


CASES = {
    "gpt": Case(PlainGPT, "d_model", _text, next_token_loss, (6e9, 1.3e10, 2.8e10, 6e10), {}),
    "vit": Case(
        ViT, "d_model", _images(16), F.cross_entropy, (2e9, 4.3e9, 9e9, 2e10),
        {"image_size": 16},
    ),
    "resnet": Case(ResNet, "width", _images(16), F.cross_entropy, (2e9, 4.3e9, 9e9, 2e10), {}),
    "mlp": Case(MLP, "width", _regression, F.mse_loss, (3e7, 1e8, 3e8, 9e8), {}),
    "feedforward": Case(
        FeedForwardLM, "d_model", _text, next_token_loss, (2e10, 6e10, 2e11, 6e11), {}
    ),
}  # fmt: skip
