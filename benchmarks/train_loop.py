"""Tokens per second of our training loop, two plain PyTorch loops, HF Trainer and Lightning.

All train the same GPT on the same text with the same batch, AdamW, clipping and schedule, in
float32, in turn, in one process. Ratios to the bare loop are taken within each round, so that they
hold if the speed of the machine drifts. No loop evaluates, saves or draws a progress bar, and those
that log do so at the same steps. Our loop reads with its own sampler and writes its curve to
MLflow, as in a sweep; the others use a shuffling `DataLoader` on the same dataset and log to
memory.

`bare` does the same work as a user would write it: clip, schedule, test whether the loss is finite,
log. `barest` does none of this.

    pip install -e '.[bench]'
    OMP_NUM_THREADS=1 python benchmarks/train_loop.py [rounds] [row ...] [cpu]

With `cpu` the clock is the CPU time of the training thread, for a machine that others use too. It
does not include other threads or waiting.
"""

from __future__ import annotations

import logging
import math
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning
import torch
import transformers
from lightning.pytorch import callbacks as lightning_callbacks
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, default_collate

from flops_fit import Recipe, tracking
from flops_fit.examples.gpt import GPT, next_token_loss
from flops_fit.examples.text import stdlib_text
from flops_fit.records import Trial
from flops_fit.sweep.data.source import Source
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.curve import Point
from flops_fit.sweep.training.optimizer import build_optimizer, multiplier
from flops_fit.sweep.training.train import train
from flops_fit.tracking.outbox import Outbox

BATCH = 16
LOG_EVERY = 5
ROWS = {
    # parameters: width, width of a head, steps
    "16k": (16, 16, 100),
    "190k": (76, 19, 40),
    "4.9M": (440, 40, 5),
}
RECIPE = Recipe(eval_examples=16)
DATA = stdlib_text("train")


@dataclass(frozen=True)
class Case:
    """What every loop trains: a width, for a number of steps."""

    width: int
    head_dim: int
    steps: int

    def model(self) -> GPT:
        return GPT(self.width, head_dim=self.head_dim)

    def optimizer(self, model: torch.nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(RECIPE, model, 1e-3)

    def schedule(self, optimizer: torch.optim.Optimizer) -> LambdaLR:
        return LambdaLR(optimizer, lambda step: multiplier(RECIPE, step, self.steps))

    def tokens_per_second(self, seconds: float) -> float:
        return self.steps * BATCH * DATA.context / seconds


def loader(collate: Callable[[list[Any]], Any] = default_collate) -> DataLoader[Any]:
    return DataLoader(DATA, BATCH, shuffle=True, collate_fn=collate)


def barest(case: Case) -> float:
    """Forward, backward, step; nothing else."""
    model = case.model()
    optimizer = case.optimizer(model)
    batches = iter(loader())
    started = time.perf_counter()
    for _ in range(case.steps):
        inputs, targets = next(batches)
        next_token_loss(model(inputs), targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    return case.tokens_per_second(time.perf_counter() - started)


def bare(case: Case) -> float:
    """The same work as the other loops, in plain PyTorch."""
    model = case.model()
    optimizer = case.optimizer(model)
    schedule = case.schedule(optimizer)
    batches = iter(loader())
    total, curve = 0.0, []
    started = time.perf_counter()
    for step in range(1, case.steps + 1):
        inputs, targets = next(batches)
        loss = next_token_loss(model(inputs), targets)
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"{value} at step {step}")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), RECIPE.clip or math.inf)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        total += value
        if step % LOG_EVERY == 0:
            curve.append((step, total / LOG_EVERY, schedule.get_last_lr()[0]))
            total = 0.0
    return case.tokens_per_second(time.perf_counter() - started)


@dataclass(frozen=True)
class Ours:
    """A trial, as a sweep trains it."""

    task: Task
    source: Source
    ledger: tracking.Ledger
    spool: Path

    def __call__(self, case: Case) -> float:
        tokens = case.steps * BATCH * DATA.context
        trial = Trial(
            "0" * 16, 1e12, case.width, 0, 1, tokens, 1e12, case.steps, BATCH, 1e-3, 0
        )  # fmt: skip
        task = replace(self.task, model_kwargs={"head_dim": case.head_dim})
        recipe = replace(RECIPE, log_points=case.steps // LOG_EVERY)
        with Outbox(self.ledger, self.spool) as outbox:
            attempt = outbox.begin(trial, "benchmark", {}, "benchmark")

            def report(point: Point) -> None:
                attempt.add(
                    point.num_tokens,
                    train_loss=point.train_loss,
                    learning_rate=point.learning_rate,
                    tokens_per_second=point.tokens_per_second,
                )

            return train(task, self.source, trial, recipe, report).tokens_per_second


def keyed(examples: list[Any]) -> dict[str, torch.Tensor]:
    """A batch in the format of HF Trainer."""
    inputs, targets = default_collate(examples)
    return {"inputs": inputs, "targets": targets}


class Clock(transformers.TrainerCallback, lightning_callbacks.Callback):
    """Seconds between the callbacks at the start and the end of training."""

    def start(self, *args: Any, **kwargs: Any) -> None:
        self.started = time.perf_counter()

    def stop(self, *args: Any, **kwargs: Any) -> None:
        self.seconds = time.perf_counter() - self.started

    on_train_begin = on_train_start = start
    on_train_end = stop


class PlainTrainer(transformers.Trainer):
    """HF Trainer with the loss of a plain module."""

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        return next_token_loss(model(inputs["inputs"]), inputs["targets"])


def hf_trainer(case: Case) -> float:
    model = case.model()
    optimizer = case.optimizer(model)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = PlainTrainer(
            model,
            transformers.TrainingArguments(
                output_dir=folder, max_steps=case.steps, per_device_train_batch_size=BATCH,
                max_grad_norm=RECIPE.clip or 0.0, logging_steps=LOG_EVERY, logging_strategy="steps",
                save_strategy="no", eval_strategy="no", report_to="none", disable_tqdm=True,
                use_cpu=True, dataloader_pin_memory=False, remove_unused_columns=False,
            ),
            data_collator=keyed,
            train_dataset=DATA,
            optimizers=(optimizer, case.schedule(optimizer)),
            callbacks=[clock],
        )  # fmt: skip
        trainer.remove_callback(transformers.PrinterCallback)
        trainer.train()
    return case.tokens_per_second(clock.seconds)


class Module(lightning.LightningModule):
    """The GPT as a LightningModule."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self.case, self.model = case, case.model()

    def training_step(self, batch: Any, batch_index: int) -> torch.Tensor:
        inputs, targets = batch
        loss = next_token_loss(self.model(inputs), targets)
        if batch_index % LOG_EVERY == LOG_EVERY - 1:
            self.log("train_loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = self.case.optimizer(self.model)
        schedule = {"scheduler": self.case.schedule(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}


def lightning_trainer(case: Case) -> float:
    clock = Clock()
    trainer = lightning.Trainer(
        accelerator="cpu", devices=1, max_steps=case.steps, gradient_clip_val=RECIPE.clip,
        log_every_n_steps=LOG_EVERY, logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, callbacks=[clock],
    )  # fmt: skip
    trainer.fit(Module(case), loader())
    return case.tokens_per_second(clock.seconds)


def measure(loops: dict[str, Callable[[Case], float]], case: Case, rounds: int) -> dict[str, list]:
    """Tokens per second of each loop in each round; the order rotates."""
    found: dict[str, list] = {name: [] for name in loops}
    names = list(loops)
    for turn in range(rounds + 1):  # the first warms up
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            found[name].append(loops[name](case))
    return {name: speeds[1:] for name, speeds in found.items()}


def show(label: str, found: dict[str, list]) -> None:
    for name, speeds in found.items():
        ratios = sorted(speed / base for speed, base in zip(speeds, found["bare"], strict=True))
        low, high = ratios[len(ratios) // 4], ratios[-1 - len(ratios) // 4]
        print(
            f"{label:>10}  {name:<10} {statistics.median(speeds):>9,.0f}"
            f"  {statistics.median(ratios):>6.3f}  {low:.3f} to {high:.3f}",
            flush=True,
        )


def main(rounds: int, rows: list[str]) -> None:
    """Print one line per size and loop."""
    torch.set_num_threads(1)
    clock = "CPU" if "cpu" in rows else "wall"
    if clock == "CPU":
        time.perf_counter = time.thread_time
    rows = [row for row in rows if row in ROWS] or list(ROWS)
    for name in ("lightning.pytorch", "transformers", "lightning"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning")
    task = Task(GPT, "d_model", {}, DATA, next_token_loss, stdlib_text("eval"))
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, "
        f"lightning {lightning.__version__}; one CPU thread, {BATCH * DATA.context} tokens a step, "
        f"{clock} time"
    )
    print(
        f"{'parameters':>10}  {'loop':<10} {'tokens/s':>9}  {'ratio':>6}  middle half of {rounds}"
    )
    with tempfile.TemporaryDirectory() as folder:
        ledger = tracking.open_ledger("benchmark", f"sqlite:///{folder}/mlflow.db")
        loops: dict[str, Callable[[Case], float]] = {
            "barest": barest,
            "bare": bare,
            "ours": Ours(task, task.open(), ledger, Path(folder) / "spool"),
            "HF Trainer": hf_trainer,
            "Lightning": lightning_trainer,
        }
        for row in rows:
            case = Case(*ROWS[row])
            show(f"{case.model().num_params():,}", measure(loops, case, rounds))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9, sys.argv[2:])
