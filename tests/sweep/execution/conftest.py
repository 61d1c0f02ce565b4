"""A sweep of eight planned trials, on an empty store or on one where all have finished."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sweeps import Planted, SmallSweep

from flops_fit.sweep.execution import worker


@pytest.fixture(scope="package", autouse=True)
def frozen_imports() -> Iterator[None]:
    """Freeze imported libraries once; else each worker would first collect garbage among them."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Planted:
    """The trainer of every worker in this process: a planted law."""
    trainer = Planted()
    monkeypatch.setattr(worker, "train", trainer)
    return trainer


@pytest.fixture
def small(store: Path) -> SmallSweep:
    """The small sweep on an empty store; nothing has been trained."""
    return SmallSweep(store)


@pytest.fixture(scope="session")
def finished_store(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store where the planted trainer has run the small sweep to its end."""
    folder = Path(shutil.copytree(empty_store, tmp_path_factory.mktemp("finished") / "store"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker, "train", Planted())
        SmallSweep(folder).run()
    return folder


@pytest.fixture
def finished(finished_store: Path, tmp_path: Path) -> SmallSweep:
    """The small sweep on a copy of that store."""
    return SmallSweep(Path(shutil.copytree(finished_store, tmp_path / "finished")))


@pytest.fixture
def train_with(monkeypatch: pytest.MonkeyPatch, planted: Planted) -> Callable[..., None]:
    """A function that makes workers call `before(trial, keeper)` ahead of the planted trainer."""

    def install(before: Callable[..., None]) -> None:
        def train(task, source, trial, recipe, report, keeper=None, stop=None):
            before(trial, keeper)
            return planted(task, source, trial, recipe, report, keeper, stop)

        monkeypatch.setattr(worker, "train", train)

    return install
