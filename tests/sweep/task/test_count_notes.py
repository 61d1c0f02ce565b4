"""What is counted of FFTs and of activation checkpointing is said."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from nets import MLP
from torch.utils.checkpoint import checkpoint
from torch.utils.data import TensorDataset

from flops_fit import FlopsFitWarning, Recipe, plan_sweep
from flops_fit.sweep.task.model_cost import cost_of
from flops_fit.sweep.task.task import Task

X = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
PAIRS = TensorDataset(X, torch.arange(400) % 3)


class RealFft(MLP):
    def forward(self, x):
        return super().forward(torch.fft.irfft(torch.fft.rfft(self.up(x))) @ self.up.weight)


class ComplexFft(MLP):
    def forward(self, x):
        return super().forward(torch.fft.fft2(self.up(x)[:, None]).real[:, 0] @ self.up.weight)


class Spectrogram(MLP):
    def forward(self, x):
        window = torch.ones(4, device=x.device)
        spectrum = torch.stft(x.repeat(1, 4), 4, window=window, return_complex=True)
        return super().forward(x + spectrum.abs().mean((1, 2))[:, None])


class Checkpointed(MLP):
    reentrant = True

    def forward(self, x):
        hidden = checkpoint(self.up, x.requires_grad_(), use_reentrant=self.reentrant)
        return self.down(torch.relu(hidden))


class NotReentrant(Checkpointed):
    reentrant = False

    def middle(self, x):
        return torch.relu(self.up(x)).square()

    def forward(self, x):
        return self.down(checkpoint(self.middle, x, use_reentrant=False))


def notes_of(model, **options):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan_sweep(
            model, "width", {}, PAIRS, F.cross_entropy, [3e5], sizes=[4, 6, 8, 10],
            recipe=Recipe(learning_rate=0.01, max_epochs=1e9, batch_size=8), **options,
        )  # fmt: skip
    ours = [w for w in caught if issubclass(w.category, FlopsFitWarning)]
    return [str(w.message) for w in ours if str(w.message).startswith("FLOPs: ")]


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (RealFft, "_fft_c2c, _fft_c2r, _fft_r2c"),
        (ComplexFft, "_fft_c2c"),
        (Spectrogram, "_fft_r2c"),
    ],
)
def test_ffts_are_named_once_as_not_counted(model, names):
    (note,) = notes_of(model)
    assert f"({names}) are not counted in C" in note


@pytest.mark.parametrize("model", [Checkpointed, NotReentrant])
def test_recomputation_is_said_to_be_counted(model):
    (note,) = notes_of(model)
    assert "with activation checkpointing, what the backward pass computes again is counted" in note
    task = Task(model, "width", {}, PAIRS, F.cross_entropy)
    plain = Task(MLP, "width", {}, PAIRS, F.cross_entropy)
    counts = [cost_of(each, each.open(), 8).flops_per_token for each in (task, plain)]
    assert counts[0] >= counts[1] + 2 * 4 * 8  # the product of the recomputed layer


@pytest.mark.parametrize(
    "options", [{}, {"flops": "6ND"}, {"flops": lambda model: 10 * model.num_params()}]
)
def test_nothing_is_said_where_nothing_is_left_out(options):
    assert not notes_of(MLP, **options)
    if options:
        assert not notes_of(RealFft, **options)


def test_products_of_complex_tensors_are_said_to_count_as_real():
    class ComplexProduct(MLP):
        def forward(self, x):
            return super().forward((x.cfloat() @ torch.eye(4, dtype=torch.cfloat)).real)

    (note,) = notes_of(ComplexProduct)
    assert "products of complex tensors are counted in C as if they were real" in note
