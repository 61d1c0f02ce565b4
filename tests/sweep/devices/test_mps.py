"""CUDA MPS, with a daemon of our own making in its place."""

import os
import stat

import pytest

from flops_fit.sweep.devices import mps
from flops_fit.sweep.devices.device import Need, Packing
from flops_fit.sweep.devices.mps import CONTROL, devices_shared, multi_process_service

PIPES = "CUDA_MPS_PIPE_DIRECTORY"
# In the foreground it is a daemon, which a file stands for; else it asks whether there is one.
DAEMON = """#!/bin/sh
if [ "$1" = -f ]; then
    echo "$CUDA_VISIBLE_DEVICES" > "$CUDA_MPS_PIPE_DIRECTORY/control"
    echo started >> "{log}"
    exec sleep 1000
fi
read command
case "$command" in quit*) echo ended >> "{log}";; esac
[ -e "$CUDA_MPS_PIPE_DIRECTORY/control" ]
"""


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


@pytest.fixture
def install(tmp_path, monkeypatch, log):
    """A function that installs a control program, on a machine without GPU and service."""
    monkeypatch.delenv(PIPES, raising=False)
    monkeypatch.setattr(mps, "_START_S", 0.0)

    def write(script):
        control = tmp_path / "bin" / CONTROL
        control.parent.mkdir()
        control.write_text(script.format(log=log))
        control.chmod(control.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{control.parent}{os.pathsep}{os.environ['PATH']}")

    return write


def test_where_it_is_not_installed_this_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with multi_process_service() as problem:
        assert "not installed" in problem
        assert PIPES not in os.environ


def test_a_service_of_our_own_lives_as_long_as_the_sweep(install, log, monkeypatch):
    install(DAEMON)
    monkeypatch.setattr(mps, "_START_S", 60.0)
    monkeypatch.setattr(mps, "_try_out", lambda environment: "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    with multi_process_service() as problem:
        assert problem == ""
        pipes = os.environ[PIPES]
        with open(f"{pipes}/control") as file:
            assert file.read() == "\n"  # it serves all GPUs, under their own numbers
    assert PIPES not in os.environ
    assert not os.path.exists(pipes)
    assert log.read_text().split() == ["started", "ended"]


def test_the_service_of_the_machine_is_left_alone(install, log, monkeypatch, tmp_path):
    install(DAEMON)
    (tmp_path / "control").touch()
    monkeypatch.setenv(PIPES, str(tmp_path))
    monkeypatch.setattr(mps, "_try_out", lambda environment: "")
    with multi_process_service() as problem:
        assert problem == ""
        assert os.environ[PIPES] == str(tmp_path)
    assert os.environ[PIPES] == str(tmp_path)
    assert not log.exists()


@pytest.mark.parametrize("script", ["#!/bin/sh\nexit 1\n", "#!/bin/sh\nsleep 0.01\nexit 3\n"])
def test_a_daemon_that_does_not_answer_is_not_relied_on(install, script):
    install(script)
    with multi_process_service() as problem:
        assert "does not answer" in problem
        assert PIPES not in os.environ


def test_a_service_that_gives_no_gpu_is_not_relied_on(install, tmp_path, monkeypatch):
    install(DAEMON)
    (tmp_path / "control").touch()
    monkeypatch.setenv(PIPES, str(tmp_path))
    monkeypatch.setattr(mps, "_TRIAL_OF_SERVICE", "import sys; sys.exit(100)")
    with multi_process_service() as problem:
        assert "refuses (CUDA error 100)" in problem


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        ("", "4 workers share each GPU (by CUDA MPS)"),
        ("it is not installed", "take turns, without CUDA MPS: it is not installed"),
    ],
)
def test_the_user_reads_how_the_device_is_shared(monkeypatch, problem, words):
    from contextlib import nullcontext

    monkeypatch.setattr(mps, "multi_process_service", lambda: nullcontext(problem))
    with devices_shared(Packing(lambda trial: Need(1.0), 4)) as lines:
        assert len(lines) == 1
        assert words in lines[0]


def test_nothing_is_started_where_nothing_is_shared(monkeypatch):
    monkeypatch.setattr(mps, "multi_process_service", None)
    with devices_shared(None) as lines:
        assert lines == []
