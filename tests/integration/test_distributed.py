"""Several processes train one trial as one does; what befalls one befalls all; nothing hangs."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
from launched import CASES, become
from processes import ended_processes

SCRIPT = Path(__file__).parents[1] / "helpers" / "launched.py"
SOUND = ["map", "ragged", "few", "stream", "parts", "noisy", "loader"]
SOUND += ["unlabelled", "sum_and_count", "last"]


def torchrun(processes: int, *command: object) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launcher, f"--nproc-per-node={processes}", *map(str, command)]


@pytest.fixture(scope="module", params=[2, 4])
def told(request, tmp_path_factory) -> list[dict]:
    """What each of two or four processes says of each case."""
    folder = tmp_path_factory.mktemp("ranks")
    with ended_processes() as start:
        command = torchrun(request.param, SCRIPT, folder)
        done = start(*command, env={**os.environ, "OMP_NUM_THREADS": "1"})
        output = done.finish()
    assert done.returncode == 0, output
    files = [folder / f"{rank}.json" for rank in range(request.param)]
    return [json.loads(file.read_text()) for file in files]


@pytest.fixture(scope="module")
def alone() -> dict:
    """What one process makes of each case."""
    return {name: become(name) for name in CASES}


@pytest.mark.parametrize("case", SOUND)
def test_losses_equal_those_of_one_process_at_every_step(told, alone, case):
    for one in told:
        assert len(one[case]["curve"]) == CASES[case][1].steps
        assert one[case]["curve"] == pytest.approx(alone[case]["curve"], rel=1e-6)
        assert one[case]["loss"] == pytest.approx(alone[case]["loss"], rel=1e-6)
        assert one[case] == told[0][case]  # to the last bit


def test_batch_normalisation_follows_the_shares_and_all_ranks_agree(told, alone):
    for one in told:
        assert one["normed"] == told[0]["normed"]
        assert one["normed"]["loss"] == pytest.approx(alone["normed"]["loss"], rel=0.1)
        assert one["normed"]["loss"] != alone["normed"]["loss"]


def test_where_one_rank_runs_out_of_memory_all_halve_and_the_loss_stays(told, alone):
    for one in told:
        assert one["hungry"]["curve"] == pytest.approx(alone["hungry"]["curve"], rel=1e-6)
        assert one["hungry"]["loss"] == pytest.approx(alone["hungry"]["loss"], rel=1e-6)


def test_a_loss_that_diverges_on_one_rank_stops_all_at_its_step(told):
    for one in told:
        assert one["diverging"]["error"] == "DivergedError: the training loss is nan at step 7"
        assert len(one["diverging"]["curve"]) == 6


def test_an_error_on_one_rank_is_told_to_all(told):
    *others, last = told
    assert last["failing"]["error"] == "ValueError: a bad example"
    expected = f"RankError: rank {len(others)}: ValueError: a bad example"
    assert {one["failing"]["error"] for one in others} == {expected}


def test_a_signal_to_one_rank_stops_all_and_the_trial_goes_on_with_the_same_bits(told):
    for one in told:
        assert one["interrupted"] == told[0]["interrupted"]
        assert (one["interrupted"]["code"], one["interrupted"]["kept"]) == (143, 6)
        assert one["interrupted"]["again"] == one["interrupted"]["whole"]


def test_gradients_are_summed_where_any_rank_has_one(told):
    k = len(told)
    total = k * (k + 1) / 2
    for one in told:
        assert one["summed"] == [[0.5 * k], [total, total], [1.0, 1.0], None, None]
