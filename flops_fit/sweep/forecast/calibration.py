"""How fast this machine trains: some ten real steps at a few places of the grid.

Timed is `train` itself on short trials: the user's data, loss and optimiser, in the recipe's
precision, on the device at hand. Where several workers will share the machine, as many measure at
once, since cores that share memory and heat slow each other down.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import cloudpickle
import torch
from accelerate.utils import send_to_device
from torch.autograd.graph import saved_tensors_hooks

from flops_fit.errors import SweepError
from flops_fit.records import Trial
from flops_fit.runtime.atomic_write import atomic_write
from flops_fit.runtime.gc_freeze import frozen_gc
from flops_fit.runtime.rng import seeded
from flops_fit.sweep.data.source import Source, length_of
from flops_fit.sweep.execution.local_pool import run_in_processes
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.loop import Point
from flops_fit.sweep.training.optimizer import build_optimizer
from flops_fit.sweep.training.recipe import Recipe
from flops_fit.sweep.training.train import train

ROUNDS = 3  # each place is visited again: what slows a machine down comes and goes
STRETCHES = 2  # timed in a visit, after one that warms up
STRETCH_S = 0.1  # a stretch of a small model takes as many steps as fill this
MOST_STEPS = 200  # in a stretch
SLOW_S = 3.0  # where a step takes longer, the second and third are all that is timed
HELD_OUT_S = 2.0  # steps that fill this take as long as about three times as many passes forward
_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Place:
    """What a few steps at one place of the grid took.

    Attributes:
        trial: Whose size and batch they had.
        seconds_per_step: One number for each stretch of steps.
        start_s: Seconds to make model, optimiser and readers, and to warm up.
        held_out_s: Seconds of the whole held-out evaluation.
        state_bytes: Parameters, gradients, buffers and the optimiser's state.
        work_bytes: What else is held at most: activations for the backward pass, and on CUDA all
            else that is allocated at the peak.
    """

    trial: Trial
    seconds_per_step: tuple[float, ...]
    start_s: float
    held_out_s: float
    state_bytes: float
    work_bytes: float


@dataclass(frozen=True)
class Calibration:
    """Places measured, by one worker or by several at once.

    Attributes:
        places: What was measured; a place measured by several workers is there several times.
        device: What on, in words.
        start_s: Seconds from the call to a worker's first trial.
        memory_kind: "measured" on CUDA, else "estimated".
    """

    places: tuple[Place, ...]
    device: str
    start_s: float
    memory_kind: str


@dataclass(frozen=True)
class Orders:
    """What a process is asked to measure; travels by cloudpickle."""

    task: Task
    trials: tuple[Trial, ...]
    recipe: Recipe
    folder: Path


def calibrate(
    task: Task, source: Source, trials: Sequence[Trial], recipe: Recipe, processes: int = 1
) -> Calibration:
    """Measure some trials' steps.

    Args:
        task: The user's model, data and loss.
        source: The data, opened.
        trials: Whose size and batch to measure at.
        recipe: How they train.
        processes: How many measure at once; 1 is this process.

    Raises:
        SweepError: No process came to an end.
        Exception: What the model or the loss raises.
    """
    if processes == 1:
        return Calibration(
            _measure_all(task, source, trials, recipe), _device(), 0.0, _memory_kind()
        )
    with tempfile.TemporaryDirectory() as folder:
        orders = Orders(task, tuple(trials), recipe, Path(folder))
        started = time.time()
        run_in_processes(cloudpickle.dumps((_measure_elsewhere, orders)), processes, _unheard)
        told = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
    if not told:
        raise SweepError("no process that measures came to an end; its words are above")
    places = [_read_place(fields) for one in told for fields in one["places"]]
    ready_at = max(one["ready_at"] for one in told)
    return Calibration(tuple(places), told[0]["device"], ready_at - started, _memory_kind())


def _memory_kind() -> str:
    return "measured" if torch.cuda.is_available() else "estimated"


def _device() -> str:
    """The device at hand, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads > 1)}"


def _unheard(event: object) -> None:
    pass


def _measure_elsewhere(orders: Orders, listener: Callable[..., None]) -> None:
    """A process's part: measure, and leave it as JSON in the folder."""
    import flops_fit.sweep.execution.worker  # noqa: F401  what a worker loads before it can start

    source = orders.task.open()
    ready_at = time.time()
    places = _measure_all(orders.task, source, orders.trials, orders.recipe)
    told = {
        "ready_at": ready_at,
        "device": _device(),
        "places": [asdict(place) for place in places],
    }
    atomic_write(orders.folder / f"{uuid.uuid4().hex}.json", json.dumps(told))


def _read_place(fields: dict[str, Any]) -> Place:
    times = tuple(fields["seconds_per_step"])
    return Place(**{**fields, "trial": Trial(**fields["trial"]), "seconds_per_step": times})


def _measure_all(
    task: Task, source: Source, trials: Sequence[Trial], recipe: Recipe
) -> tuple[Place, ...]:
    with frozen_gc():
        visits = [[_visit(task, source, trial, recipe, steps=1, passes=2)] for trial in trials]
        for turn in range(ROUNDS):
            for trial, made in zip(trials, visits, strict=True):
                step = min(made[0].seconds_per_step)
                if step < SLOW_S:
                    steps = min(MOST_STEPS, math.ceil(STRETCH_S / step))
                    passes = 1 if turn else math.ceil(HELD_OUT_S / step)
                    made.append(_visit(task, source, trial, recipe, steps=steps, passes=passes))
        return tuple(
            _place(trial, made, *tensor_bytes(task, source, trial, recipe))
            for trial, made in zip(trials, visits, strict=True)
        )


def _place(trial: Trial, visits: Sequence[_Visit], state: float, work: float) -> Place:
    """What the visits to a place say together; the first only warmed up, if there are more."""
    timed = visits[1:] or visits
    peak = max(visit.peak_bytes for visit in visits)
    return Place(
        trial=trial,
        seconds_per_step=tuple(t for visit in timed for t in visit.seconds_per_step),
        start_s=median(visit.start_s for visit in timed),
        held_out_s=timed[0].held_out_s,
        state_bytes=state,
        work_bytes=peak - state if peak > state else work,
    )


@dataclass(frozen=True)
class _Visit:
    """A short trial, timed; `peak_bytes` is 0 where the device does not tell."""

    seconds_per_step: tuple[float, ...]
    start_s: float
    held_out_s: float
    peak_bytes: float


def _visit(
    task: Task, source: Source, trial: Trial, recipe: Recipe, *, steps: int, passes: int
) -> _Visit:
    """Train for a few stretches of a few steps, after one stretch that warms up.

    Args:
        task: The user's model, data and loss.
        source: The data, opened.
        trial: Whose size and batch to measure at.
        recipe: How it trains.
        steps: Steps of a stretch.
        passes: Held-out batches that are passed at most; what all would take follows.
    """
    examples = min(recipe.eval_examples, length_of(source.held_out) or recipe.eval_examples)
    fewer = min(examples, passes * trial.batch_size)
    short = replace(recipe, log_points=STRETCHES + 1, eval_examples=fewer)
    stamps: list[float] = []

    def report(point: Point) -> None:
        stamps.append(time.perf_counter())

    with _peak_bytes() as peak:
        began = time.perf_counter()
        train(task, source, _shortened(trial, steps * (STRETCHES + 1)), short, report)
        ended = time.perf_counter()
    times = tuple((after - before) / steps for before, after in pairwise(stamps))
    return _Visit(
        seconds_per_step=times,
        start_s=max(0.0, stamps[0] - began - steps * median(times)),
        held_out_s=(ended - stamps[-1]) * examples / fewer,
        peak_bytes=peak(),
    )


def _shortened(trial: Trial, steps: int) -> Trial:
    """The same for some steps only, at a rate so small that nothing diverges."""
    share = steps / trial.steps
    return replace(
        trial,
        steps=steps,
        num_tokens=round(trial.num_tokens * share),
        flops=trial.flops * share,
        learning_rate=trial.learning_rate * 1e-3,
    )


@contextmanager
def _peak_bytes() -> Iterator[Callable[[], float]]:
    """Gives the most memory that CUDA had allocated within, beyond what was there before."""
    if not torch.cuda.is_available():
        yield lambda: 0.0
        return
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    yield lambda: float(torch.cuda.max_memory_allocated() - before)


@seeded(0)
def tensor_bytes(task: Task, source: Source, trial: Trial, recipe: Recipe) -> tuple[float, float]:
    """Bytes of a trial's state, and of what a step keeps for its backward pass.

    Counted on one step. The first are the parameters, gradients, buffers and the optimiser's
    tensors; the second what autograd saves, once for each storage (on CUDA of two examples only:
    there the peak is measured). Not counted is what an operation allocates and gives back, nor the
    interpreter with its libraries.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = task.build(trial.size).train().to(device)
    optimizer = build_optimizer(recipe, model, 1e-9)
    batch = source.sample
    if device == "cpu":
        part = slice(0, -(-trial.batch_size // recipe.accumulate))
        ((batch,),) = source.training_steps(trial.batch_size, 1, 0, parts=[part])
    saved: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()

    with torch.autocast(device, _AUTOCAST.get(recipe.precision), recipe.precision != "no"):
        with saved_tensors_hooks(note, lambda tensor: tensor):
            loss = task.loss(model, send_to_device(batch, device))
    loss.backward()
    optimizer.step()
    own = [*model.parameters(), *model.buffers()]
    for tensor in own:
        saved.pop(tensor.untyped_storage().data_ptr(), None)
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    slots = [v for state in optimizer.state.values() for v in state.values()]
    state = [*own, *grads, *(slot for slot in slots if isinstance(slot, torch.Tensor))]
    return float(sum(tensor.nbytes for tensor in state)), float(sum(saved.values()))
