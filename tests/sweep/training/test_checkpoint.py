"""A saved state is read back unchanged, or not at all."""

import logging
import math
import resource
import subprocess
import sys
from collections import OrderedDict

import pytest
import torch

from flops_fit.sweep.training.checkpoint import Keeper

STATE = {
    "model": OrderedDict(weight=torch.randn(3, 4), tied=torch.arange(5)),
    "optimizer": {"state": {0: {"step": torch.tensor(3.0)}}, "groups": [{"betas": (0.9, 0.95)}]},
    "none": None,
    "numbers": [1, 0.1 + 0.2, True, math.inf, "text"],
    "empty": {},
}


@pytest.fixture
def keeper(tmp_path):
    return Keeper(tmp_path / "trial", every_s=0.0)


def alike(one, two):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, two) and one.dtype == two.dtype
    if isinstance(one, dict):
        return list(one) == list(two) and all(alike(one[key], two[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(two) and all(map(alike, one, two))
    return one == two and type(one) is type(two)


def test_a_state_comes_back_as_it_was(keeper):
    assert keeper.load() is None
    assert keeper.save(7, STATE)
    step, state = keeper.load()
    assert step == 7
    assert alike(dict(STATE, model=dict(STATE["model"])), state)


def test_shared_and_strided_tensors_come_back(keeper):
    weight = torch.randn(4, 6)
    keeper.save(1, {"one": weight, "two": weight, "turned": weight.T, "part": weight[1:3, ::2]})
    _, state = keeper.load()
    assert torch.equal(state["two"], weight)
    assert torch.equal(state["turned"], weight.T)
    assert torch.equal(state["part"], weight[1:3, ::2])


def test_only_the_latest_is_kept_and_none_when_the_trial_is_done(keeper):
    for step in (5, 900, 1000):
        keeper.save(step, {"step": step})
    assert [path.name for path in keeper.folder.iterdir()] == ["000000001000"]
    assert keeper.load() == (1000, {"step": 1000})
    keeper.clear()
    assert not keeper.exists()
    assert not keeper.folder.exists()


def test_what_a_kill_left_half_written_goes_with_the_next(keeper):
    keeper.save(5, STATE)
    (keeper.folder / ".6.123.tmp").mkdir()
    assert keeper.load()[0] == 5
    keeper.save(7, STATE)
    assert [path.name for path in keeper.folder.iterdir()] == ["000000000007"]


def test_the_same_step_can_be_saved_again(keeper):
    keeper.save(5, {"x": 1})
    assert keeper.save(5, {"x": 2})
    assert keeper.load() == (5, {"x": 2})
    assert [path.name for path in keeper.folder.iterdir()] == ["000000000005"]


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "empty"])
def test_damage_is_reported_and_the_previous_checkpoint_is_used(keeper, caplog, name, damage):
    keeper.save(5, STATE)
    before = keeper.folder / "000000000005"
    kept_aside = before.rename(keeper.folder.parent / "aside")
    keeper.save(6, STATE)
    kept_aside.rename(before)  # as if the process had died before it was removed
    file = keeper.folder / "000000000006" / name
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    file.write_bytes({"flip": data, "cut": data[:-1], "empty": b"", "gone": b""}[damage])
    if damage == "gone":
        file.unlink()
    with caplog.at_level(logging.WARNING):
        step, _ = keeper.load()
    assert step == 5
    assert "is damaged" in caplog.text


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_no_flipped_bit_goes_unseen(keeper, name):
    keeper.save(5, {"x": torch.arange(3), "y": 0.5})
    file = keeper.folder / "000000000005" / name
    whole = file.read_bytes()
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        file.write_bytes(data)
        assert keeper.load() is None
    file.write_bytes(whole)
    assert keeper.load()[0] == 5


def test_with_every_one_damaged_the_trial_starts_over(keeper):
    keeper.save(5, STATE)
    (keeper.folder / "000000000005" / "state.json").write_text("{}")
    assert keeper.load() is None


def test_what_would_need_pickle_is_not_saved(keeper, caplog):
    keeper.save(1, {"x": 1})
    assert not keeper.save(2, {"x": object()})
    assert "a object cannot be saved without pickle" in caplog.text
    assert keeper.load() == (1, {"x": 1})
    assert [path.name for path in keeper.folder.iterdir()] == ["000000000001"]


FILL = """
import resource, sys, torch
from pathlib import Path
from flops_fit.sweep.training.checkpoint import Keeper
keeper = Keeper(Path(sys.argv[1]), 0.0)
assert keeper.save(1, {"x": torch.zeros(1000)})
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
assert not keeper.save(2, {"x": torch.zeros(1_000_000)})
step, state = keeper.load()
assert step == 1 and len(state["x"]) == 1000
assert [path.name for path in keeper.folder.iterdir()] == ["000000000001"]
"""


def test_what_cannot_be_written_costs_no_training(keeper, caplog):
    assert not keeper.save(1, {"weight": torch.eye(2).to_mkldnn()})
    assert "could not be saved" in caplog.text
    assert not keeper.exists()


def test_a_full_disk_leaves_the_one_before(tmp_path):
    assert resource.RLIMIT_FSIZE
    ran = subprocess.run(
        [sys.executable, "-c", FILL, str(tmp_path / "trial")], capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    assert "could not be saved" in ran.stderr


def test_nobody_but_its_owner_may_read_a_checkpoint(tmp_path):
    Keeper(tmp_path / "checkpoints" / "trial", 0.0).save(1, {"weight": torch.zeros(1)})
    for path in (tmp_path / "checkpoints").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o700 if path.is_dir() else 0o600)
    assert (tmp_path / "checkpoints").stat().st_mode & 0o777 == 0o700
