"""A sweep with a goal that trains for real: `goal_training.py <folder>`.

Every process writes the table of runs that it was given to `<folder>/<rank>.csv`. `flops-fit`
commands take the same sweep from `ARGUMENTS`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import TensorDataset

import flops_fit

BUDGETS, TARGET, UNTIL = [3e6, 3e7], 3e8, 30.0
RECIPE = {"batch_size": 32, "learning_rate": 0.005, "max_epochs": 1e9, "pilot": False}
ARGUMENTS = {
    "model-cls": "goal_training:Net",
    "model-size-param": "width",
    "dataset": "goal_training:data",
    "loss-fn": "goal_training:loss",
    "compute-budgets": ",".join(map(str, BUDGETS)),
    "target": TARGET,
    "until": UNTIL,
    "name": "goal",
}


class Net(nn.Module):
    """A two-layer perceptron, sized by its width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)

    def num_params(self) -> int:
        return sum(p.numel() for p in self.parameters())


def data() -> TensorDataset:
    """What a wide network makes of noise, with noise."""
    random = torch.Generator().manual_seed(0)
    x = torch.randn(20_000, 8, generator=random)
    inner = torch.randn(8, 64, generator=random)
    outer = torch.randn(64, 1, generator=random) / torch.arange(1, 65)[:, None] ** 0.5
    y = torch.relu(x @ inner) @ outer
    y = y / y.std() + 0.3 * torch.randn(y.shape, generator=random)
    return TensorDataset(x, y)


def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return nn.functional.mse_loss(outputs, targets)


def run(folder: Path, **options: object) -> flops_fit.Result:
    """The sweep, to its end."""
    return flops_fit.find_optimal(
        Net, "width", dataset=data(), loss_fn=loss, compute_budgets=BUDGETS, target=TARGET,
        until=UNTIL, recipe=flops_fit.Recipe(**RECIPE), name="goal",
        tracking_uri=f"sqlite:///{folder}/mlflow.db", **options,
    )  # fmt: skip


if __name__ == "__main__":
    import goal_training  # the class by the name that `flops-fit` commands import it by

    where = Path(sys.argv[1])
    goal_training.run(where).runs.to_csv(where / f"{os.environ.get('RANK', '0')}.csv", index=False)
