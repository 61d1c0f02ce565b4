"""The script that measures a GPU, tried in tiny on a CPU: every part of it, or one that fails."""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch
from processes import wait_until

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


@pytest.mark.timeout(1200)  # on a busy machine
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


FAULTY = """
import os, signal, subprocess, sys, time
CUDA = False
def Bench(tiny, ends_at, say): pass
def machine(): return {"device": "none"}
def whole(bench):
    yield {"what": "two"}
def breaks(bench):
    yield {"what": "one", "ratio": float("nan")}
    raise RuntimeError("a long story\\nno | kernel")
def leaves(bench):
    yield {"what": "one"}
    sys.exit(3)
def is_killed(bench):
    yield {"what": "one"}
    os.kill(os.getpid(), signal.SIGKILL)
def hangs(bench):
    sleeper = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    yield {"what": "one", "sleeper": sleeper.pid}
    while True:  # nor does it end by SIGTERM
        try:
            time.sleep(1000)
        except BaseException:
            pass
"""


@pytest.fixture
def script(monkeypatch, tmp_path):
    """The script as a module, with parts of our own making."""
    (tmp_path / "faulty.py").write_text(FAULTY)
    monkeypatch.setattr(sys, "path", [str(SCRIPT.parent), str(tmp_path), *sys.path])
    script = importlib.import_module("gpu")
    monkeypatch.setattr(script, "MODULE", "faulty")
    monkeypatch.setattr(script, "PATIENCE", 1.0)
    monkeypatch.setattr(importlib.import_module("gpu_process"), "STOP_S", 0.2)
    names = ("breaks", "leaves", "is_killed", "hangs", "whole")
    monkeypatch.setattr(script, "PARTS", dict.fromkeys(names, 30))
    return script


def figures_of(capsys):
    """The lines of the table, and the figures on the last line."""
    *lines, last = capsys.readouterr().out.strip().splitlines()
    return lines, json.loads(last)["parts"]


@pytest.mark.parametrize(
    ("part", "in_table", "error"),
    [
        ("breaks", "no / kernel", "RuntimeError: a long story\nno | kernel"),
        ("leaves", "its process ended with exit code 3", None),
        ("is_killed", "its process ended with exit code -9", None),
    ],
)
def test_a_part_that_fails_keeps_its_rows_and_leaves_the_others(
    script, capsys, part, in_table, error
):
    assert script.main(["--tiny", part, "whole"]) == 0
    lines, found = figures_of(capsys)
    assert f"| {part} | failed | {in_table} |" in lines
    assert found[part]["rows"][0]["what"] == "one"
    assert found[part]["error"] == (error or in_table)
    assert found["whole"] == {"rows": [{"what": "two"}]}


def test_figures_that_are_none_are_null(script, capsys):
    script.main(["--tiny", "breaks"])
    lines, found = figures_of(capsys)
    assert "| breaks | one | ratio nan |" in lines
    assert found["breaks"]["rows"] == [{"what": "one", "ratio": None}]


def test_a_part_that_hangs_is_ended_with_all_that_it_has_started(script, monkeypatch, capsys):
    monkeypatch.setattr(script, "PARTS", {"hangs": 5, "whole": 30})
    monkeypatch.setattr(script, "OVERTIME_S", 0.0)
    assert script.main(["--tiny"]) == 0
    _, found = figures_of(capsys)
    assert found["hangs"]["error"] == "it took too long"
    assert has_ended(found["hangs"]["rows"][0]["sleeper"])
    assert found["whole"] == {"rows": [{"what": "two"}]}


def has_ended(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_the_figures_and_no_process(script, start, tmp_path, number):
    code = (
        "import sys, gpu; gpu.MODULE = 'faulty'; gpu.PARTS = {'whole': 9, 'hangs': 99, 'leaves': 9}"
        "\nif __name__ == '__main__': sys.exit(gpu.main(['--tiny']))"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{SCRIPT.parent}"}
    process = start(sys.executable, "-c", code, env=environment, cwd=tmp_path)
    wait_until(lambda: "sleeper" in process.output or process.poll() is not None, process)
    process.send_signal(number)
    output = process.finish()
    assert process.returncode == 130, output
    found = json.loads(output.strip().splitlines()[-1])["parts"]
    assert found["whole"] == {"rows": [{"what": "two"}]}
    assert found["hangs"]["error"] == "interrupted"
    assert found["leaves"] == {"rows": [], "error": "not begun"}
    assert has_ended(found["hangs"]["rows"][0]["sleeper"])


def test_a_package_that_is_missing_is_said_of_each_part(script, monkeypatch, capsys, tmp_path):
    (tmp_path / "without.py").write_text("import a_package_that_is_missing")
    monkeypatch.setattr(script, "MODULE", "without")
    assert script.main(["--tiny", "whole", "breaks"]) == 2
    lines, found = figures_of(capsys)
    assert "No module named 'a_package_that_is_missing'" in found["whole"]["error"]
    assert found["whole"] == found["breaks"]
    assert any(line.startswith("| whole | failed | ModuleNotFoundError") for line in lines)


def test_parts_for_which_no_time_is_left_are_said(script, monkeypatch, capsys):
    monkeypatch.setattr(script, "LIMIT_S", -1.0)
    assert script.main(["--tiny", "whole"]) == 0
    assert "| whole | failed | no time left |" in capsys.readouterr().out


def test_wheels_are_fetched_in_versions_that_fit_together(script):
    text = script.__doc__
    assert "pip download -c constraints.txt" in text
    wheels = text.partition("where WHEELS is\n")[2].partition("(what")[0].split()
    pins = (ROOT / "constraints.txt").read_text().lower().replace("_", "-")
    unpinned = [name for name in wheels if f"\n{name}==" not in pins]
    assert unpinned == ["greenlet"]  # SQLAlchemy's, if at all


@pytest.fixture
def parts(monkeypatch):
    """The parts as a module."""
    monkeypatch.setattr(sys, "path", [str(SCRIPT.parent), *sys.path])
    return importlib.import_module("gpu_parts")


@pytest.mark.parametrize(
    ("others", "late", "expected"),
    [
        (["1.ready", "2.ready"], False, {1, 2}),
        (["1.ready", "2.out"], False, {1}),  # one has failed
        (["1.ready"], True, {1}),  # one has not come
    ],
)
def test_packed_processes_wait_for_no_failed_or_late_one(parts, tmp_path, others, late, expected):
    for name in others:
        (tmp_path / name).touch()
    own = os.getpid()
    ready_by = time.monotonic() + (0 if late else 1000)
    found = parts._meet(tmp_path, 3, ready_by)
    assert set(found[1]) == {own, *expected}
    (tmp_path / "9.ready").touch()
    assert parts._meet(tmp_path, 3, ready_by) == found  # decided once for all


class FirstRunsOut:
    """A shape, of which the process that asks first for its batch runs out of memory."""

    def __init__(self, shape, folder):
        self.shape, self.folder = shape, folder

    def __getattr__(self, name):
        if name.startswith("__") or name in ("shape", "folder"):
            raise AttributeError(name)
        if name == "batch":
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.folder / "first", os.O_CREAT | os.O_EXCL))
                (self.folder / "pid").write_text(str(os.getpid()))
            if str(os.getpid()) == (self.folder / "pid").read_text():
                raise torch.OutOfMemoryError("CUDA out of memory")
        return getattr(self.shape, name)


def test_a_packed_process_without_memory_fails_alone(parts, tmp_path, monkeypatch):
    shape = FirstRunsOut(parts.TINY_SHAPES["1M"], tmp_path)
    (tmp_path / "pid").touch()
    monkeypatch.setattr(parts, "TINY_SHAPES", {"1M": shape})
    bench = parts.Bench(True, time.monotonic() + 1000, print)
    one, two = parts._packed(bench, "1M", [1, 2], "tried")
    assert one["trials_per_hour"] > 0
    assert two["trials_per_hour"] > 0
    assert two["failed"] == "1 processes: OutOfMemoryError: CUDA out of memory"


@pytest.mark.parametrize("name", ["ranks", "losses"])
def test_processes_that_take_too_long_are_ended(parts, tmp_path, monkeypatch, name):
    script = tmp_path / "sleeps.py"
    script.write_text(
        "import os, pathlib, time\n"
        "pathlib.Path(__file__).with_name(f'{os.getpid()}.pid').touch()\ntime.sleep(1000)"
    )
    monkeypatch.setattr(parts, "__file__", str(script))
    monkeypatch.setattr(parts, "small_loss", lambda tiny: {"device": "cpu", "loss": 1.0})
    monkeypatch.setattr(parts, "LEAST_S", 3.0)
    with pytest.raises(subprocess.TimeoutExpired):
        list(getattr(parts, name)(parts.Bench(True, 0.0, print)))
    started = [int(file.stem) for file in tmp_path.glob("*.pid")]
    assert len(started) == (2 if name == "ranks" else 1)
    assert all(map(has_ended, started))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("--tiny", "speeed"), "unknown: speeed"), ((), "no GPU is seen here")],
)
def test_what_cannot_be_measured_is_said(start, tmp_path, arguments, said):
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    process = start(sys.executable, SCRIPT, *arguments, env=environment, cwd=tmp_path)
    assert said in process.finish()
    assert process.returncode == 2
