import enum
import re
from collections import UserDict
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from flops_fit.errors import ArgumentError
from flops_fit.sweep.task.hashing import digest, plain
from flops_fit.sweep.task.model_cost import count_params
from flops_fit.sweep.task.signatures import check_data_arguments, check_model_arguments
from flops_fit.sweep.task.task import Task


class Counted(nn.Linear):
    """A module whose parameter count is given."""

    def __init__(self, count):
        super().__init__(4, 3)
        self.num_params = count if callable(count) else lambda: count


def needs(width, depth, *, heads):
    raise NotImplementedError


def open_ended(**options):
    raise NotImplementedError


def task(model=needs, param="width", kwargs=None, data=(), loss=F.cross_entropy):
    return Task(model, param, {"depth": 1, "heads": 1} if kwargs is None else kwargs, data, loss)


@pytest.mark.parametrize(
    ("faulty", "message"),
    [
        (task(model="GPT"), "model_cls: expected a class or function .* got 'GPT'; pass the class"),
        (task(param=8), "model_size_param: expected the argument's name, got 8"),
        (task(param=["width"]), "model_size_param: expected the argument's name"),
        (task(param="size"), "model_size_param: .*needs takes no 'size'; it takes width, depth"),
        (task(kwargs=[1]), "model_kwargs: expected a dict, got list"),
        (task(kwargs={"depth": 1}), "model_kwargs: .*needs also needs heads"),
        (
            task(kwargs={"depth": 1, "heads": 1, "bias": 1}),
            "model_kwargs: .*needs takes no 'bias'; it takes width",
        ),
        (
            task(kwargs={"width": 8, "depth": 1, "heads": 1}),
            "model_kwargs: holds 'width', which is the size parameter; leave it out",
        ),
    ],
)
def test_faults_of_the_models_arguments(faulty, message):
    (problem,) = check_model_arguments(faulty)
    assert re.search(f"^{message}", problem)


def test_several_faults_of_the_model_come_together():
    found = check_model_arguments(task(kwargs={"width": 8, "bias": 1}))
    assert [text.split(" ")[1] for text in found] == ["holds", f"{__name__}.needs"]


def test_sound_arguments_pass():
    assert check_model_arguments(task()) == []
    assert check_model_arguments(task(open_ended)) == []
    assert check_model_arguments(task(partial(needs, heads=2), kwargs={"depth": 1})) == []


def test_faults_of_data_and_loss():
    first, second = check_data_arguments(task(data=None, loss="cross_entropy"))
    assert first.startswith("dataset: missing; pass a Dataset")
    assert second.startswith("loss_fn: expected a function (outputs, targets) -> scalar tensor")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (None, "expected it to return an nn.Module, got NoneType"),
        (nn.Linear(1, 1), "Linear has no num_params.*add `def num_params"),
        (Counted(0), "must return a positive int, got 0 at size 8"),
        (Counted(-3), "must return a positive int, got -3"),
        (Counted(12.0), r"must return a positive int, got 12\.0"),
        (Counted(True), "must return a positive int, got True"),
        (Counted(lambda: 1 // 0), r"num_params\(\) raised ZeroDivisionError"),
    ],
)
def test_faults_of_a_built_model(model, message):
    with pytest.raises(ArgumentError, match=f"^model_cls: .*{message}"):
        count_params(model, 8)


@pytest.mark.parametrize("count", [12, np.int64(12)])
def test_a_count_is_any_whole_number(count):
    assert type(count_params(Counted(count), 8)) is int


def test_loss_of_pairs_lists_and_mappings(mlp, classes):
    class Keyed(mlp):
        def forward(self, x, labels):
            return {"logits": super().forward(x)}

    x, y = classes.tensors
    expected = Task(mlp, "width", {}, None, F.cross_entropy)
    model = mlp(4)
    loss = expected.loss(model, (x, y))
    assert torch.equal(loss, F.cross_entropy(model(x), y))
    assert torch.equal(loss, expected.loss(model, [x, y]))
    keyed = Keyed(4)
    keyed.load_state_dict(model.state_dict())
    by_key = Task(Keyed, "width", {}, None, lambda o, b: F.cross_entropy(o["logits"], b["labels"]))
    for mapping in (dict, UserDict):
        assert torch.equal(loss, by_key.loss(keyed, mapping(x=x, labels=y)))


def smoothed(amount):
    return lambda out, y: F.cross_entropy(out, y, label_smoothing=amount)


def named(amount):
    def loss(out, y):
        return F.cross_entropy(out, y, label_smoothing=amount)

    return loss


@pytest.mark.parametrize(
    "make",
    [
        smoothed,
        named,
        lambda amount: partial(F.cross_entropy, label_smoothing=amount),
        lambda amount: nn.CrossEntropyLoss(label_smoothing=amount),
        lambda amount: nn.CrossEntropyLoss(weight=torch.full((3,), 1 + amount)),
        lambda amount: {"config": [amount, {"dtype": torch.float32}]},
        lambda amount: np.array([amount]),
    ],
)
def test_digest_sees_what_a_function_or_object_was_given(make):
    assert digest(make(0.1)) == digest(make(0.1)) != digest(make(0.2))


def test_digest_tells_lambdas_apart():
    one, other = (lambda x: x + 1), (lambda x: x + 2)
    assert digest(one) != digest(other)


def test_digest_takes_numpy_numbers_as_numbers_and_sets_in_any_order():
    assert digest({"n_layer": np.int64(4)}) == digest({"n_layer": 4})
    assert digest({"b", "a", "c"}) == digest({"c", "b", "a"})


class Colour(enum.Enum):
    RED = 1


def test_plain_values_hold_no_addresses():
    class Opaque:
        __slots__ = ()

    values = [Opaque(), F.relu, nn.Linear, partial(F.relu, inplace=True), Colour.RED, print]
    assert " at 0x" not in str(plain(values))


KEYS = st.text(max_size=3)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_digest_does_not_depend_on_the_order_of_keys(value):
    assert digest(value) == digest(dict(reversed(value.items())))
    assert plain(plain(value)) == plain(value)
