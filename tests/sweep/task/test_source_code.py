"""Whether a change of source is seen, and only then."""

import importlib
import linecache
import re
import sys
from functools import partial

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from flops_fit.sweep.task.source_code import code_of, parts_changed
from flops_fit.sweep.task.task import Task

SOURCE = '''
import collections
from torch import nn
import helpers

HIDDEN = 4
SHAPE = {"ratio": 2}
CACHE = collections.defaultdict(helpers.half)
STEPS = (abs, helpers.half)
seen = [0]


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layer = nn.Linear(width, HIDDEN)


class Model(Block):
    """A model."""

    @property
    def ratio(self):
        return len(seen) and CACHE is not None and 2 * SHAPE["ratio"]

    def num_params(self):
        return helpers.total(self)


def inner(out):
    return STEPS[1](out.mean())


def loss(out, y):
    return inner(out - y)


def make_data():
    return []


def collate(examples):
    return examples
'''
HELPERS = """
def total(model):
    return sum(p.numel() for p in model.parameters())


def half(x):
    return x / 2
"""


@pytest.fixture
def code(tmp_path, monkeypatch):
    """The hashes of a module and its helper, with words of their sources replaced."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def hashed(old="", new="", data="make_data"):
        for name, text in (("usermodel", SOURCE), ("helpers", HELPERS)):
            (tmp_path / f"{name}.py").write_text(text.replace(old, new) if old else text)
            sys.modules.pop(name, None)
        importlib.invalidate_caches()
        linecache.clearcache()
        module = importlib.import_module("usermodel")
        dataset = getattr(module, data)
        if data == "collate":
            dataset = DataLoader(TensorDataset(torch.zeros(3)), collate_fn=dataset)
        return code_of(Task(module.Model, "width", {}, dataset, module.loss))

    yield hashed
    for name in ("usermodel", "helpers"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("nn.Linear(width, HIDDEN)", "nn.Linear(HIDDEN, width)", {"model"}),
        ("HIDDEN = 4", "HIDDEN = 5", {"model"}),
        ("and 2", "and 3", {"model"}),
        ('"ratio": 2', '"ratio": 3', {"model"}),
        ("seen = [0]", "seen = [1]", set()),
        ("p.numel()", "2 * p.numel()", {"model"}),
        ("out.mean()", "out.sum()", {"loss"}),
        ("x / 2", "x / 3", {"loss"}),
        ("out - y", "y - out", {"loss"}),
        ("return []", "return [1]", {"data"}),
        ("return examples", "return examples[:1]", set()),
        ('"""A model."""', '"""Another word."""', set()),
        ('["ratio"]', '["ratio"]  # twice', set()),
        ("def loss(out, y):\n", "def loss(out, y):\n\n", set()),
    ],
)
def test_changes_of_source_are_seen_and_no_others(code, old, new, changed):
    before, after = code(), code(old, new)
    assert parts_changed(before, after) == changed


def test_a_loaders_collate_counts(code):
    before = code(data="collate")
    after = code("return examples", "return examples[:1]", data="collate")
    assert parts_changed(before, after) == {"data"}


def test_code_without_source_is_known_by_its_byte_code():
    def code_of_loss(body):
        scope = {}
        exec(f"def loss(out, y):\n    return {body}", scope)
        return code_of(Task(torch.nn.Linear, "out_features", {}, [], scope["loss"]))

    assert code_of_loss("out - y") == code_of_loss("out - y")
    assert code_of_loss("out - y") != code_of_loss("out + y")
    assert code_of_loss("out * 2") != code_of_loss("out * 3")


def test_callables_of_every_kind_have_a_hash():
    for value in (torch.nn.MSELoss(), partial(pow, 2), pow, [].append, lambda out, y: out):
        code = code_of(Task(torch.nn.Linear, "out_features", {}, [], value))
        assert re.fullmatch("model:[0-9a-f]{16} loss:[0-9a-f]{16} data:[0-9a-f]{16}", code)
