"""What does a sweep cost besides training: planning, claiming, recording and resuming?

Overhead is the time per trial of a sweep whose trials do not train, minus the time of a sweep that
has nothing left to do. Resuming is `find_optimal` with all runs finished, including fits and plots,
and the part of it until no trial is found missing.

    OMP_NUM_THREADS=1 python benchmarks/ledger.py overhead     # sqlite, then an MLflow server
    OMP_NUM_THREADS=1 python benchmarks/ledger.py growth       # 100 to 10,000 finished runs
    OMP_NUM_THREADS=1 python benchmarks/ledger.py workers      # two against one, on a quiet machine
"""

from __future__ import annotations

import contextlib
import os
import runpy
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

import flops_fit
from flops_fit import tracking
from flops_fit.examples.gpt import GPT, next_token_loss
from flops_fit.examples.text import stdlib_text
from flops_fit.prepare import prepare
from flops_fit.records import Trial
from flops_fit.runtime.signals import StopRequest
from flops_fit.sweep.data.source import Source
from flops_fit.sweep.execution import worker
from flops_fit.sweep.execution.driver import run_sweep
from flops_fit.sweep.execution.job import Job
from flops_fit.sweep.plan.request import PlanRequest
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.checkpoint import Keeper
from flops_fit.sweep.training.loop import Point, Report
from flops_fit.sweep.training.train import Outcome
from flops_fit.sweep_setup import open_job
from flops_fit.tracking import recording
from flops_fit.tracking.address import StoreAddress
from flops_fit.tracking.ledger import TRIAL_ID

DEMO = Path(__file__).parents[1] / "examples" / "gpt_stdlib.py"
BUDGETS = [1e10, 3e10, 1e11, 3e11]


class Net(nn.Module):
    """A two-layer perceptron; its size is its width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)

    def num_params(self) -> int:
        return sum(p.numel() for p in self.parameters())


def no_training(
    task: Task,
    source: Source,
    trial: Trial,
    recipe: flops_fit.Recipe,
    report: Report,
    keeper: Keeper | None = None,
    stop: StopRequest | None = None,
) -> Outcome:
    """In place of training: a hundred points of a curve, and a loss from a law."""
    loss = 1 + 66 / trial.num_params**0.35 + 100 / trial.num_tokens**0.3
    for part in range(1, 101):
        tokens = part * trial.num_tokens // 100
        report(Point(tokens, trial.flops * part / 100, loss, 0.1, 1e6))
    return Outcome(loss, loss, trial.flops, 0.1, 1e6, 1.0, "cpu")


X = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
TASK = Task(
    Net, "width", {}, TensorDataset(X, (X[:, 0] > 0).long()), nn.functional.cross_entropy
)  # fmt: skip
RECIPE = flops_fit.Recipe(max_epochs=1e9)


def sweep(sizes: list[int], **where: Any) -> flops_fit.Result:
    return flops_fit.find_optimal(
        TASK.model_cls, "width", {}, TASK.dataset, TASK.loss_fn, BUDGETS, sizes=sizes,
        recipe=RECIPE, name="ledger", extend=False, **where,
    )  # fmt: skip


def widths(count: int) -> list[int]:
    return np.geomspace(300, 9600, count).astype(int).tolist()


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """An MLflow server with a SQLite file."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1",
         "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
         "--artifacts-destination", f"{folder}/artifacts"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env={**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
    )  # fmt: skip
    uri = f"http://127.0.0.1:{port}"
    try:
        while True:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{uri}/health").close()
                break
            time.sleep(0.2)
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGTERM)


def seconds(call: Any, *args: Any, **options: Any) -> float:
    started = time.perf_counter()
    call(*args, **options)
    return time.perf_counter() - started


def overhead() -> None:
    """Seconds per trial with SQLite and with a server."""
    worker.train = no_training
    sizes = widths(25)
    for kind in ("sqlite", "server"):
        with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
            uri = f"sqlite:///{name}/mlflow.db"
            uri = stack.enter_context(served(Path(name))) if kind == "server" else uri
            where = {"tracking_uri": uri, "storage": f"sqlite:///{name}/optuna.db"}
            tracking.open_ledger("ledger", uri)  # creates the schema, outside the measurement
            whole = seconds(sweep, sizes, **where)
            again = seconds(sweep, sizes, **where)
        count = len(BUDGETS) * len(sizes)
        print(f"{kind}: {(whole - again) / count:.3f} s a trial ({count} trials)", flush=True)


def growth() -> None:
    """Seconds to resume with a growing number of finished runs, and to run one more trial."""
    worker.train = no_training
    for count in (100, 1_000, 10_000):
        with tempfile.TemporaryDirectory() as name:
            uri = f"sqlite:///{name}/mlflow.db"
            sizes = widths(count // len(BUDGETS))
            planned = prepare(
                TASK, PlanRequest(BUDGETS, sizes, RECIPE), StoreAddress("ledger", uri)
            )
            job = open_job(TASK, planned, StoreAddress("ledger", uri))
            fill(job, Path(name) / "mlflow.db")
            resume = seconds(run_sweep, job)
            whole = seconds(sweep, sizes, tracking_uri=uri)
            more = seconds(sweep, [*sizes, *range(9700, 9725)], tracking_uri=uri)
            trial = (more - whole) / (25 * len(BUDGETS))
            print(
                f"{count} runs: resumed in {resume:.2f} s; with planning, fits, plots and report "
                f"{whole:.1f} s; a trial more {trial:.3f} s",
                flush=True,
            )


def fill(job: Job, database: Path) -> None:
    """Add a finished run for every trial, copied from one run within the database."""
    params, first = {**job.params, "code": job.code}, job.trials[0]
    run_id = recording.start_run(job.ledger, first, job.setting, params, "benchmark")
    recording.complete_run(job.ledger, run_id, measured(first), first.num_tokens)
    with sqlite3.connect(database) as connection:
        for table in ("runs", "tags", "params", "metrics", "latest_metrics"):
            query = connection.execute(f"SELECT * FROM {table} WHERE run_uuid = ?", [run_id])
            names = [column[0] for column in query.description]
            own = [dict(zip(names, row, strict=True)) for row in query]
            rows = [copied(row, trial, n) for n, trial in enumerate(job.trials[1:]) for row in own]
            marks = ", ".join("?" * len(names))
            connection.executemany(f"INSERT INTO {table} VALUES ({marks})", rows)
    connection.close()


def measured(trial: Trial) -> dict[str, float]:
    loss = 1 + 66 / trial.num_params**0.35 + 100 / trial.num_tokens**0.3
    return {"loss": loss, "flops": trial.flops, "wall_time_s": 1.0}


def copied(row: dict[str, Any], trial: Trial, number: int) -> list[Any]:
    """A row of the copied run, changed to belong to a trial."""
    values = {**asdict(trial), **measured(trial), TRIAL_ID: trial.trial_id}
    key = row.get("key")
    value = values.get(key, row.get("value")) if key else None
    own = {**row, "run_uuid": f"{number:032x}"} | ({"value": value} if key else {})
    return [str(v) if k == "value" and key in asdict(trial) else v for k, v in own.items()]


def workers() -> None:
    """Tokens per second of two workers and of one, on the demo's trials, without start-up."""
    budgets = runpy.run_path(str(DEMO))["BUDGETS"]
    rates = []
    for count in (1, 2):
        with tempfile.TemporaryDirectory() as name:
            uri = f"sqlite:///{name}/mlflow.db"
            flops_fit.find_optimal(
                GPT, "d_model", {"n_layer": 2}, stdlib_text("train"), next_token_loss, budgets,
                eval_dataset=stdlib_text("eval"), recipe=flops_fit.Recipe(eval_examples=512),
                name="ledger", tracking_uri=uri, workers=count, extend=False,
            )  # fmt: skip
            ledger = tracking.find_ledger("ledger", uri)
            tokens = sum(run.num_tokens for run in tracking.fetch_runs(ledger))
            with sqlite3.connect(f"{name}/mlflow.db") as connection:
                span = "SELECT max(end_time) - min(start_time) FROM runs JOIN tags USING (run_uuid)"
                query = connection.execute(f"{span} WHERE key = ?", [TRIAL_ID])
                rates.append(tokens / (query.fetchone()[0] / 1000))
            connection.close()
        print(f"workers={count}: {rates[-1]:,.0f} tokens a second", flush=True)
    print(f"ratio {rates[1] / rates[0]:.2f}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        {"overhead": overhead, "growth": growth, "workers": workers}[sys.argv[1]]()
