"""Model and data of the sweep in `stored/store.tar.gz`. The source is hashed: do not edit it."""

import os
import signal

import torch
from torch import nn
from torch.utils.data import TensorDataset


class Net(nn.Module):
    """A two-layer perceptron, sized by its width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.Dropout(0.1), nn.Linear(width, 3))
        self.passes = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += self.training
        if str(self.passes) == os.environ.get("STOP_AFTER_PASSES"):
            os.kill(os.getpid(), signal.SIGINT)
        return self.layers(x)

    def num_params(self) -> int:
        return sum(p.numel() for p in self.parameters())


def data() -> TensorDataset:
    """400 points in three classes."""
    x = torch.arange(1600).reshape(400, 4).mul(0.37).sin()
    return TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long())
