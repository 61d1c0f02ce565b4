"""Stores whose schema was made once: making MLflow's takes seconds."""

import shutil
from pathlib import Path

import pytest

from flops_fit import tracking
from flops_fit.sweep.study import open_study


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the empty databases of MLflow and Optuna."""
    folder = tmp_path_factory.mktemp("store")
    uri = f"sqlite:///{folder}/mlflow.db"
    with tracking._exclusive(uri):
        tracking._client(uri).search_experiments()
    open_study("schema only", f"sqlite:///{folder}/optuna.db")
    return folder


@pytest.fixture
def store(empty_store: Path, tmp_path: Path) -> Path:
    """A folder of this test's own with empty databases."""
    return Path(shutil.copytree(empty_store, tmp_path / "store"))
