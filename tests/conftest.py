"""Tiny models and data that many tests share, and stores whose schema was made once."""

from __future__ import annotations

import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from nets import MLP
from planned import BUDGETS, UNLIMITED
from processes import Process, ended_processes
from sqlalchemy import Engine, event
from torch import nn
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from flops_fit import plan_sweep
from flops_fit.store.client import client_of, exclusive
from flops_fit.sweep.execution.trial_queue import open_study


class ConvNet(nn.Module):
    """Pixels to classes, with batch normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.head = nn.Linear(channels, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.norm(self.conv(x))).mean((2, 3)))

    def num_params(self) -> int:
        return sum(p.numel() for p in self.parameters())


class Numbered(Dataset):
    """Examples that carry their own index as input, and note who was asked for."""

    def __init__(self, count: int) -> None:
        self.count, self.asked = count, []

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        self.asked.append(index)
        return torch.full((4,), float(index)), index % 3


class Stream(IterableDataset):
    """The same as a stream; shared out among workers as PyTorch's documentation advises."""

    def __init__(self, count: int, shared_out: bool = True) -> None:
        self.count, self.shared_out = count, shared_out

    def __iter__(self):
        info = torch.utils.data.get_worker_info() if self.shared_out else None
        start, step = (info.id, info.num_workers) if info else (0, 1)
        for index in range(start, self.count, step):
            yield torch.full((4,), float(index)), index % 3


@event.listens_for(Engine, "connect")
def _without_syncing(connection: object, record: object) -> None:
    """Let SQLite leave its files to the system: tests kill processes, but cut no power."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")


# Folders and files of tests that run sweeps and look at no report.
UNDRAWN = {"sweep", "examples", "chaos", "integration", "cli"}
UNDRAWN |= {"test_readme.py", "test_stored.py", "test_prepare.py", "test_warn.py"}

torch.set_num_threads(1)  # several test processes share the cores
signal.signal(signal.SIGINT, signal.default_int_handler)  # may come ignored


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests in the folders `integration` and `chaos` run by `make test-integration` only."""
    for item in items:
        if {"integration", "chaos"} & set(item.path.parts):
            item.add_marker(pytest.mark.integration)


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """A function that starts a process; whatever happens, it is ended with the test."""
    with ended_processes() as start:
        yield start


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The report takes seconds of every sweep; test_analysis and tests/report cover it."""
    if UNDRAWN & set(request.node.path.parts):
        monkeypatch.setattr("flops_fit.analysis._write_report", lambda result, folder: None)


@pytest.fixture
def mlp() -> type[nn.Module]:
    return MLP


@pytest.fixture
def conv_net() -> type[nn.Module]:
    return ConvNet


@pytest.fixture
def numbered() -> type[Dataset]:
    return Numbered


@pytest.fixture
def stream() -> type[IterableDataset]:
    return Stream


@pytest.fixture
def cross_entropy():
    return F.cross_entropy


@pytest.fixture
def classes() -> TensorDataset:
    """2,000 points in three classes that a small MLP tells apart."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 4, generator=generator)
    return TensorDataset(x, (x[:, :2].sum(1) > 0).long() + (x[:, 2:].sum(1) > 0).long())


@pytest.fixture
def planned(mlp, classes, cross_entropy):
    """A function that plans for the small perceptron; keywords change what it is given."""

    def plan(**changes):
        arguments = {
            "model_cls": mlp,
            "model_size_param": "width",
            "dataset": classes,
            "loss_fn": cross_entropy,
            "compute_budgets": BUDGETS,
            "recipe": UNLIMITED,
        }
        return plan_sweep(**{**arguments, **changes})

    return plan


@pytest.fixture
def images() -> TensorDataset:
    """Pixels and class targets."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, 8, 8, generator=generator)
    return TensorDataset(x, torch.arange(64) % 10)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the empty databases of MLflow and Optuna."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    with exclusive(uri):
        client_of(uri).search_experiments()
    open_study("schema only", f"sqlite:///{folder}/optuna.db")
    return folder


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> Path:
    """A folder of this test's own with empty databases."""
    return Path(shutil.copytree(empty_store, tmp_path / "store"))
