r"""What flops-fit does on a GPU, in at most eight minutes, by one command.

    python benchmarks/gpu.py            # on one GPU
    python benchmarks/gpu.py --tiny     # the same on a CPU in a minute or two, to try it
    python benchmarks/gpu.py speed packed   # only these parts

Progress is printed as it goes. At the end come a table for docs/log.md and, as the last line, all
figures as JSON, also if parts fail or time runs out: each part is tried by itself.

It runs from a bare checkout, without an install. A usual PyTorch image has torch, accelerate,
NumPy, pandas, SciPy, Matplotlib, click, cloudpickle, filelock, psutil, PyYAML, tabulate and tqdm.
The rest is carried beside it as wheels. Where there is a network, for the image's Python:

    pip download --no-deps --only-binary=:all: --python-version 3.12 \
        --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 -d wheels WHEELS

where WHEELS is

    mlflow mlflow-skinny mlflow-tracing optuna alembic mako sqlalchemy greenlet colorlog sqlparse
    cachetools databricks-sdk google-auth importlib-metadata opentelemetry-api opentelemetry-sdk
    opentelemetry-proto opentelemetry-semantic-conventions pydantic pydantic-core annotated-types
    typing-inspection fastapi starlette cryptography cffi

(what a sweep was seen to import beyond the above), and on the machine:

    pip install --no-index --no-deps --target /tmp/site wheels/*.whl
    PYTHONPATH=/tmp/site python benchmarks/gpu.py
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # a bare checkout is not installed

import json
import math
import platform
import signal
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import gpu_parts
import torch
from gpu_parts import Bench, Row

LIMIT_S = 430.0  # no part begins after this
ALARM_S = 475.0  # ends a part that is still at work
# Seconds that each may take; what one leaves, the next ones have.
PARTS: dict[str, tuple[Callable[[Bench], Iterator[Row]], float]] = {
    "losses": (gpu_parts.losses, 40),
    "data_kept": (gpu_parts.data_kept, 15),
    "memory": (gpu_parts.memory, 25),
    "packed": (gpu_parts.packed, 130),
    "stacked": (gpu_parts.stacked, 35),
    "killed_sweep": (gpu_parts.killed_sweep, 60),
    "ranks": (gpu_parts.ranks, 45),
    "speed": (gpu_parts.speed, 110),
}


def measure(names: list[str], tiny: bool) -> dict[str, Any]:
    """The rows of each part, or why it has none."""
    began = time.monotonic()
    signal.signal(signal.SIGALRM, _out_of_time)
    signal.alarm(int(ALARM_S))

    def say(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    found: dict[str, Any] = {"machine": machine(), "tiny": tiny, "parts": {}}
    allowed = 0.0
    for name in names:
        part, seconds = PARTS[name]
        allowed += seconds
        rows: list[Row] = []
        result: dict[str, Any] = {"rows": rows}
        found["parts"][name] = result
        if time.monotonic() - began > LIMIT_S:
            result["error"] = "no time left"
            continue
        say(name)
        ends_at = began + min(allowed, LIMIT_S)
        try:
            for row in part(Bench(tiny, ends_at, say)):
                rows.append(row)
                say(f"  {row}")
        except Exception as error:  # the other parts are measured all the same
            result["error"] = f"{type(error).__name__}: {error}"
            say(traceback.format_exc())
    signal.alarm(0)
    found["seconds"] = round(time.monotonic() - began, 1)
    return found


def _out_of_time(*_: Any) -> None:
    raise TimeoutError(f"{ALARM_S:g} s are over")


def machine() -> dict[str, Any]:
    cuda = torch.cuda.is_available()
    return {
        "device": torch.cuda.get_device_name() if cuda else platform.processor() or "CPU",
        "memory_bytes": torch.cuda.get_device_properties(0).total_memory if cuda else None,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
    }


def as_markdown(found: dict[str, Any]) -> str:
    """The table for docs/log.md."""
    lines = [f"{found['machine']}; {found['seconds']} s", "", "| part | what | figures |"]
    lines.append("|---|---|---|")
    for name, part in found["parts"].items():
        for row in part["rows"]:
            figures = ", ".join(f"{key} {value}" for key, value in row.items() if key != "what")
            lines.append(f"| {name} | {row['what']} | {figures} |")
        if "error" in part:
            error = part["error"].strip().splitlines()[-1].replace("|", "/")
            lines.append(f"| {name} | failed | {error[:200]} |")
    return "\n".join(lines)


def plain(value: Any) -> Any:
    """Strict JSON has no NaN and no infinity."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def main(arguments: list[str]) -> int:
    tiny = "--tiny" in arguments
    names = [name for name in arguments if name != "--tiny"] or list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        print(f"unknown: {' '.join(unknown)}; expected --tiny, or some of {' '.join(PARTS)}")
        return 2
    if not tiny and not torch.cuda.is_available():
        print("no GPU is seen here; --tiny tries the script on a CPU")
        return 2
    found = measure(names, tiny)
    print(as_markdown(found))
    print(json.dumps(plain(found)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
