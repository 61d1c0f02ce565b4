"""The script that measures a GPU, tried in tiny on a CPU: every part of it, or one that fails."""

import importlib
import json
import math
import os
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.py"
PARTS = {"losses", "data_kept", "memory", "packed", "stacked", "killed_sweep", "ranks", "speed"}


def run_tiny(start, *arguments, cwd):
    """The figures on the last line of the script's output, and all of it."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    process = start(sys.executable, SCRIPT, "--tiny", *arguments, env=environment, cwd=cwd)
    output = process.finish()
    assert process.returncode == 0, output
    return json.loads(output.strip().splitlines()[-1]), output


def test_every_part_runs_on_a_cpu(start, tmp_path):
    found, output = run_tiny(start, cwd=tmp_path)
    assert set(found["parts"]) == PARTS
    assert {name: part.get("error") for name, part in found["parts"].items()} == dict.fromkeys(
        PARTS
    )
    rows = {name: part["rows"] for name, part in found["parts"].items()}
    assert rows["losses"][0]["differs_by"] == 0  # a CPU against itself
    assert rows["ranks"][0]["differs_by"] < 1e-5
    assert rows["killed_sweep"][0]["ended"] == 20
    assert rows["killed_sweep"][0]["trained_twice"] == 0
    assert all(row["loss_differs_by"] < 1e-5 for row in rows["stacked"])
    assert [row["times_one"] > 0 for row in rows["packed"]] == [True, True]
    assert output.count("\n| ") >= len(PARTS)  # the table for the log


@pytest.fixture
def script(monkeypatch):
    """The script as a module."""
    monkeypatch.setattr(sys, "path", [str(SCRIPT.parent), *sys.path])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    return importlib.import_module("gpu")


def breaks(bench):
    """Measures one thing, then fails."""
    yield {"what": "one", "ratio": math.nan}
    raise RuntimeError("a long story\nno | kernel")


def test_a_part_that_fails_keeps_its_rows_and_leaves_the_others(script, monkeypatch, capsys):
    parts = {"broken": (breaks, 1), "whole": (lambda bench: iter([{"what": "two"}]), 1)}
    monkeypatch.setattr(script, "PARTS", parts)
    assert script.main(["--tiny"]) == 0
    *lines, last = capsys.readouterr().out.strip().splitlines()
    assert "| broken | one | ratio nan |" in lines
    assert "| broken | failed | no / kernel |" in lines
    found = json.loads(last)["parts"]
    assert found["broken"]["rows"] == [{"what": "one", "ratio": None}]
    assert "a long story" in found["broken"]["error"]
    assert found["whole"] == {"rows": [{"what": "two"}]}


def test_parts_for_which_no_time_is_left_are_said(script, monkeypatch, capsys):
    monkeypatch.setattr(script, "LIMIT_S", -1.0)
    assert script.main(["--tiny", "memory"]) == 0
    assert "| memory | failed | no time left |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--tiny", "speeed"), "unknown: speeed"), ((), "no GPU is seen here")],
)
def test_what_cannot_be_measured_is_said(start, tmp_path, arguments, said):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    process = start(sys.executable, SCRIPT, *arguments, env=environment, cwd=tmp_path)
    assert said in process.finish()
    assert process.returncode == 2
