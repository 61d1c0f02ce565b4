"""A model and data that the command line's tests name by import path."""

import torch
from torch import nn
from torch.utils.data import TensorDataset

NUMBER = 3


class Net(nn.Module):
    """A two-layer perceptron, sized by its width."""

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)

    def num_params(self) -> int:
        return sum(p.numel() for p in self.parameters())


def data(count: int = 400) -> TensorDataset:
    print("the user's own words")
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, (x[:, 0] > 0).long())
