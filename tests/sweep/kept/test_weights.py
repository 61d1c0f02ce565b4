"""Files of weights: what comes back, and what is said of the model."""

import math
import os
from dataclasses import replace

import pytest
import torch
from torch import nn
from trials import a_trial

from flops_fit.sweep.kept import weights
from flops_fit.sweep.task.task import Task


class Tied(nn.Module):
    """Two names for one weight, other dtypes, a buffer that is not persistent, and extra state."""

    def __init__(self, width: int, bias: bool = True, kind: type = int) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(5, width), nn.Linear(width, 5, bias=bias)
        self.head.weight = self.embed.weight
        self.coarse = nn.Parameter(torch.randn(3).bfloat16())
        self.register_buffer("count", torch.tensor(7))
        self.register_buffer("cache", torch.ones(2), persistent=False)

    def get_extra_state(self) -> object:
        return {"seen": 3}

    def set_extra_state(self, state: object) -> None:
        pass


@pytest.fixture
def file(tmp_path):
    return tmp_path / "weights" / "sweep" / "ab.safetensors"


def test_a_state_dict_comes_back_with_the_same_bits(file):
    model = Tied(4)
    weights.write(file, model, Task(Tied, "width"), a_trial(), 1.5)
    state = weights.read(file)
    expected = {key: value for key, value in model.state_dict().items() if "extra" not in key}
    assert state.keys() == expected.keys() == {"embed.weight", "head.weight", "head.bias",
                                              "coarse", "count"}  # fmt: skip
    for key, value in expected.items():
        assert torch.equal(state[key], value)
        assert state[key].dtype == value.dtype
    Tied(4).load_state_dict({**state, "_extra_state": None})
    assert [os.stat(path).st_mode & 0o077 for path in (file, file.parent)] == [0, 0]


def test_the_note_has_what_builds_the_model_again(file):
    task = Task(Tied, "width", {"bias": False, "kind": float})
    weights.write(file, Tied(8, bias=False), task, a_trial(size=8), 2.25)
    note = weights.read_note(file)
    assert (note.trial_id, note.loss) == ("00000000000000ab", 2.25)
    assert (note.model, note.size_param, note.size) == (f"{__name__}.Tied", "width", 8)
    assert (note.model_kwargs, note.not_plain) == ({"bias": False}, ("kind",))
    assert note.left_out == ("_extra_state",)


@pytest.mark.parametrize("kwargs", [{"a": math.nan}, {"a": (1, 2)}, {"a": {1: 2}}, {"a": print}])
def test_arguments_that_json_would_change_are_not_recorded(file, kwargs):
    weights.write(file, nn.Linear(2, 2), Task(nn.Linear, "width", kwargs), a_trial(), 1.0)
    assert weights.read_note(file).not_plain == ("a",)


@pytest.mark.parametrize("damage", ["missing", "cut off", "without a note", "of another kind"])
def test_a_file_that_is_not_one_has_no_note(file, damage):
    weights.write(file, nn.Linear(2, 2), Task(nn.Linear, "width"), a_trial(), 1.0)
    if damage == "missing":
        file.unlink()
    elif damage == "cut off":
        file.write_bytes(file.read_bytes()[:-3])
    elif damage == "without a note":
        weights.save_file({"weight": torch.ones(2)}, file)
    else:
        file.write_text("not safetensors")
    assert weights.read_note(file) is None


def test_a_file_is_there_whole_or_not_at_all(file, monkeypatch):
    task = Task(nn.Linear, "width")
    weights.write(file, nn.Linear(2, 2), task, a_trial(), 1.0)

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(weights, "move_into_place", fail)
    with pytest.raises(OSError, match="no space"):
        weights.write(file, nn.Linear(2, 2), task, replace(a_trial(), size=9), 2.0)
    assert weights.read_note(file).loss == 1.0
    assert list(file.parent.iterdir()) == [file]
