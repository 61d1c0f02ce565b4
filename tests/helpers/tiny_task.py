"""A model and data that the command line's tests name by import path."""

import torch
from nets import MLP
from torch.utils.data import TensorDataset

NUMBER = 3


class Net(MLP):
    """The network that tests share, with two classes."""

    def __init__(self, width: int, dropout: float = 0.0) -> None:
        super().__init__(width, dropout, num_classes=2)


def data(count: int = 400) -> TensorDataset:
    print("the user's own words")
    x = torch.randn(count, 4, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, (x[:, 0] > 0).long())
