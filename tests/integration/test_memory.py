"""Memory is returned between trials, and a process that has little of it trains all the same."""

import subprocess
import sys

import numpy as np
import psutil
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset

import flops_fit


@pytest.mark.slow
def test_a_hundred_trials_in_one_process_leave_resident_memory_flat(store):
    """Each model, its gradients and its moments take 2 MB, and only the collector frees them."""
    resident = []

    def build(width: int) -> nn.Module:
        model = nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 2))
        model.num_params = lambda: sum(p.numel() for p in model.parameters())
        if not model[0].weight.is_meta:
            resident.append(psutil.Process().memory_info().rss)
        return model

    x = torch.randn(400, 64, generator=torch.Generator().manual_seed(0))
    result = flops_fit.find_optimal(
        build, "width", dataset=TensorDataset(x, (x[:, 0] > 0).long()), loss_fn=F.cross_entropy,
        compute_budgets=np.geomspace(8e7, 1.6e8, 10), sizes=list(range(1900, 2100, 20)),
        recipe=flops_fit.Recipe(batch_size=8, max_epochs=1e9, eval_examples=8, pilot=False),
        name="memory",
        tracking_uri=f"sqlite:///{store}/mlflow.db",
    )  # fmt: skip
    assert list(result.runs["state"]) == ["complete"] * 100
    settled = np.array(resident[10:])
    assert len(settled) >= 90
    assert settled.max() < 1.05 * settled[0]


LIMITED = """
import io, logging, re, resource
import psutil, torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import TensorDataset
from flops_fit.records import Trial
from flops_fit.sweep.training.recipe import Recipe
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.train import train

def build(width):
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 3))

def losses(width, accumulate=1):
    trial = Trial("ab", 1e6, width, 0, 1, 64, 1e6, 1, 64, 1e-4, 0)
    recipe = Recipe(accumulate=accumulate, eval_examples=8, log_points=1, pilot=False)
    curve = []
    outcome = train(task, source, trial, recipe, lambda point: curve.append(point.train_loss))
    return " ".join(value.hex() for value in [*curve, outcome.loss])

torch.set_num_threads(1)
said = io.StringIO()
logging.basicConfig(stream=said, format="%(message)s")
generator = torch.Generator().manual_seed(0)
data = TensorDataset(torch.randn(400, 4, generator=generator), torch.arange(400) % 3)
task = Task(build, "width", {}, data, F.cross_entropy)
source = task.open()
losses(8)
limit = psutil.Process().memory_info().vms + 110 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
print(losses(200_000))
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
halved = re.findall(r"step 0 .* now processed (\\d+) at a time", said.getvalue())
print(losses(200_000))
print(losses(200_000, accumulate=64 // int(halved[-1])))
print(*halved)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS binds on Linux only")
def test_under_a_limit_on_memory_parts_shrink_and_the_losses_stay():
    """A whole batch takes 150 to 200 MB at its height; 110 are left it."""
    ran = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    *found, halved = ran.stdout.splitlines()
    tight, free, cut = ([float.fromhex(value) for value in line.split()] for line in found)
    assert halved.startswith("32")
    assert tight == pytest.approx(free, rel=1e-5)
    assert tight == cut  # in as many parts from the start: the same bits
