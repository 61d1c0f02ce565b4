"""The parts of `gpu.py`: each measures one thing and returns its rows for the table.

Some measure in processes of their own, which run this file: `python gpu_parts.py NAME [ARGUMENTS]`.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # a bare checkout is not installed

import torch
from torch.utils.data import TensorDataset

import flops_fit
from flops_fit import Recipe, tracking
from flops_fit.errors import SweepError
from flops_fit.examples.gpt import GPT, next_token_loss
from flops_fit.records import Trial
from flops_fit.runtime import distributed, sending
from flops_fit.runtime.atomic_write import atomic_write
from flops_fit.sweep.data import source as source_module
from flops_fit.sweep.devices.mps import multi_process_service
from flops_fit.sweep.execution.local_pool import LocalPool
from flops_fit.sweep.forecast.calibration import fastest, tensor_bytes
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.curve import Point
from flops_fit.sweep.training.optimizer import build_optimizer, multiplier
from flops_fit.sweep.training.train import Outcome, train

CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
LEAST_S = 30.0  # that a process of its own may take, also if the part's time is over
STRETCHES = 3  # of steps in a timed trial; the first warms up
_AUTOCAST = {"bf16": torch.bfloat16}
Row = dict[str, Any]


@dataclass(frozen=True)
class Shape:
    """A GPT, and the batch it trains on."""

    width: int
    layers: int
    batch: int
    context: int = 1024

    @property
    def kwargs(self) -> dict[str, Any]:
        head_dim = 64 if self.width % 64 == 0 else 16
        return {"n_layer": self.layers, "context": self.context, "head_dim": head_dim}


SHAPES = {
    "1M": Shape(128, 5, 8),
    "10M": Shape(512, 3, 8),
    "30M": Shape(768, 4, 32),
    "300M": Shape(2048, 6, 16),
}
TINY_SHAPES = {name: Shape(16 * (n + 1), 1, 2, context=32) for n, name in enumerate(SHAPES)}


@dataclass(frozen=True)
class Bench:
    """How the parts measure.

    Attributes:
        tiny: Whether on a CPU, in seconds.
        ends_at: Time by which a part should have ended, of `time.monotonic`.
        say: Prints progress.
    """

    tiny: bool
    ends_at: float
    say: Callable[[str], None]

    @property
    def shapes(self) -> dict[str, Shape]:
        return TINY_SHAPES if self.tiny else SHAPES

    def left(self) -> float:
        return self.ends_at - time.monotonic()


def machine() -> dict[str, Any]:
    """What this machine is."""
    return {
        "device": torch.cuda.get_device_name() if CUDA else platform.processor() or "CPU",
        "memory_bytes": torch.cuda.get_device_properties(0).total_memory if CUDA else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }


def task_of(shape: Shape) -> Task:
    """Sequences in which the next token is the last plus one of three steps."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.randint(1, 4, (512, shape.context + 1), generator=generator)
    tokens = steps.cumsum(1) % 256
    data = TensorDataset(tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous())
    return Task(GPT, "d_model", shape.kwargs, data, next_token_loss)


def trial_of(shape: Shape, steps: int) -> Trial:
    with torch.device("meta"):
        params = GPT(shape.width, **shape.kwargs).num_params()
    tokens = steps * shape.batch * shape.context
    return Trial(
        "0" * 16, 1e15, shape.width, 0, params, tokens, 6.0 * params * tokens, steps,
        shape.batch, 1e-3, 0,
    )  # fmt: skip


def recipe_of(**fields: Any) -> Recipe:
    return Recipe(pilot=False, log_points=STRETCHES, **{"eval_examples": 4, **fields})


def timed_trial(shape: Shape, recipe: Recipe, steps: int) -> tuple[float, Outcome]:
    """Tokens a second of the trial loop after its first stretch, and the outcome."""
    task = task_of(shape)
    ends: list[float] = []

    def report(point: Point) -> None:
        ends.append(time.perf_counter())

    outcome = train(task, task.open(), trial_of(shape, steps * STRETCHES), recipe, report)
    return (STRETCHES - 1) * steps * shape.batch * shape.context / (ends[-1] - ends[0]), outcome


def bare_loop(shape: Shape, recipe: Recipe, steps: int) -> float:
    """Tokens a second of a loop as one would write it, with all data on the device."""
    task = task_of(shape)
    torch.manual_seed(0)
    model = task.build(shape.width).to(DEVICE)
    optimizer = build_optimizer(recipe, model, 1e-4)
    if recipe.compile:
        model.compile()
    inputs, targets = (part.to(DEVICE) for part in task.dataset.tensors)
    dtype = _AUTOCAST.get(recipe.precision)
    for stretch in range(STRETCHES):
        if stretch == 1:
            began = _now()
        for step in range(steps):
            chosen = torch.randint(len(inputs), (shape.batch,), device=DEVICE)
            for group in optimizer.param_groups:
                group["lr"] = 1e-4 * multiplier(recipe, step, steps)
            with torch.autocast(DEVICE, dtype, dtype is not None):
                loss = next_token_loss(model(inputs[chosen]), targets[chosen])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip or math.inf)
            optimizer.step()
            optimizer.zero_grad()
        loss.item()
    return (STRETCHES - 1) * steps * shape.batch * shape.context / (_now() - began)


def _now() -> float:
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter()


def speed(bench: Bench) -> Iterator[Row]:
    """The trial loop against a bare loop; the most telling cases first, for compiling is slow."""
    cases = [
        ("30M", "bf16", True), ("300M", "bf16", True), ("1M", "bf16", False), ("1M", "no", False),
        ("30M", "bf16", False), ("30M", "no", False), ("300M", "bf16", False),
        ("300M", "no", False), ("1M", "bf16", True), ("30M", "no", True),
    ]  # fmt: skip
    cases = [case for case in cases if not (bench.tiny and case[2])][: 3 if bench.tiny else None]
    peaks = {name: fastest(Recipe(precision=name)) for name in ("no", "bf16")}
    for size, precision, compiled in cases:
        if bench.left() < 0:
            yield {"what": f"{size} {precision}", "skipped": "no time left"}
            continue
        shape, recipe = bench.shapes[size], recipe_of(precision=precision, compile=compiled)
        steps = 2 if bench.tiny else {"1M": 60, "30M": 30, "300M": 10}[size]
        bare = bare_loop(shape, recipe, steps)
        ours, outcome = timed_trial(shape, recipe, steps)
        if CUDA:
            torch.cuda.empty_cache()
        flops = 6 * trial_of(shape, 1).num_params * ours
        yield {
            "what": f"{size}, {'fp32' if precision == 'no' else precision}"
            f"{', compiled' if compiled else ''}",
            "tokens_per_s": round(ours),
            "bare_tokens_per_s": round(bare),
            "ratio": round(ours / bare, 3),
            "share_of_matmul_speed": round(flops / peaks[precision], 3),
            "loss": round(outcome.loss, 4),
        }


def memory(bench: Bench) -> Iterator[Row]:
    """What a plan made without a GPU expects of memory, against the peak."""
    for size in ("1M", "10M", "30M", "300M"):
        shape, recipe = bench.shapes[size], recipe_of()
        task = task_of(shape)
        source = task.open()
        state, saved = tensor_bytes(task, source, trial_of(shape, 3), recipe)
        if CUDA:  # there it counts two examples only
            saved *= shape.batch / 2
        before = torch.cuda.memory_allocated() if CUDA else 0
        if CUDA:
            torch.cuda.reset_peak_memory_stats()
        train(task, source, trial_of(shape, 3), recipe, lambda point: None)
        peak = torch.cuda.max_memory_allocated() - before if CUDA else math.nan
        yield {
            "what": size,
            "estimated_bytes": round(state + saved),
            "peak_bytes": peak,
            "ratio": round((state + saved) / peak, 3),
        }


def packed(bench: Bench) -> Iterator[Row]:
    """Trials an hour of 1 to 16 processes on one device, with CUDA MPS if it runs here."""
    counts = [1, 2] if bench.tiny else [1, 2, 4, 8, 16]
    for size in ("1M",) if bench.tiny else ("1M", "10M"):
        if bench.left() < 0:
            yield {"what": size, "skipped": "no time left"}
            continue
        with multi_process_service() as problem:
            words = f"without MPS: {problem}" if problem else "MPS"
            bench.say(f"  {size}: starting {counts[-1]} processes, {words}")
            yield from _packed(bench, size, counts, words)


def _packed(bench: Bench, size: str, counts: list[int], words: str) -> Iterator[Row]:
    window_s = 1.0 if bench.tiny else 6.0
    ready_by = time.monotonic() + max(10.0, bench.left() / 3)
    with tempfile.TemporaryDirectory() as folder, LocalPool() as pool:
        call = (bench.shapes[size], counts, window_s, Path(folder), ready_by)
        pool.run(sending.dumps((_train_in_turns, call)), counts[-1], lambda event: None)
        found = [json.loads(file.read_text()) for file in Path(folder).glob("*.json")]
    errors = "; ".join(sorted({one["error"] for one in found if one["error"]}))
    alone = math.nan
    for count in counts:
        speeds = [turns[str(count)] for one in found if str(count) in (turns := one["steps_per_s"])]
        alone = sum(speeds) if count == 1 else alone
        row = {
            "what": f"{size}, {count} packed ({words})",
            "trials_per_hour": round(sum(speeds) * 3600 / 1000, 2),  # of a thousand steps
            "times_one": round(sum(speeds) / alone, 2) if alone else math.nan,
        }
        if failed := count - len(speeds):
            row["failed"] = f"{failed} processes: {errors or 'killed'}"
        yield row


def _train_in_turns(call: tuple[Shape, list[int], float, Path, float], listener: Any) -> None:
    """In a process of the pool: train in each turn, if it is among those that do.

    It leaves its steps a second in each turn, also if it fails in a later one.
    """
    shape, counts, window_s, folder, ready_by = call
    steps_per_s: dict[int, float] = {}
    error = ""
    try:
        _take_turns(shape, counts, window_s, folder, ready_by, steps_per_s)
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
        (folder / f"{os.getpid()}.out").touch()  # the others need not wait for it
    found = {"steps_per_s": steps_per_s, "error": error}
    atomic_write(folder / f"{os.getpid()}.json", json.dumps(found))


def _take_turns(
    shape: Shape,
    counts: list[int],
    window_s: float,
    folder: Path,
    ready_by: float,
    steps_per_s: dict[int, float],
) -> None:
    task = task_of(shape)
    source, recipe = task.open(), recipe_of()
    train(task, source, trial_of(shape, 5), recipe, lambda point: None)
    starts_at, places = _meet(folder, counts[-1], ready_by)
    if os.getpid() not in places:
        raise TimeoutError("a process was not ready in time")
    for turn, count in enumerate(counts):
        # Turns by the clock, which all processes share.
        begin, end = (starts_at + (turn + share) * window_s for share in (0.1, 0.9))
        time.sleep(max(0.0, begin - time.monotonic()))
        began, steps = time.monotonic(), 0
        while places.index(os.getpid()) < count and time.monotonic() < end:
            train(task, source, trial_of(shape, 50), recipe, lambda point: None)
            steps += 50
        if steps:
            steps_per_s[count] = steps / (time.monotonic() - began)


def _meet(folder: Path, count: int, ready_by: float) -> tuple[float, list[int]]:
    """Wait for the other processes, except those that have failed or are late.

    Returns:
        When the first turn begins, and the ids of all that take part, the same in each of them.
    """
    own, meeting = folder / f"{os.getpid()}.ready", folder / "meeting"
    own.touch()
    while not meeting.exists():
        ready = sorted(int(file.stem) for file in folder.glob("*.ready"))
        num_out = len(list(folder.glob("*.out")))
        if len(ready) + num_out < count and time.monotonic() < ready_by:
            time.sleep(0.05)
            continue
        atomic_write(own, json.dumps([time.monotonic() + 1.0, ready]))
        with contextlib.suppress(FileExistsError):  # one of them decides
            os.link(own, meeting)
    starts_at, places = json.loads(meeting.read_text())
    return starts_at, places


def stacked(bench: Bench) -> Iterator[Row]:
    """Eight small models as one `torch.func` stack, against one after the other."""
    import stacked as stacks

    shape = bench.shapes["1M"]
    cases = [stacks.perceptron(256, 128), stacks.gpt(64, 16)]
    if not bench.tiny:
        cases.append(stacks.gpt(shape.width, shape.batch, shape.layers, shape.context))
    for case in cases:
        count, seconds, rounds = (2, 0.1, 1) if bench.tiny else (8, 1.0, 3)
        yield {"what": case.name, **stacks.measure(case, count, DEVICE, seconds, rounds)}


def losses(bench: Bench) -> Iterator[Row]:
    """The held-out loss of one small trial here and on the CPU."""
    here = small_loss(bench.tiny)
    on_cpu = _own_process("loss", bench, CUDA_VISIBLE_DEVICES="")
    yield _losses_of(f"{here['device']} against CPU, fp32", here, cpu=on_cpu)


def ranks(bench: Bench) -> Iterator[Row]:
    """Two ranks with gloo on one device, against one process."""
    one = small_loss(bench.tiny)
    with tempfile.TemporaryDirectory() as folder:
        world = {"WORLD_SIZE": "2", "LOCAL_RANK": "0", "MEETING": f"file://{folder}/meeting"}
        with contextlib.ExitStack() as started:
            both = [
                started.enter_context(_started("loss", bench, RANK=str(rank), **world))
                for rank in range(2)
            ]
            two, _ = [_last_line(process, bench) for process in both]
    what = f"2 ranks ({two['ranks']} joined) on one {two['device']} against one process"
    yield _losses_of(what, two, one=one)


def _losses_of(what: str, found: Row, **other: Row) -> Row:
    """The loss of a trial beside that of another one."""
    ((name, beside),) = other.items()
    differs_by = abs(found["loss"] / beside["loss"] - 1)
    return {
        "what": what,
        "loss": found["loss"],
        f"loss_of_{name}": beside["loss"],
        "differs_by": differs_by,
    }


def data_kept(bench: Bench) -> Iterator[Row]:
    """Data kept on the device, against data that are read batch by batch."""
    shape, steps = bench.shapes["1M"], 2 if bench.tiny else 60
    room_for, speeds = source_module.room_for, []
    try:
        for keeps in (True, False):
            source_module.room_for = lambda device, size, keeps=keeps: keeps  # type: ignore[misc]
            speeds.append(timed_trial(shape, recipe_of(), steps)[0])
    finally:
        source_module.room_for = room_for
    yield {
        "what": "1M, fp32",
        "kept_tokens_per_s": round(speeds[0]),
        "read_tokens_per_s": round(speeds[1]),
        "ratio": round(speeds[0] / speeds[1], 3),
    }


def killed_sweep(bench: Bench) -> Iterator[Row]:
    """A sweep of 20 tiny trials, whose driver is killed in the middle, and gone on with."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "sweep", folder, str(int(bench.tiny))]
        began = time.monotonic()
        with open(Path(folder) / "first.log", "w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            while len(_ended(folder)) < 4 and process.poll() is None and bench.left() > 0:
                time.sleep(0.2)
        finally:
            process.kill()
            process.wait()
        before = _ended(folder)
        killed_after = time.monotonic() - began
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=max(LEAST_S, bench.left())
        )
        words = [line for line in done.stderr.splitlines() if "share each GPU" in line]
        after = _ended(folder)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
    yield {
        "what": f"20 trials, SIGKILL after {len(before)} ended" + "".join(f"; {w}" for w in words),
        "ended": len(set(after)),
        "trained_twice": len(after) - len(set(after)),
        "seconds_to_kill": round(killed_after, 1),
        "seconds_in_all": round(time.monotonic() - began, 1),
    }


def _uri(folder: str) -> str:
    return f"sqlite:///{folder}/mlflow.db"


def _ended(folder: str) -> list[str]:
    """Trial ids of the runs that are complete, one for each run."""
    if not (Path(folder) / "mlflow.db").exists():
        return []
    try:
        runs = tracking.trial_runs(tracking.find_ledger("killed", _uri(folder)))
    except SweepError:
        return []
    complete = [run for run in runs if run.data.tags[tracking.STATE] == "complete"]
    return [run.data.tags[tracking.TRIAL_ID] for run in complete]


def _sweep(folder: str, tiny: str) -> None:
    shape = Shape(16, 1, 8, context=32)
    task = task_of(shape)
    scale, batch = (1.5e8, 1) if int(tiny) else (1.5e9, 4)
    flops_fit.find_optimal(
        GPT, "d_model", shape.kwargs, task.dataset, next_token_loss,
        [scale, 2 * scale, 4 * scale, 8 * scale], sizes=[16, 24, 32, 40, 48], name="killed",
        recipe=Recipe(
            pilot=False, batch_size=batch, learning_rate=1e-3, max_epochs=1e9, eval_examples=8
        ),
        tracking_uri=_uri(folder), workers="auto" if CUDA else 1, extend=False,
    )  # fmt: skip


def small_loss(tiny: bool) -> dict[str, Any]:
    """The held-out loss of a small trial, which all ranks of a launch train together."""
    shape = Shape(32, 1, 4, context=32) if tiny else Shape(64, 2, 8, context=128)
    task, recipe = task_of(shape), replace(recipe_of(), eval_examples=16)
    trial = trial_of(shape, 20 if tiny else 200)
    outcome = train(task, task.open(), trial, recipe, lambda point: None)
    return {"loss": outcome.loss, "device": outcome.device, "ranks": distributed.count()}


def _loss(tiny: str) -> None:
    """Print the loss of a small trial; the body of a process of its own, or of a rank."""
    if (count := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        torch.distributed.init_process_group(
            "gloo",
            init_method=os.environ["MEETING"],
            world_size=count,
            rank=int(os.environ["RANK"]),
        )
        distributed.join()
    print(json.dumps(small_loss(bool(int(tiny)))), flush=True)


def _own_process(name: str, bench: Bench, **environment: str) -> dict[str, Any]:
    """What this file prints as its last line, run in a process of its own."""
    with _started(name, bench, **environment) as process:
        return _last_line(process, bench)


@contextlib.contextmanager
def _started(name: str, bench: Bench, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """This file in a process of its own, which ends with this context."""
    process = subprocess.Popen(
        [sys.executable, __file__, name, str(int(bench.tiny))],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, **environment},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _last_line(process: subprocess.Popen[str], bench: Bench) -> dict[str, Any]:
    output, errors = process.communicate(timeout=max(LEAST_S, bench.left()))
    if process.returncode:
        raise RuntimeError(errors[-2000:])
    return json.loads(output.strip().splitlines()[-1])


if __name__ == "__main__":
    if sys.argv[1] == "sweep":
        _sweep(*sys.argv[2:])
    else:
        _loss(sys.argv[2])
