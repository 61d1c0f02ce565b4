"""Memory is returned between trials, and a process that has little of it trains all the same."""

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
        recipe=flops_fit.Recipe(batch_size=8, max_epochs=1e9, eval_examples=8), name="memory",
        tracking_uri=f"sqlite:///{store}/mlflow.db",
    )  # fmt: skip
    assert list(result.runs["state"]) == ["complete"] * 100
    settled = np.array(resident[10:])
    assert len(settled) >= 90
    assert settled.max() < 1.05 * settled[0]
