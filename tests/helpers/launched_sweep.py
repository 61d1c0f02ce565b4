"""A user's script, as `test_launch.py` starts it: `launched_sweep.py <folder> <seconds>`.

A step of the second size takes so many seconds. Every process writes the table of runs that it was
given to `<folder>/<rank>.csv`.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import torch
from nets import MLP
from torch import nn
from torch.utils.data import TensorDataset

import flops_fit

FOLDER = Path(sys.argv[1])
RANK = os.environ.get("RANK", "0")


class Net(MLP):
    """The network that tests share, with slow steps at the second size."""

    def __init__(self, width: int) -> None:
        super().__init__(width)
        self.delay = float(sys.argv[2]) if width == 8 else 0.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            time.sleep(self.delay)
        return super().forward(x)


x = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
result = flops_fit.find_optimal(
    Net, "width",
    dataset=TensorDataset(x, (x[:, 0] > 0).long() + (x[:, 1] > 0).long()),
    loss_fn=nn.functional.cross_entropy,
    compute_budgets=[1e5, 2e5, 4e5], sizes=[4, 8, 16],
    recipe=flops_fit.Recipe(batch_size=10, max_epochs=1e9, learning_rate=0.01, keep_models="best"),
    name="launched", tracking_uri=f"sqlite:///{FOLDER}/mlflow.db",
)  # fmt: skip
result.runs.to_csv(FOLDER / f"{RANK}.csv", index=False)
