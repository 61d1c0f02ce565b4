import re

import pytest
import torch
import torch.nn.functional as F
from nets import MLP
from torch.utils.data import TensorDataset

from flops_fit import FlopsFitWarning, Recipe
from flops_fit.sweep.data.loading import open_source
from flops_fit.sweep.plan.dry_run import check_batches, step_faults
from flops_fit.sweep.task.task import Task


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda out, y: 1.0, "expected a scalar tensor, got float"),
        (
            lambda out, y: F.cross_entropy(out, y, reduction="none"),
            r"got shape \(2,\); return the mean",
        ),
        (lambda out, y: F.cross_entropy(out, y)[None], r"expected a scalar, got shape \(1,\)"),
        (lambda out, y: F.cross_entropy(out, y).detach(), "carries no gradient"),
        (lambda out, y: F.cross_entropy(out, y) / 0, "at size 4 is inf; expected a fin"),
        (lambda out, y: F.cross_entropy(out, y) * torch.nan, "at size 4 is nan; expected a fin"),
        (lambda out, y: out.sum() ** 2 * 0, "at size 4 is 0.0; expected a finite number that is n"),
        (
            lambda out, y: F.cross_entropy(out, y, reduction="sum"),
            "twice the examples give twice the loss; return the mean",
        ),
    ],
)
def test_faults_of_the_loss(mlp, classes, loss, message):
    (problem,) = check_batches(Task(mlp, "width", {}, classes, loss), open_source(classes), 4)
    assert re.search(f"^loss_fn: .*{message}", problem)


@pytest.mark.parametrize(
    ("metrics", "message"),
    [
        ({"bad": lambda out, y: out.argmax(1) == y}, "metrics: 'bad' raised ValueError: "),
        ({"bad": lambda out: 1.0}, "metrics: 'bad' raised TypeError: "),
    ],
)
def test_metrics_that_make_no_number_are_named(mlp, classes, metrics, message):
    metrics = {"good": lambda out, y: out.mean(), **metrics}
    task = Task(mlp, "width", {}, classes, F.cross_entropy, metrics=metrics)
    (problem,) = check_batches(task, task.open(), 4)
    assert problem.startswith(message)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.full((20,), 7), "eval_dataset: one batch raised IndexError: Target 7 is out of b"),
        (torch.full((20, 3), torch.nan), "eval_dataset: the loss of one batch is nan"),
    ],
)
def test_held_out_data_that_the_loss_cannot_take_are_reported_first(mlp, classes, targets, message):
    task = Task(
        mlp, "width", {}, classes, F.cross_entropy, TensorDataset(torch.zeros(20, 4), targets)
    )
    (problem,) = check_batches(task, task.open(), 4)
    assert problem.startswith(message)


class Extra(MLP):
    """Keeps an object in its state."""

    def get_extra_state(self):
        return {"seen": object()}

    def set_extra_state(self, state):
        pass


class Packed(MLP):
    def __init__(self, width):
        super().__init__(width)
        self.register_buffer("table", torch.eye(2).to_mkldnn())


class Noting(torch.optim.SGD):
    def step(self, closure=None):
        super().step(closure)
        for p in self.param_groups[0]["params"]:
            self.state[p]["seen"] = {1, 2}


@pytest.mark.parametrize(
    ("model", "optimizer", "what"),
    [
        (Extra, "adamw", "a object cannot be saved"),
        (Packed, "adamw", "layout torch._mkldnn"),
        (MLP, Noting, "a set cannot be saved"),
    ],
)
def test_what_cannot_be_saved_is_said_before_the_training(classes, model, optimizer, what):
    task = Task(model, "width", {}, classes, F.cross_entropy)
    recipe = Recipe(learning_rate=0.01, optimizer=optimizer, pilot=False)
    with pytest.warns(FlopsFitWarning, match=f"one that is stopped starts over: .*{what}"):
        assert not step_faults(task, task.open(), recipe, 4)


def test_parameters_that_share_their_elements_are_refused(mlp, classes, cross_entropy):
    """As in lucidrains/titans-pytorch issue 64: a parameter made of an expanded tensor."""

    def expanded(width):
        model = mlp(width)
        model.heads = torch.nn.Parameter(torch.randn(1).expand(3))
        return model

    task = Task(expanded, "width", {}, classes, cross_entropy)
    (fault,) = step_faults(task, task.open(), Recipe(pilot=False), 4)
    assert "model_cls: elements of heads share a single memory location" in fault


def test_a_mean_with_its_count_is_no_sum(mlp, classes):
    def mean_and_count(out, y):
        return F.cross_entropy(out, y), y.numel()

    (problem,) = check_batches(
        Task(mlp, "width", {}, classes, mean_and_count), open_source(classes), 4
    )
    assert problem.endswith("return (sum, count), not (mean, count)")
