"""The script that measures a GPU, tried in tiny on a CPU: every part of it, or one that fails."""

import json
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "gpu.py"
PARTS = {"losses", "data_kept", "memory", "packed", "stacked", "killed_sweep", "ranks", "speed"}

pytestmark = pytest.mark.integration


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


def test_a_part_that_fails_leaves_the_others(start, tmp_path):
    (tmp_path / "sitecustomize.py").write_text("import torch\ndel torch.func\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path), "CUDA_VISIBLE_DEVICES": ""}
    process = start(
        sys.executable, SCRIPT, "--tiny", "stacked", "memory", env=environment, cwd=tmp_path
    )
    output = process.finish()
    assert process.returncode == 0, output
    found = json.loads(output.strip().splitlines()[-1])
    assert "error" in found["parts"]["stacked"]
    assert "error" not in found["parts"]["memory"]
    assert "| stacked | failed |" in output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--tiny", "speeed"), "unknown: speeed"), ((), "no GPU is seen here")],
)
def test_what_cannot_be_measured_is_said(start, tmp_path, arguments, said):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    process = start(sys.executable, SCRIPT, *arguments, env=environment, cwd=tmp_path)
    assert said in process.finish()
    assert process.returncode == 2
