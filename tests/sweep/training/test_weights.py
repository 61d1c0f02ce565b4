"""Odd buffers and weights come back from a checkpoint with the same bits."""

import pytest
import torch
from torch import nn
from trials import RECIPE, a_trial

from flops_fit.errors import FlopsFitWarning
from flops_fit.sweep.plan.dry_run import step_faults
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.checkpoint import Keeper
from flops_fit.sweep.training.train import train
from flops_fit.sweep.training.weights import non_persistent_buffers, restore_weights


class Base(nn.Module):
    """A linear layer with a buffer; `step` changes the buffer."""

    def __init__(self, width=8):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.make()

    def forward(self, x):
        self.step(x.detach().mean())
        return self.layer(x) + self.read()


class Expanded(Base):
    def make(self):
        self.register_buffer("b", torch.zeros(1).expand(3))

    def step(self, m):
        self.b[:1].add_(m)

    def read(self):
        return self.b


class ExpandedUnsaved(Expanded):
    def make(self):
        self.register_buffer("b", torch.zeros(1).expand(3), persistent=False)


class Overlapping(Base):
    def make(self):
        self.register_buffer("b", torch.zeros(4).unfold(0, 3, 1))

    def step(self, m):
        self.b[0].add_(m)

    def read(self):
        return self.b[1]


class Shared(Base):
    def make(self):
        self.register_buffer("b", torch.zeros(3))
        self.register_buffer("c", self.b)
        self.register_buffer("d", self.b[1:])

    def step(self, m):
        self.b.add_(m)

    def read(self):
        return self.b + self.c + self.d.sum()


class Turned(Base):
    def make(self):
        self.register_buffer("b", torch.zeros(2, 3).T)

    def step(self, m):
        self.b.add_(m)

    def read(self):
        return self.b[:, 0]


class Lazy(Base):
    def make(self):
        self.register_buffer("b", None)

    def step(self, m):
        if self.b is None:
            self.register_buffer("b", torch.zeros(3))
        self.b.add_(m)

    def read(self):
        return self.b


class LazyUnsaved(Base):
    def make(self):
        pass

    def step(self, m):
        if not hasattr(self, "b"):
            self.register_buffer("b", torch.zeros(3), persistent=False)
        self.b.add_(m)

    def read(self):
        return self.b


class Growing(Base):
    def make(self):
        self.register_buffer("b", torch.zeros(1))

    def step(self, m):
        self.b = torch.cat([self.b, m[None]])

    def read(self):
        return self.b.mean()


class Tied(Base):
    def make(self):
        self.other = nn.Linear(4, 3)
        self.other.weight = self.layer.weight

    def step(self, m):
        pass

    def read(self):
        return self.other.weight.sum()


class Typed(Base):
    """Buffers of many types, none with a dimension in two cases."""

    def make(self):
        self.register_buffer("z", torch.zeros(3, dtype=torch.complex64))
        self.register_buffer("zz", torch.tensor(0j, dtype=torch.complex128))
        self.register_buffer("h", torch.zeros(3, dtype=torch.bfloat16))
        self.register_buffer("e", torch.zeros(3).to(torch.float8_e4m3fn))
        self.register_buffer("flag", torch.tensor(False))
        self.register_buffer("n", torch.tensor(0))

    def step(self, m):
        self.z += m * (1 + 2j)
        self.zz += m * 1j
        self.h += m
        self.e = (self.e.float() + m).to(self.e.dtype)
        self.flag ^= True
        self.n += 1

    def read(self):
        values = self.z.real + self.zz.imag.float() + self.h.float() + self.e.float()
        return values + self.flag + 0.01 * self.n


KINDS = [
    Expanded, ExpandedUnsaved, Overlapping, Shared, Turned, Lazy, LazyUnsaved, Growing, Tied, Typed,
]  # fmt: skip


class Stopped(Exception):
    pass


def stop(point):
    if point.num_tokens == 40:
        raise Stopped


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_trial_ends_with_the_same_bits(kind, classes, cross_entropy, tmp_path):
    task = Task(kind, "width", {}, classes, cross_entropy)
    whole = train(task, task.open(), a_trial(8), RECIPE, lambda point: None)
    keeper = Keeper(tmp_path / "kept", every_s=0.0)
    with pytest.raises(Stopped):
        train(task, task.open(), a_trial(8), RECIPE, stop, keeper)
    assert keeper.load() is not None
    again = train(task, task.open(), a_trial(8), RECIPE, lambda point: None, keeper)
    assert (again.loss, again.train_loss) == (whole.loss, whole.train_loss)


def test_tensors_without_content_come_back_so(tmp_path):
    def build():
        model = Tied()
        model.register_buffer("left", torch.zeros(2, device="meta"))
        return model

    keeper, model = Keeper(tmp_path / "kept", every_s=0.0), build()
    assert keeper.save(1, {"model": model.state_dict(), "buffers": non_persistent_buffers(model)})
    _, state = keeper.load()
    fresh = build()
    restore_weights(fresh, state["model"], state["buffers"])
    assert fresh.left.is_meta
    assert torch.equal(fresh.layer.weight, model.layer.weight)


def test_a_state_of_another_model_is_refused():
    with pytest.raises(RuntimeError, match="missing"):
        restore_weights(Tied(), {}, {})
    with pytest.raises(RuntimeError, match="size mismatch"):
        restore_weights(Tied(), {**Tied().state_dict(), "layer.bias": torch.zeros(7)}, {})


def test_what_no_checkpoint_holds_is_said_before_training(classes, cross_entropy):
    class Sparse(Tied):
        def make(self):
            super().make()
            self.register_buffer("graph", torch.eye(3).to_sparse())

    task = Task(Sparse, "width", {}, classes, cross_entropy)
    with pytest.warns(FlopsFitWarning, match=r"no checkpoint .*sparse.*stopped will start over"):
        assert step_faults(task, task.open(), RECIPE, 8) == []


def test_parameters_that_share_their_elements_are_refused_before_training(classes, cross_entropy):
    """lucidrains/titans-pytorch issue 64: a parameter made of an expanded tensor."""

    class Heads(Tied):
        def make(self):
            super().make()
            self.heads = nn.Parameter(torch.randn(1).expand(3))

        def read(self):
            return self.heads

    task = Task(Heads, "width", {}, classes, cross_entropy)
    (fault,) = step_faults(task, task.open(), RECIPE, 8)
    assert "single memory location" in fault
