"""Ctrl-C on `flops-fit run`, in a process of its own."""

import os
import signal
import sys
from pathlib import Path

from processes import wait_until

TASK = [
    "--model=tiny_task:Net", "--size-param=width", "--data=tiny_task:data",
    "--loss=torch.nn.functional:cross_entropy", "--budgets=1e10,3e10,1e11",
    "--sizes=500,1000,2000,4000,8000", "--recipe", "max_epochs=1e9",
]  # fmt: skip


HELPERS = Path(__file__).parents[1] / "helpers"


def test_ctrl_c_ends_a_run_with_130_and_the_message_last(store, start):
    options = ["--name", "tiny", "--tracking-uri", f"sqlite:///{store}/mlflow.db"]
    command = [sys.executable, "-m", "flops_fit", "run", *TASK, *options]
    process = start(*command, cwd=HELPERS, env={**os.environ, "OMP_NUM_THREADS": "1"})

    def has_begun() -> bool:
        assert process.poll() is None, process.output
        return "To add a worker" in process.output

    wait_until(has_begun, process)
    process.send_signal(signal.SIGINT)
    output = process.finish()
    assert process.returncode == 130
    assert "Traceback" not in output
    assert output.splitlines()[-1].startswith("Stopped: 0 of ")
