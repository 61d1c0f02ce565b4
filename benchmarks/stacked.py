"""Models of equal shape trained as one stack by torch.func, against one after the other.

Trials that differ only in rate or seed could share each kernel. Prints the ratio of the steps a
second, measured in turn in one process, for perceptrons and small GPTs:

    OMP_NUM_THREADS=1 python benchmarks/stacked.py [models in a stack]
"""

from __future__ import annotations

import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from flops_fit.examples.gpt import GPT, next_token_loss

warnings.filterwarnings("ignore", message="There is a performance drop")  # it is measured
ROUNDS = 5
STRETCH_S = 1.0  # of each way in each round
CLIP = 1.0


@dataclass(frozen=True)
class Case:
    """Models of one shape, and their data."""

    name: str
    build: Callable[[], nn.Module]
    loss: Callable[[Any, Any], torch.Tensor]
    batch: tuple[torch.Tensor, torch.Tensor]


def gpt(d_model: int, batch: int, n_layer: int = 2, context: int = 128) -> Case:
    tokens = torch.randint(256, (batch, context + 1))
    return Case(
        f"GPT, width {d_model}, batch {batch}",
        lambda: GPT(d_model, n_layer=n_layer, context=context),
        next_token_loss,
        (tokens[:, :-1], tokens[:, 1:].contiguous()),
    )


def perceptron(width: int, batch: int) -> Case:
    return Case(
        f"MLP, width {width}, batch {batch}",
        lambda: nn.Sequential(nn.Linear(32, width), nn.ReLU(), nn.Linear(width, 10)),
        F.cross_entropy,
        (torch.randn(batch, 32), torch.randint(10, (batch,))),
    )


CASES = [perceptron(16, 32), perceptron(256, 128), gpt(16, 4), gpt(16, 16), gpt(64, 16)]


def one_by_one(case: Case, count: int, device: str) -> Callable[[], list[float]]:
    """A function that makes one step of each model; returns their losses."""
    inputs, targets = (part.to(device) for part in case.batch)
    models = []
    for seed in range(count):
        torch.manual_seed(seed)
        model = case.build().to(device)
        models.append((model, torch.optim.AdamW(model.parameters(), lr=1e-3)))

    def step() -> list[float]:
        losses = []
        for model, optimizer in models:
            loss = case.loss(model(inputs), targets)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.detach())
        return torch.stack(losses).tolist()

    return step


def stacked(case: Case, count: int, device: str) -> Callable[[], list[float]]:
    """The same as one stack; the gradient of each model is clipped by its own norm."""
    inputs, targets = (part.to(device) for part in case.batch)
    models = []
    for seed in range(count):
        torch.manual_seed(seed)
        models.append(case.build().to(device))
    params, buffers = stack_module_state(models)
    optimizer = torch.optim.AdamW(params.values(), lr=1e-3)
    base = models[0].to("meta")

    def loss_of(params: dict[str, Any], buffers: dict[str, Any]) -> torch.Tensor:
        return case.loss(functional_call(base, (params, buffers), (inputs,)), targets)

    gradients = vmap(grad_and_value(loss_of), randomness="different")

    def step() -> list[float]:
        grads, losses = gradients(params, buffers)
        squares = sum(grad.flatten(1).square().sum(1) for grad in grads.values())
        share = (CLIP / (squares.sqrt() + 1e-6)).clamp(max=1)
        for name, parameter in params.items():
            shape = (-1, *[1] * (parameter.dim() - 1))
            parameter.grad = grads[name] * share.view(shape)
        optimizer.step()
        return losses.detach().tolist()

    return step


def measure(case: Case, count: int, device: str, stretch_s: float, rounds: int) -> dict[str, float]:
    """Steps a second of a model both ways, their ratio, and how far the losses differ."""
    ways = [one_by_one(case, count, device), stacked(case, count, device)]
    ratios, speeds, differs = [], [0.0, 0.0], 0.0
    for _ in range(3):  # also warms up
        pairs = zip(*(way() for way in ways), strict=True)
        differs = max([differs, *(abs(one - other) / abs(one) for one, other in pairs)])
    for _ in range(rounds):
        for index, way in enumerate(ways):
            began, steps = time.perf_counter(), 0
            while time.perf_counter() - began < stretch_s:
                way()
                steps += 1
            speeds[index] = steps * count / (time.perf_counter() - began)
        ratios.append(speeds[1] / speeds[0])
    return {
        "one_by_one_steps_per_s": speeds[0],
        "stacked_steps_per_s": speeds[1],
        "ratio": statistics.median(ratios),
        "loss_differs_by": differs,
    }


def main(count: int = 8) -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {count} in a stack")
    for case in CASES:
        found = measure(case, count, "cpu", STRETCH_S, ROUNDS)
        print(
            f"{case.name:<26} {found['one_by_one_steps_per_s']:>9,.0f} "
            f"{found['stacked_steps_per_s']:>9,.0f}  x {found['ratio']:.2f}  "
            f"losses differ by {found['loss_differs_by']:.1e}",
            flush=True,
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
