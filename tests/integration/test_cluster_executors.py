"""A sweep through the executors of clusters, each started for real on this machine."""

import contextlib
import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

import flops_fit

pytestmark = pytest.mark.slow


def make_net() -> type[nn.Module]:
    """A class that only travels by value, as one of a notebook does."""

    class Net(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.layers = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))

        def forward(self, x):
            return self.layers(x)

        def num_params(self):
            return sum(p.numel() for p in self.parameters())

    return Net


@contextlib.contextmanager
def dask_executor(folder):
    distributed = pytest.importorskip("distributed")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, local_directory=folder
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client.get_executor()


@contextlib.contextmanager
def slurm_executor(folder):
    submitit = pytest.importorskip("submitit")
    executor = submitit.AutoExecutor(folder=folder / "jobs", cluster="local")
    executor.update_parameters(timeout_min=5)
    yield executor


@contextlib.contextmanager
def ray_executor(folder):
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, include_dashboard=False, logging_level="ERROR", log_to_driver=False)
    try:
        yield Remote(ray)
    finally:
        ray.shutdown()


class Remote:
    """The README's adapter: Ray's calls as an executor's."""

    def __init__(self, ray):
        self.ray = ray

    def submit(self, function, *arguments):
        return self.ray.remote(function).remote(*arguments).future()


EXECUTORS = {"dask": dask_executor, "slurm": slurm_executor, "ray": ray_executor}


@pytest.mark.parametrize("name", EXECUTORS)
@pytest.mark.filterwarnings("default")
def test_two_workers_of_an_executor_finish_a_sweep(name, store, caplog):
    caplog.set_level(logging.INFO, "flops_fit")
    x = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
    with EXECUTORS[name](store) as executor:
        result = flops_fit.find_optimal(
            make_net(), "width", dataset=TensorDataset(x, (x[:, 0] > 0).long()),
            loss_fn=F.cross_entropy, compute_budgets=[1e5, 2e5, 4e5], sizes=[2, 4, 8, 16],
            recipe=flops_fit.Recipe(batch_size=8, max_epochs=1e9, pilot=False), name="cluster",
            tracking_uri=f"sqlite:///{store}/mlflow.db", executor=executor, workers=2,
        )  # fmt: skip
    assert list(result.runs["state"]) == ["complete"] * 12
    assert np.isfinite(result.runs["loss"]).all()
    assert caplog.text.count(": complete, loss ") == 12
