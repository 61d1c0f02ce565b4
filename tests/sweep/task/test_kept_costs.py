"""Costs of sizes, kept in a file: recalled if nothing has changed, counted if anything has."""

import json
from functools import partial
from unittest.mock import ANY

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from flops_fit.sweep.plan.planner import make_plan
from flops_fit.sweep.plan.request import PlanRequest
from flops_fit.sweep.task import kept_costs, model_cost
from flops_fit.sweep.task.kept_costs import KeptCosts
from flops_fit.sweep.task.model_cost import cost_of, params_of
from flops_fit.sweep.task.size_finder import SizeFinder
from flops_fit.sweep.task.task import Task
from flops_fit.sweep.training.recipe import Recipe

EXTRA, REPEATS = 0, 1  # of the model, where its source does not show them


class Net(nn.Module):
    def __init__(self, width, depth=1):
        super().__init__()
        inner = width + extra()
        layers = [nn.Linear(4, inner), *(nn.Linear(inner, inner) for _ in range(depth))]
        self.layers = nn.Sequential(*layers, nn.Linear(inner, 2))

    def forward(self, x):
        return self.layers(x)

    def num_params(self):
        return sum(p.numel() for p in self.parameters())


class Other(Net):
    def forward(self, x):
        return self.layers(self.layers[0](x)[:, :4])


def extra():
    return globals()["EXTRA"]


def data(width=4, count=400, kind=torch.float32):
    x = torch.randn(count, width, generator=torch.Generator().manual_seed(0))
    return TensorDataset(x.to(kind), (x[:, 0] > 0).long())


@pytest.fixture
def count(tmp_path, monkeypatch):
    """Costs of some sizes, by a finder that keeps them, and how often FLOPs were counted."""
    counted = []
    counting = model_cost._count

    def noted(*args):
        counted.append(1)
        return counting(*args)

    monkeypatch.setattr(model_cost, "_count", noted)

    def cost(model=Net, sizes=(8, 16, 32), loss=nn.functional.cross_entropy, **kwargs):
        counted.clear()
        task = Task(model, "width", kwargs, dataset=data(), loss_fn=loss)
        source = task.open()
        finder = SizeFinder(partial(params_of, task), partial(cost_of, task, source), sizes)
        kept = KeptCosts.of(tmp_path / "costs", task, source)
        kept.recall(finder)
        costs = {size: finder.cost(size) for size in sizes}
        kept.keep(finder)
        return costs, len(counted), kept.path

    return cost


@pytest.mark.parametrize("sizes", [(8, 16, 32), None])
def test_a_plan_that_was_made_before_counts_one_size_and_is_the_same(tmp_path, monkeypatch, sizes):
    task = Task(Net, "width", dataset=data(), loss_fn=nn.functional.cross_entropy)
    recipe = Recipe(batch_size=8, max_epochs=1e9, pilot=False)
    request = PlanRequest([1e7], sizes, recipe)
    first = make_plan(task, request, folder=tmp_path)
    first.keep_costs()
    counted, counting = [], model_cost._count
    monkeypatch.setattr(model_cost, "_count", lambda *args: (counted.append(1), counting(*args))[1])
    again = make_plan(task, request, folder=tmp_path)
    assert again.plan.trials == first.plan.trials
    assert again.plan.setting == first.plan.setting
    assert again.plan.skipped == first.plan.skipped
    assert again.finder.costs == first.finder.costs
    assert len(counted) == 1  # the smallest, to see whether FLOPs are still the same


def test_only_what_is_new_is_counted_and_kept(count):
    first, counted, _ = count()
    assert counted == 3
    more, counted, _ = count(sizes=(8, 16, 32, 64))
    assert counted == 1 + 1  # the smallest again, and the new one
    assert count(sizes=(16, 64)) == ({16: more[16], 64: more[64]}, 1, ANY)
    assert count()[:2] == (first, 1)


def l1(outputs, targets):
    return (outputs[:, 0] - targets).abs().mean()


@pytest.mark.parametrize(
    "other",
    [{"model": Other}, {"depth": 2}, {"loss": l1}],
    ids=["source", "arguments", "loss"],
)
def test_another_model_or_loss_is_counted(count, other):
    count()
    assert count(**other)[1] == 3


def of_any_number(width):
    return Net(int(width))


def test_sizes_of_another_type_are_other_sizes(count):
    count(of_any_number)
    costs, counted, _ = count(of_any_number, (8.0, 16.0, 32.0))
    assert counted == 3
    assert [repr(cost.size) for cost in costs.values()] == ["8.0", "16.0", "32.0"]


def test_a_model_that_differs_where_its_source_does_not_show_it_is_counted(count, monkeypatch):
    count()
    monkeypatch.setitem(globals(), "EXTRA", 1)
    assert count()[1] == 3


class Repeated(Net):
    """Runs its layers as often as a setting says that no source shows."""

    def forward(self, x):
        for _ in range(globals()["REPEATS"]):
            y = self.layers(x)
        return y


def test_a_model_of_the_same_parameters_that_does_more_is_counted(count, monkeypatch):
    costs, _, _ = count(Repeated)
    monkeypatch.setitem(globals(), "REPEATS", 8)
    again, counted, _ = count(Repeated)
    assert counted == 1 + 3
    assert [again[size].num_params for size in again] == [costs[s].num_params for s in costs]
    assert all(again[s].flops_per_token > 3 * costs[s].flops_per_token for s in costs)


def test_another_version_of_a_package_counts(count, monkeypatch):
    count()
    monkeypatch.setattr(kept_costs, "_packages", lambda model: {"torch": "0"})
    assert count()[1] == 3


def _changed(path):
    stored = json.loads(path.read_text())
    stored["costs"][0][2] *= 2
    path.write_text(json.dumps(stored))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_text("{"),
        lambda path: path.write_text("[]"),
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: path.unlink(),
        _changed,
    ],
    ids=["half", "a list", "bytes", "gone", "a number changed"],
)
def test_a_damaged_file_is_left_alone(count, damage):
    first, _, path = count()
    damage(path)
    assert count() == (first, 3, path)


def test_a_file_under_the_name_of_another_is_left_alone(count):
    text = count()[2].read_text()
    count(depth=2)[2].write_text(text)
    assert count(depth=2)[1] == 3


def test_a_folder_that_cannot_be_written_stops_nothing(count, tmp_path):
    (tmp_path / "costs").write_text("a file in its place")
    assert count()[1] == 3
    assert count()[1] == 3


@pytest.mark.parametrize("flops", ["6ND", lambda model: 1e3])
def test_what_is_not_counted_is_not_kept(tmp_path, flops):
    task = Task(Net, "width", dataset=data(), loss_fn=nn.functional.cross_entropy)
    recipe = Recipe(batch_size=8, max_epochs=1e9, pilot=False)
    make_plan(task, PlanRequest([1e7], (8, 16, 32), recipe, flops), folder=tmp_path).keep_costs()
    assert list(tmp_path.iterdir()) == []
