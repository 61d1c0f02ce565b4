"""A stopped trial is taken up with the same bits, whatever tensors its model and optimiser hold."""

import pytest
import torch
from accelerate import Accelerator
from torch import nn
from trials import RECIPE, a_trial

from flops_fit import Recipe
from flops_fit.runtime.rng import rng_state
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.checkpoint import Keeper
from flops_fit.sweep.training.loop import TrainingLoop
from flops_fit.sweep.training.model_state import model_state, restore_model
from flops_fit.sweep.training.train import train


class Net(nn.Module):
    """A linear map whose inputs are shifted by what the tensors of a subclass hold."""

    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.add_tensors()

    def add_tensors(self):
        """Create them."""

    def shift(self, x):
        """Change them, and return what to add to the inputs."""
        raise NotImplementedError

    def forward(self, x):
        with torch.no_grad():
            shift = self.shift(x)
        return self.layer(x + shift)


class Expanded(Net):
    def add_tensors(self):
        self.register_buffer("mean", torch.zeros(1).expand(4))

    def shift(self, x):
        self.mean[:1] += 0.1 * x.mean()
        return self.mean


class Shared(Net):
    def add_tensors(self):
        self.register_buffer("one", torch.zeros(4))
        self.register_buffer("two", self.one)
        self.register_buffer("part", self.one[2:])

    def shift(self, x):
        self.one += 0.1 * x.mean(0)
        self.part *= 0.9
        return self.two


class Overlapping(Net):
    def add_tensors(self):
        self.register_buffer("windows", torch.zeros(5).as_strided((2, 4), (1, 1)), persistent=False)

    def shift(self, x):
        self.windows[0] += 0.1 * x.mean(0)
        return self.windows[1]


class Turned(Net):
    def add_tensors(self):
        self.register_buffer("table", torch.zeros(4, 2).T)

    def shift(self, x):
        self.table += 0.1 * x.mean(0)
        return self.table.sum(0)


class Late(Net):
    """Buffers that are None at first, one of them not persistent, and one registered late."""

    def add_tensors(self):
        self.register_buffer("mean", None)
        self.register_buffer("count", None, persistent=False)

    def shift(self, x):
        if self.mean is None:
            self.mean, self.count = torch.zeros(4), torch.zeros(())
            self.register_buffer("scale", torch.ones(4))
        self.count += 1
        self.scale *= 0.99
        self.mean += self.scale * x.mean(0) / self.count
        return self.mean


class Dropped(Net):
    def add_tensors(self):
        self.register_buffer("first", torch.full((4,), 0.5))
        self.register_buffer("second", torch.full((4,), 0.5), persistent=False)

    def shift(self, x):
        shift = 0 if self.first is None else self.first + self.second
        self.first = self.second = None
        return shift


class Growing(Net):
    def add_tensors(self):
        self.register_buffer("means", torch.zeros(0, 4))

    def shift(self, x):
        self.means = torch.cat([self.means, x.mean(0, keepdim=True)])
        return self.means.mean(0)


class Separated(Net):
    """Two buffers that share memory at first and no longer do so later."""

    def add_tensors(self):
        self.register_buffer("one", torch.zeros(4))
        self.register_buffer("two", self.one)

    def shift(self, x):
        self.two = self.two + 0.1 * x.mean(0)
        return self.two - self.one


class Joined(Net):
    """Two buffers that share memory only later."""

    def add_tensors(self):
        self.register_buffer("one", torch.zeros(4))
        self.register_buffer("two", torch.zeros(4), persistent=False)

    def shift(self, x):
        if self.two is not self.one:
            self.two = self.one
        self.one += 0.1 * x.mean(0)
        return self.two


class OddFormats(Net):
    def add_tensors(self):
        self.register_buffer("waves", torch.zeros(4, dtype=torch.complex128))
        self.register_buffer("turned", torch.zeros(4, dtype=torch.complex64).conj())
        self.register_buffer("short", torch.zeros(4, dtype=torch.bfloat16))
        self.register_buffer("eighth", torch.zeros(4, dtype=torch.float8_e4m3fn))
        self.register_buffer("seen", torch.zeros(4, dtype=torch.bool))
        self.register_buffer("steps", torch.tensor(0))
        self.register_buffer("empty", torch.zeros(0, 3))

    def shift(self, x):
        mean = x.mean(0)
        self.steps += 1
        self.waves += torch.complex(mean, mean.square()).to(torch.complex128) / self.steps
        self.turned = self.waves.to(torch.complex64).conj()
        self.short += mean.to(torch.bfloat16)
        self.eighth = (self.eighth.float() + mean).to(torch.float8_e4m3fn)
        self.seen |= mean > 0.5
        waves = self.waves.imag.float() + self.turned.imag
        return waves + self.short + self.eighth.float() + self.seen


class Sparse(Net):
    def add_tensors(self):
        self.register_buffer("coo", torch.eye(4).to_sparse())
        self.register_buffer("csr", torch.eye(4).to_sparse_csr())

    def shift(self, x):
        self.coo = (self.coo * 1.01).coalesce()
        self.csr = self.csr * 0.99
        return 0.1 * (x @ self.coo.to_dense() + x @ self.csr.to_dense())


class Tied(Net):
    def add_tensors(self):
        self.there, self.back = nn.Linear(4, 4, bias=False), nn.Linear(4, 4, bias=False)
        self.back.weight = self.there.weight
        self.register_buffer("view", self.there.weight.detach()[:, 0])

    def shift(self, x):
        return self.view

    def forward(self, x):
        return super().forward(self.back(torch.relu(self.there(x))))


class PartOfMuch(Net):
    def add_tensors(self):
        self.register_buffer("part", torch.zeros(100_000)[7:11])

    def shift(self, x):
        self.part += 0.1 * x.mean(0)
        return self.part


class PartsOfMuch(Net):
    def add_tensors(self):
        much = torch.zeros(100_003)[3:]
        self.register_buffer("part", much[70:80])
        self.register_buffer("inner", much[75:79])

    def shift(self, x):
        self.part += 0.1 * x.mean()
        return self.inner


class OwnState(Net):
    """A running value outside all tensors, in `get_extra_state`."""

    value = 0.0

    def get_extra_state(self):
        return {"value": self.value}

    def set_extra_state(self, state):
        self.value = state["value"]

    def shift(self, x):
        self.value += 0.1 * float(x.mean())
        return self.value


class Stopped(Exception):
    """The trial is stopped."""


def resumed_and_whole(model, classes, cross_entropy, folder, recipe=RECIPE):
    """The outcomes of a trial stopped after 7 of 20 steps, and of one never stopped."""
    task = Task(model, "width", {}, classes, cross_entropy)
    keeper = Keeper(folder / "kept", every_s=0.0)

    def stop(point):
        if point.num_tokens == 8 * 8:
            raise Stopped

    whole = train(task, task.open(), a_trial(), recipe, lambda point: None)
    with pytest.raises(Stopped):
        train(task, task.open(), a_trial(), recipe, stop, keeper)
    assert keeper.load()[0] == 7
    return train(task, task.open(), a_trial(), recipe, lambda point: None, keeper), whole


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.parametrize("model", Net.__subclasses__(), ids=lambda model: model.__name__)
def test_a_resumed_trial_ends_with_the_same_bits(model, classes, cross_entropy, tmp_path):
    again, whole = resumed_and_whole(model, classes, cross_entropy, tmp_path)
    assert (again.loss, again.train_loss) == (whole.loss, whole.train_loss)


class OddOptimizer(torch.optim.Optimizer):
    """Gradient descent with momentum whose state is of many forms."""

    def __init__(self, parameters, rate):
        super().__init__(parameters, {"lr": rate})
        self.common = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state |= {"count": 0, "kind": "odd", "nothing": None, "steps": self.common}
                    state["sums"] = [torch.zeros_like(p, dtype=torch.float64), [0.0, (1, 2)]]
                    state["signs"] = torch.zeros_like(p, dtype=torch.int8)
                state["count"] += 1
                state["steps"] += 1  # one tensor for all parameters
                state["sums"][0].mul_(0.9).add_(p.grad)
                state["sums"][1][0] += float(p.grad.double().sum())
                state["signs"] += p.grad.sign().to(torch.int8)
                odd = state["kind"] == "odd" and state["nothing"] is None
                scale = 0.01 * odd / (1 + state["count"] + 0.1 * state["steps"])
                p.add_((state["sums"][0] * scale).to(p.dtype), alpha=-10)
                p.add_(state["signs"] // 2, alpha=-1e-3)
                p.sub_(1e-3 * state["sums"][1][0])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_state_of_the_optimiser_keeps_its_forms(classes, cross_entropy, tmp_path, dtype):
    class Typed(nn.Linear):
        def __init__(self, width):
            super().__init__(4, 3, dtype=dtype)

        def forward(self, x):
            return super().forward(x.to(dtype)).float()

    recipe = Recipe(learning_rate=0.02, optimizer=OddOptimizer, pilot=False)
    again, whole = resumed_and_whole(Typed, classes, cross_entropy, tmp_path, recipe)
    assert (again.loss, again.train_loss) == (whole.loss, whole.train_loss)


def test_a_checkpoint_of_the_former_schema_is_taken_up(mlp, classes, cross_entropy, tmp_path):
    task = Task(mlp, "width", {}, classes, cross_entropy)
    accelerator = Accelerator()
    loops = [TrainingLoop(accelerator, task, task.open(), a_trial(), RECIPE) for _ in range(2)]
    loops[0].begin()
    state = loops[0]._state([rng_state()])
    loops[1]._restore(3, {**state, "model": loops[0].prepared.model.state_dict(), "buffers": {}})
    pairs = zip(loops[0].prepared.parameters, loops[1].prepared.parameters, strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)


def test_parameters_of_another_model_do_not_fit():
    state = model_state(nn.Linear(2, 3))
    for other in (nn.Linear(3, 2), nn.Linear(2, 3, dtype=torch.float64), nn.Bilinear(2, 2, 3)):
        with pytest.raises(ValueError, match="parameter"):
            restore_model(other, state, torch.device("cpu"))


class Placeholder(nn.Module):
    """A parameter that is expanded until it gets its real values (pytorch/pytorch#28318)."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3).expand(2, -1))


def test_an_expanded_parameter_takes_the_values_of_a_full_one():
    trained, new = Placeholder(), Placeholder()
    trained.weight.data = torch.randn(2, 3)
    parameter = new.weight
    restore_model(new, model_state(trained), torch.device("cpu"))
    assert new.weight is parameter
    assert torch.equal(new.weight, trained.weight)
