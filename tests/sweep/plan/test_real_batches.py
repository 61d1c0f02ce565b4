"""Errors that two examples do not show are found before the training, in the user's words."""

import re

import pytest
import torch
import torch.nn.functional as F
from nets import MLP
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from flops_fit import Recipe, plan_sweep
from flops_fit.errors import ArgumentError

X = torch.randn(400, 4, generator=torch.Generator().manual_seed(0))
Y = torch.arange(400) % 3
PAIRS = TensorDataset(X, Y)


class Rows(Dataset):
    def __init__(self, row):
        self.row = row

    def __len__(self):
        return 400

    def __getitem__(self, index):
        return self.row(index)


class Normed(MLP):
    def __init__(self, width):
        super().__init__(width)
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x):
        return self.down(self.norm(self.up(x)))


class Squeezed(MLP):
    def forward(self, x):
        return super().forward(x).squeeze().log_softmax(1)


class Named(MLP):
    def forward(self, x, mask=None):
        return super().forward(x)


class Output(dict):
    """As models of other libraries return it."""


def faults(model=MLP, data=PAIRS, loss=F.cross_entropy, **options):
    recipe = Recipe(learning_rate=0.01, max_epochs=1e9, **options.pop("recipe", {}), pilot=False)
    with pytest.raises(ArgumentError) as caught:
        plan_sweep(model, "width", {}, data, loss, [3e5], sizes=[3, 4, 5], recipe=recipe, **options)
    return caught.value.problems


@pytest.mark.parametrize(
    ("recipe", "what"),
    [
        ({"batch_size": 1}, r"of 1 example \(of 1 a step\)"),
        ({"batch_size": 5, "accumulate": 3}, r"of 1 example \(of 5 a step\)"),
        ({"batch_tokens": 1}, r"of 1 example \(of 1 a step\)"),
    ],
)
def test_batch_normalisation_of_single_examples(recipe, what):
    (problem,) = faults(Normed, recipe=recipe)
    assert re.match(f"recipe: a training batch {what}", problem)
    assert "batch normalisation cannot be trained on one example" in problem


def test_batch_normalisation_of_two_is_planned_with():
    recipe = Recipe(learning_rate=0.01, max_epochs=1e9, batch_size=2)
    plan_sweep(
        Normed, "width", {}, PAIRS, F.cross_entropy, [3e5], sizes=[3, 4, 5, 6], recipe=recipe
    )


def test_a_last_held_out_batch_of_one():
    (problem,) = faults(Squeezed, loss=F.nll_loss, recipe={"batch_size": 19})
    assert problem.startswith("eval_dataset: the last held-out batch, of 1 example, raised")


def test_a_batch_size_that_the_model_is_not_made_for():
    class Fixed(MLP):
        def forward(self, x):
            return super().forward(x.view(2, 4) if len(x) == 8 else x)

    (problem,) = faults(Fixed, recipe={"batch_size": 8})
    assert problem.startswith("recipe: a training batch of 8 examples")


def one_changed(tensor, index, value):
    changed = tensor.clone()
    changed[index] = value
    return changed


@pytest.mark.parametrize(
    ("data", "where", "what"),
    [
        (TensorDataset(X, one_changed(Y, 200, 17)), "200", "Target 17.*from 0 to 17"),
        (TensorDataset(X, one_changed(Y, 8, -1)), "8", "Target -1.*from -1 to 2"),
        (TensorDataset(one_changed(X, 11, torch.nan), Y), "11", "a loss of nan"),
        (Rows(lambda i: (X[i], 3 if i >= 200 else int(Y[i]))), "200", "Target 3 is out of bounds"),
    ],
)
def test_values_out_of_range_anywhere_in_the_data(data, where, what):
    problem = faults(data=data, recipe={"batch_size": 8})[0]
    assert re.match(r"dataset: the examples with the lowest and highest values", problem)
    assert re.search(what, problem)
    if isinstance(data, TensorDataset):
        assert re.search(rf"\(indices .*\b{where}\b.*\)", problem)


@pytest.mark.filterwarnings("ignore:dataset: ")
def test_labels_that_do_not_count_are_no_fault():
    labels = one_changed(Y, slice(1, 400, 4), -100)
    recipe = Recipe(learning_rate=0.01, max_epochs=1e9, batch_size=8)
    data = TensorDataset(X, labels)
    plan_sweep(MLP, "width", {}, data, F.cross_entropy, [3e5], sizes=[3, 4, 5, 6], recipe=recipe)


def test_rows_of_other_lengths_far_from_the_first():
    data = Rows(lambda i: (X[i] if i < 350 else X[i][:3], 0))
    assert "differ in size: pad or cut" in faults(data=data)[0]


def model_of(forward):
    return type("Changed", (MLP,), {"forward": forward})


MEAN_LOSS = F.cross_entropy


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"data": Rows(lambda i: {"ids": X[i], "y": 0})}, "takes x, mask, a batch holds ids, y"),
        (
            {"data": Rows(lambda i: {"x": X[i], "mask": X[i], "body": "a"})},
            r"holds text \(body\): drop it .* tokenise it first.*tokenizer\(row\['body'\]",
        ),
        ({"model": model_of(lambda s, x: Output(logits=x))}, "returns a Output.*out.logits"),
        ({"model": model_of(lambda s, x: (x, None))}, r"returns a tuple.*out\[0\]"),
        ({"model": model_of(lambda s, x: None)}, "returns None: is a `return` missing"),
        ({"model": model_of(lambda s, x: MLP.forward(s, x.cuda()))}, "do not call .cuda"),
        ({"data": TensorDataset(X.double(), Y)}, r"inputs are float64.*as x.to\(torch.float32"),
        ({"data": TensorDataset(X.byte(), Y)}, "inputs are uint8, the model's parameters float32"),
        ({"model": lambda width: MLP(width).double()}, "inputs are float32.*parameters float64"),
        ({"data": TensorDataset(X, Y.float())}, "class labels must be int64"),
        ({"data": TensorDataset(X, Y[:, None])}, "drop the last axis"),
        ({"data": TensorDataset(X, Y + 5)}, "must run from 0.*they run from 5 to 6"),
        ({"data": Rows(lambda i: ("a b c", 1))}, "the inputs are text: tokenise it first"),
        ({"data": Rows(lambda i: (("a", X[i]), 1))}, "the inputs are text: tokenise it first"),
        ({"data": Rows(lambda i: (X[i], "cat"))}, "targets are a tuple, not a tensor"),
        ({"loss": lambda y, out: F.cross_entropy(out, y)}, "are its two arguments swapped"),
        ({"loss": lambda out, y: None}, "got NoneType; is a `return` missing"),
        ({"loss": lambda out, y: MEAN_LOSS(out, y).item()}, "got float; do not call .item"),
        ({"loss": lambda out, y: {"loss": MEAN_LOSS(out, y)}}, "got dict; return the loss alone"),
        ({"model": lambda width: MLP(width).requires_grad_(False)}, "no parameter has requires_g"),
        ({"data": TensorDataset(torch.randn(400, 7), Y)}, r"inputs .* are of shape \(2, 7\)"),
    ],
)
def test_advice_fits_the_fault(changes, advice):
    if isinstance(changes.get("data"), Rows) and isinstance(changes["data"][0], dict):
        changes = {"model": Named, **changes}
    (problem,) = faults(**changes)
    assert re.search(advice, problem)


def test_tensors_left_on_the_meta_device():
    class Left(MLP):
        def __init__(self, width):
            super().__init__(width)
            self.register_buffer("scale", torch.ones(3, device="meta"))

    (problem,) = faults(Left)
    assert problem.startswith("model_cls: scale of the built model are on the meta device")


def test_they_are_said_with_all_other_faults():
    problems = faults(data=TensorDataset(X, one_changed(Y, 200, 17)), flops="guess")
    assert len(problems) == 2
    assert "Target 17" in problems[0]
    assert problems[1].startswith("flops: ")
