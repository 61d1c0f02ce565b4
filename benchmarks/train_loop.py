"""Our loop, with Accelerate and all its logging, against a bare PyTorch loop: tokens per second.

Both train the same GPT on the same batches with the same optimiser, in turn, in one process, and
the ratio is taken pair by pair, so that it holds when the machine's speed drifts.

    python benchmarks/train_loop.py [rounds]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from dataclasses import replace

import torch

from flops_fit import Recipe, tracking
from flops_fit.examples.gpt import GPT, next_token_loss
from flops_fit.examples.text import stdlib_text
from flops_fit.records import Trial
from flops_fit.sweep.recipe import build_optimizer
from flops_fit.sweep.source import Source
from flops_fit.sweep.task import Task
from flops_fit.sweep.train import Point, train

STEPS = 60
ROWS = (
    # width, examples a step: about 16 k, 200 k and 1 M parameters
    (16, 16),
    (80, 16),
    (192, 16),
)


def bare_loop(model: torch.nn.Module, source: Source, trial: Trial, recipe: Recipe) -> float:
    """Tokens per second of the shortest honest loop: no schedule, no clipping, no logging."""
    optimizer = build_optimizer(recipe, model, trial.learning_rate)
    batches = source.training_steps(trial.batch_size, trial.steps, seed=0)
    started = time.perf_counter()
    for ((inputs, targets),) in batches:
        loss = next_token_loss(model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return trial.num_tokens / (time.perf_counter() - started)


def our_loop(
    task: Task, source: Source, trial: Trial, recipe: Recipe, ledger: tracking.Ledger
) -> float:
    """Tokens per second of a trial as a sweep trains it, its curve going to MLflow."""
    run_id = tracking.start_run(ledger, trial, "benchmark", {}, "benchmark")
    with tracking.CurveWriter(ledger, run_id) as curve:

        def report(point: Point) -> None:
            curve.add(point.num_tokens, train_loss=point.train_loss)

        return train(task, source, trial, recipe, report).tokens_per_second


def main(rounds: int) -> None:
    """Print a row for each size."""
    task = Task(GPT, "d_model", {}, stdlib_text("train"), next_token_loss, stdlib_text("eval"))
    source, recipe = task.open(), Recipe(eval_examples=16)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {STEPS} steps, CPU")
    print(f"{'parameters':>10}  {'bare tok/s':>10}  {'ratio, median':>13}  {'min':>5}  {'max':>5}")
    with tempfile.TemporaryDirectory() as folder:
        ledger = tracking.open_ledger("benchmark", f"sqlite:///{folder}/mlflow.db")
        for width, batch in ROWS:
            model = GPT(width)
            trial = Trial(
                "0" * 16, 1e12, width, 0, model.num_params(), 0, 1e12, STEPS, batch, 1e-3, 0
            )
            trial = replace(trial, num_tokens=STEPS * batch * source.tokens_per_example)
            pairs = []
            for _ in range(rounds + 1):
                ours = our_loop(task, source, trial, recipe, ledger)
                pairs.append((ours, bare_loop(GPT(width), source, trial, recipe)))
            pairs = pairs[1:]  # the first pair warms up
            ratios = [ours / bare for ours, bare in pairs]
            bare = statistics.median(bare for _, bare in pairs)
            print(
                f"{trial.num_params:>10,}  {bare:>10,.0f}  {statistics.median(ratios):>13.3f}  "
                f"{min(ratios):>5.3f}  {max(ratios):>5.3f}"
            )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 7)
