"""What the ranks of a launch train in `test_ranks.py`, and what one process trains to compare.

As a script, under torchrun: `launched.py <folder>` writes what became of each case to
`<folder>/<rank>.json`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from flops_fit.records import Trial
from flops_fit.runtime import distributed
from flops_fit.runtime.signals import stop_at_boundary
from flops_fit.sweep.data.labels import LabelRule
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.task.weighting import Weighting
from flops_fit.sweep.training.checkpoint import Keeper
from flops_fit.sweep.training.recipe import Recipe
from flops_fit.sweep.training.train import train

RECIPE = Recipe(learning_rate=0.02, log_points=1000, pilot=False)


class Net(nn.Module):
    """A perceptron with a layer that is never used, and one that is frozen."""

    def __init__(self, width: int, dropout: float = 0.0, norm: bool = False) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4) if norm else nn.Identity()
        self.up, self.down = nn.Linear(4, width), nn.Linear(width, 3)
        self.unused, self.frozen = nn.Linear(2, 2), nn.Linear(4, 4).requires_grad_(False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down(self.dropout(torch.relu(self.up(self.norm(self.frozen(x))))))


class Points(Dataset):
    """Sixty points in three classes, moved about at random if asked."""

    def __init__(self, noise: float = 0.0) -> None:
        self.noise = noise
        self.x = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        x = self.x[index] + (self.noise * torch.randn(4) if self.noise else 0.0)
        return x, int(self.x[index, 0] > 0) + int(self.x[index, 1] > 0)


class PointStream(IterableDataset):
    """The same as a stream."""

    def __iter__(self):
        points = Points()
        return (points[index] for index in range(60))


class RarelyOdd:
    """A loss with a fault on the last rank, once only."""

    def __init__(self, call: int, fault: Callable[[], Any]) -> None:
        self.left, self.fault = call, fault

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss = F.cross_entropy(outputs, targets)
        self.left -= 1
        if self.left == 0 and distributed.rank() == distributed.count() - 1:
            return loss * self.fault()
        return loss


def fail(error: Exception) -> Callable[[], Any]:
    def fault() -> Any:
        raise error

    return fault


def a_trial(steps: int, batch: int) -> Trial:
    tokens = steps * batch
    return Trial("00000000000000ab", 1e6, 8, 0, 67, tokens, 100.0 * tokens, steps, batch, 0.02, 0)


def plain(data: Any, loss: Any = F.cross_entropy, **options: Any) -> Task:
    return Task(Net, "width", options, data, loss, Points())


def sum_and_count(outputs: torch.Tensor, targets: torch.Tensor) -> tuple[Any, Any]:
    return F.cross_entropy(outputs, targets, reduction="sum"), (targets != -100).sum()


def weighed(by: Any, loss: Any) -> Task:
    """Points of which two thirds have no label."""
    x = Points().x
    labels = [-100 if k % 3 else int(x[k, 0] > 0) for k in range(60)]
    data = list(zip(x, labels, strict=True))
    weighting = Weighting(by, LabelRule(ignored=-100))
    return Task(Net, "width", {}, data, loss, data, weighting=weighting)


CASES: dict[str, tuple[Callable[[], Task], Trial, Recipe]] = {
    "map": (lambda: plain(Points()), a_trial(30, 8), RECIPE),
    "ragged": (lambda: plain(Points()), a_trial(30, 10), RECIPE),
    "few": (lambda: plain(Points()), a_trial(10, 3), RECIPE),
    "stream": (lambda: plain(PointStream()), a_trial(30, 10), RECIPE),
    "parts": (lambda: plain(Points()), a_trial(10, 22), replace(RECIPE, accumulate=2)),
    "noisy": (lambda: plain(Points(0.5)), a_trial(10, 10), RECIPE),
    "loader": (lambda: plain(DataLoader(PointStream(), num_workers=1)), a_trial(10, 10), RECIPE),
    "normed": (lambda: plain(Points(), norm=True), a_trial(10, 16), RECIPE),
    "hungry": (
        lambda: plain(Points(), RarelyOdd(9, fail(MemoryError("none left")))),
        a_trial(20, 16),
        RECIPE,
    ),
    "diverging": (
        lambda: plain(Points(), RarelyOdd(7, lambda: float("nan"))),
        a_trial(20, 16),
        RECIPE,
    ),
    "failing": (
        lambda: plain(Points(), RarelyOdd(7, fail(ValueError("a bad example")))),
        a_trial(20, 16),
        RECIPE,
    ),
    "unlabelled": (lambda: weighed("labels", F.cross_entropy), a_trial(20, 5), RECIPE),
    "sum_and_count": (lambda: weighed("returned", sum_and_count), a_trial(20, 5), RECIPE),
    "last": (lambda: plain(Points()), a_trial(10, 9), RECIPE),  # and all is well again
}


def become(name: str) -> dict[str, Any]:
    """The curve, the loss and the error of a case."""
    build, trial, recipe = CASES[name]
    task = build()
    curve: list[float] = []
    told: dict[str, Any] = {"curve": curve}
    try:
        source = task.open()
        outcome = train(task, source, trial, recipe, lambda p: curve.append(p.train_loss))
        told["loss"] = outcome.loss
    except Exception as error:
        told["error"] = f"{type(error).__name__}: {error}"
    return told


def interrupted(folder: Path) -> dict[str, Any]:
    """A trial with dropout; and again, the last rank asked to stop at step 5, then taken up."""
    task = plain(Points(), dropout=0.2)
    recipe, trial = RECIPE, a_trial(20, 10)
    keeper = Keeper(folder / "kept", 1e9) if distributed.rank() == 0 else None
    source = task.open()
    whole = train(task, source, trial, recipe, lambda p: None)

    def interrupt(point: Any) -> None:
        if point.num_tokens == 5 * 10 and distributed.rank() == distributed.count() - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    told: dict[str, Any] = {"whole": whole.loss}
    try:
        with stop_at_boundary(patient=True) as stop:
            train(task, source, trial, recipe, interrupt, keeper, stop)
    except SystemExit as left:
        told["code"] = left.code
    distributed.gather(None)  # rank 0 has kept it
    told["kept"] = distributed.from_main(lambda: keeper.load()[0])
    told["again"] = train(task, source, trial, recipe, lambda p: None, keeper).loss
    return told


def summed() -> list[list[float] | None]:
    """Gradients once summed: of a weight that all use, one that rank 0 uses, one that none does."""
    weights = [nn.Parameter(torch.ones(2, dtype=kind)) for kind in (torch.float, torch.double) * 2]
    used = weights[:2] if distributed.rank() == 0 else weights[:1]
    for weight in used:
        weight.grad = torch.full_like(weight, 1.0 + distributed.rank())
    loss = distributed.gradient_sum(torch.tensor(0.5), weights)()
    return [[loss.item()], *(w.grad if w.grad is None else w.grad.tolist() for w in weights)]


def main() -> None:
    torch.set_num_threads(1)
    distributed.join()
    told: dict[str, Any] = {name: become(name) for name in CASES}
    told["summed"] = summed()
    told["interrupted"] = interrupted(Path(sys.argv[1]))
    Path(sys.argv[1], f"{distributed.rank()}.json").write_text(json.dumps(told))


if __name__ == "__main__":
    main()
