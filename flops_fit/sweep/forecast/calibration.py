"""How fast this machine trains: a few real steps at a few places of the grid.

`train` itself is timed on short trials: the user's data, loss and optimiser, in the recipe's
precision, on the available device. If several workers will share the machine, as many processes
measure at once, because cores that share memory and cooling slow each other down.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate.utils import send_to_device
from torch.autograd.graph import saved_tensors_hooks

from flops_fit.errors import SweepError
from flops_fit.records import Trial
from flops_fit.runtime import sending
from flops_fit.runtime.atomic_write import atomic_write
from flops_fit.runtime.gc_freeze import frozen_gc
from flops_fit.runtime.rng import seeded
from flops_fit.sweep.data.source import Source, length_of
from flops_fit.sweep.devices.sharing import device_to_itself
from flops_fit.sweep.execution.local_pool import run_in_processes
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.curve import Point
from flops_fit.sweep.training.optimizer import build_optimizer
from flops_fit.sweep.training.recipe import Recipe
from flops_fit.sweep.training.train import train

ROUNDS = 3  # every place is timed again in each round, since a machine's load varies
QUICK_ROUNDS = 1  # enough to see how large a sweep a machine can train
STRETCHES = 2  # stretches of steps timed in a visit, after one that warms up
STRETCH_S = 0.1  # a stretch of a small model takes as many steps as fill this
MAX_STEPS = 200  # in a stretch
SLOW_S = 3.0  # if a step takes longer, only the second and third steps are timed
HELD_OUT_S = 2.0  # evaluate about as many batches as this fills with training steps
_WIDTH = 4096  # of matrices large enough to keep a GPU busy
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Calibration:
    """Measured times and memory, of one process or of several at once.

    Attributes:
        table: One row per visit to a place. `flops_per_token` and `batch_size` identify the place;
            `num_params` is its size; `round` counts from 0. Times in seconds: `seconds_per_step`;
            `start_s`, to build model, optimiser and data loader and to warm up; `held_out_s`, for
            the whole held-out evaluation (NaN except in the first visit that counts). Memory in
            bytes: `state_bytes`, for parameters, gradients, buffers and the optimiser's state;
            `work_bytes`, for activations (on CUDA, for all else allocated at the peak).
        device: The device that was timed, for display.
        start_s: Seconds from the call to a worker's first trial.
        memory_kind: "measured" on CUDA, else "estimated".
    """

    table: pd.DataFrame
    device: str
    start_s: float
    memory_kind: str


def calibrate(
    task: Task,
    source: Source,
    trials: Sequence[Trial],
    recipe: Recipe,
    processes: int = 1,
    rounds: int = ROUNDS,
) -> Calibration:
    """Time and weigh training steps at a few places.

    Args:
        task: The user's model, data and loss.
        source: The data, opened.
        trials: The places: steps of each trial's size and batch are measured.
        recipe: How they train.
        processes: Number of processes that measure at once; 1 is this process.
        rounds: How often every place is timed.

    Raises:
        SweepError: Every measuring process died.
        Exception: Whatever the model or the loss raises.
    """
    kind = "measured" if torch.cuda.is_available() else "estimated"
    if processes == 1:
        table = _measure(task, source, trials, recipe, rounds)
        return Calibration(table, _device(), 0.0, kind)
    started = time.time()
    table = measured_apart(task, trials, recipe, rounds, processes)
    ready_s = float(table["ready_at"].max()) - started
    return Calibration(table, table["device"].iloc[0], ready_s, kind)


def measured_apart(
    task: Task,
    trials: Sequence[Trial],
    recipe: Recipe,
    rounds: int,
    processes: int = 1,
    claims: Path | None = None,
) -> pd.DataFrame:
    """The table of a calibration in processes of their own, which leave no memory in use.

    Args:
        task: As of `calibrate`.
        trials: As of `calibrate`.
        recipe: As of `calibrate`.
        rounds: As of `calibrate`.
        processes: As of `calibrate`.
        claims: Folder of claims on devices: each process waits until it has its own to itself.

    Raises:
        SweepError: Every measuring process died.
    """
    with tempfile.TemporaryDirectory() as folder:
        call = _measure_into_folder, (task, tuple(trials), recipe, rounds, Path(folder), claims)
        run_in_processes(sending.dumps(call), processes, lambda event: None)
        files = sorted(Path(folder).glob("*.json"))
        results = [pd.DataFrame(json.loads(file.read_text())) for file in files]
    if not results:
        raise SweepError("all processes that measured training speed died; see their output above")
    return pd.concat(results, ignore_index=True)


def _device_bytes() -> float:
    return float(torch.cuda.mem_get_info()[1]) if torch.cuda.is_available() else math.nan


def fastest(recipe: Recipe) -> float:
    """FLOP/s of large products of matrices in a recipe's precision; NaN on a CPU."""
    if not torch.cuda.is_available():
        return math.nan
    dtype = _AUTOCAST.get(recipe.precision, torch.float32)
    matrix = torch.randn(_WIDTH, _WIDTH, device="cuda", dtype=dtype)
    for repeats in (3, 20):  # the first to warm up
        torch.cuda.synchronize()
        began = time.perf_counter()
        for _ in range(repeats):
            matrix @ matrix
        torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    return 2 * _WIDTH**3 * repeats / seconds


def _device() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def _measure_into_folder(
    call: tuple[Task, Sequence[Trial], Recipe, int, Path, Path | None], listener: Any
) -> None:
    """Measure in a worker process, and leave the table in the folder as a JSON file."""
    import flops_fit.sweep.execution.worker  # noqa: F401  a real worker loads this before it starts

    task, trials, recipe, rounds, folder, claims = call
    source = task.open()
    ready_at = time.time()
    with nullcontext() if claims is None else device_to_itself(claims):
        table = _measure(task, source, trials, recipe, rounds).assign(
            ready_at=ready_at,
            device=_device(),
            device_bytes=_device_bytes(),
            fastest=fastest(recipe),
        )
    atomic_write(folder / f"{uuid.uuid4().hex}.json", json.dumps(table.to_dict("records")))


def _measure(
    task: Task, source: Source, trials: Sequence[Trial], recipe: Recipe, rounds: int
) -> pd.DataFrame:
    """The rows of `Calibration.table` for all places."""
    with frozen_gc():
        tables = []
        for trial, visits in zip(
            trials, _visits(task, source, trials, recipe, rounds), strict=True
        ):
            state, work = tensor_bytes(task, source, trial, recipe)
            peak = max(visit["peak_bytes"] for visit in visits)
            # The visit that warmed up counts only if there is no other.
            table = pd.DataFrame(visits[1:] or visits).drop(columns="peak_bytes")
            tables.append(
                table.assign(
                    flops_per_token=trial.flops_per_token,
                    batch_size=trial.batch_size,
                    num_params=trial.num_params,
                    state_bytes=state,
                    work_bytes=peak - state if peak > state else work,
                )
            )
    return pd.concat(tables, ignore_index=True)


def _visits(
    task: Task, source: Source, trials: Sequence[Trial], recipe: Recipe, rounds: int
) -> list[list[dict[str, float]]]:
    """The visits to each place: one to warm up, then, unless its steps are slow, one a round."""
    if torch.cuda.is_available():  # copies the data to the device, which are no trial's own
        _visit(task, source, trials[0], recipe, steps=1, passes=1)
    visits = [[_visit(task, source, trial, recipe, steps=1, passes=2)] for trial in trials]
    for turn in range(rounds):
        for trial, visits_of_place in zip(trials, visits, strict=True):
            step_s = visits_of_place[0]["seconds_per_step"]
            if step_s >= SLOW_S:
                continue
            steps = min(MAX_STEPS, math.ceil(STRETCH_S / step_s))
            # Only the first round evaluates enough batches to time the evaluation well.
            passes = 1 if turn else math.ceil(HELD_OUT_S / step_s)
            visit = _visit(task, source, trial, recipe, steps=steps, passes=passes)
            visit["round"] = turn
            visit["held_out_s"] = math.nan if turn else visit["held_out_s"]
            visits_of_place.append(visit)
    return visits


def _visit(
    task: Task, source: Source, trial: Trial, recipe: Recipe, *, steps: int, passes: int
) -> dict[str, float]:
    """Train for a few stretches of `steps` steps, after one that warms up.

    Args:
        task: The user's model, data and loss.
        source: The data, opened.
        trial: Whose size and batch to measure at.
        recipe: How it trains.
        steps: Steps of a stretch.
        passes: Most held-out batches to evaluate; the time for all is extrapolated.

    Returns:
        A row of `Calibration.table` without its place, and `peak_bytes`: the most memory CUDA had
        allocated, beyond what was allocated before; 0 on a CPU.
    """
    num_examples = min(recipe.eval_examples, length_of(source.held_out) or recipe.eval_examples)
    num_evaluated = min(num_examples, passes * trial.batch_size)
    short_recipe = replace(recipe, log_points=STRETCHES + 1, eval_examples=num_evaluated)
    stretch_ends: list[float] = []

    def report(point: Point) -> None:
        stretch_ends.append(time.perf_counter())

    cuda = torch.cuda.is_available()
    allocated = torch.cuda.memory_allocated() if cuda else 0
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    train(task, source, _shortened(trial, steps * (STRETCHES + 1)), short_recipe, report)
    ended = time.perf_counter()
    seconds_per_step = (stretch_ends[-1] - stretch_ends[0]) / (STRETCHES * steps)
    return {
        "round": 0,
        "seconds_per_step": seconds_per_step,
        "start_s": max(0.0, stretch_ends[0] - began - steps * seconds_per_step),
        "held_out_s": (ended - stretch_ends[-1]) * num_examples / num_evaluated,
        "peak_bytes": float(torch.cuda.max_memory_allocated() - allocated) if cuda else 0.0,
    }


def _shortened(trial: Trial, steps: int) -> Trial:
    """The trial with only some of its steps, at a learning rate too small to diverge."""
    share = steps / trial.steps
    return replace(
        trial,
        steps=steps,
        num_tokens=round(trial.num_tokens * share),
        flops=trial.flops * share,
        learning_rate=trial.learning_rate * 1e-3,
    )


@seeded(0)
def tensor_bytes(task: Task, source: Source, trial: Trial, recipe: Recipe) -> tuple[float, float]:
    """Bytes of a trial's state, and of what a step keeps for its backward pass.

    Both are counted on one step. The state is the parameters, gradients, buffers and the
    optimiser's tensors. What a step keeps are the tensors that autograd saves, each storage once
    (on CUDA for two examples only: there the peak is measured). Temporary buffers of an operation
    and the memory of the interpreter and its libraries are not counted.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = task.build(trial.size).train().to(device)
    optimizer = build_optimizer(recipe, model, 1e-9)
    batch = source.sample
    if device == "cpu":
        part = slice(0, -(-trial.batch_size // recipe.accumulate))
        ((batch,),) = source.training_steps(trial.batch_size, 1, 0, parts=[part])
    saved: dict[int, int] = {}  # bytes of each storage, by its address

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    with torch.autocast(device, _AUTOCAST.get(recipe.precision), recipe.precision != "no"):
        with saved_tensors_hooks(note, lambda tensor: tensor):
            loss = task.loss(model, send_to_device(batch, device))
    loss.backward()
    optimizer.step()
    weights = [*model.parameters(), *model.buffers()]
    for tensor in weights:  # autograd saves weights too, which the state counts already
        saved.pop(tensor.untyped_storage().data_ptr(), None)
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    slots = [value for state in optimizer.state.values() for value in state.values()]
    state = [*weights, *grads, *(slot for slot in slots if isinstance(slot, torch.Tensor))]
    return float(sum(tensor.nbytes for tensor in state)), float(sum(saved.values()))
