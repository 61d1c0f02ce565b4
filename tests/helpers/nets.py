"""A small network that tests share."""

import torch
from torch import nn


class MLP(nn.Module):
    """A perceptron with one hidden layer, sized by its width; 4 inputs."""

    def __init__(self, width: int, dropout: float = 0.0, num_classes: int = 3) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, width), nn.Linear(width, num_classes)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.dropout(torch.relu(self.up(x))))

    def num_params(self) -> int:
        return sum(p.numel() for p in self.parameters())
