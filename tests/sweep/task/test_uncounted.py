"""What `FlopCounterMode` leaves out is said; recomputation of activations is counted."""

import pytest
import torch
from nets import MLP
from torch.utils.checkpoint import checkpoint

from flops_fit.errors import FlopsFitWarning
from flops_fit.sweep.task.model_cost import cost_of
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.task.uncounted import warn_of_uncounted


class Fourier(MLP):
    def forward(self, x):
        return super().forward(torch.fft.irfft(torch.fft.rfft(x), n=4))


class ComplexFourier(MLP):
    def forward(self, x):
        return super().forward(torch.fft.ifft(torch.fft.fft(x)).real)


class ComplexProduct(MLP):
    def forward(self, x):
        return super().forward((x.cfloat() @ torch.eye(4, dtype=torch.cfloat)).real)


class Checkpointed(MLP):
    def forward(self, x):
        return checkpoint(super().forward, x, use_reentrant=False)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Fourier, "Fourier transforms count as no FLOPs.*Pass flops="),
        (ComplexFourier, "Fourier transforms count as no FLOPs"),
        (ComplexProduct, "products of complex tensors count as if they were real"),
    ],
)
def test_operations_that_are_not_counted_are_named(model, message, classes, cross_entropy):
    task = Task(model, "width", {}, classes, cross_entropy)
    with pytest.warns(FlopsFitWarning, match=message):
        warn_of_uncounted(task, task.open(), 8)


def test_other_models_get_no_warning(classes, cross_entropy):
    task = Task(MLP, "width", {}, classes, cross_entropy)
    warn_of_uncounted(task, task.open(), 8)


def test_recomputed_activations_are_counted_again(classes, cross_entropy):
    plain = Task(MLP, "width", {}, classes, cross_entropy)
    again = Task(Checkpointed, "width", {}, classes, cross_entropy)
    counts = [cost_of(task, task.open(), 8).flops_per_token for task in (plain, again)]
    assert counts[1] > 1.05 * counts[0]
