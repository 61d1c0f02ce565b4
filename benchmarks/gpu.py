r"""What flops-fit does on a GPU, in at most eight minutes, by one command.

    python benchmarks/gpu.py            # on one GPU
    python benchmarks/gpu.py --tiny     # the same on a CPU in some minutes, to try it
    python benchmarks/gpu.py speed packed   # only these parts

Progress is printed as it goes. At the end come a table for docs/log.md and, as the last line, all
figures as JSON, also if parts fail, are killed or take too long, and after Ctrl-C: the parts run in
a process of their own, and after a fault in a new one.

It runs from a bare checkout, without an install. A usual PyTorch image has torch, accelerate,
NumPy, pandas, SciPy, Matplotlib, click, cloudpickle, filelock, psutil, PyYAML, tabulate and tqdm.
The rest is carried beside it as wheels. Where there is a network, for the image's Python:

    pip download -c constraints.txt --no-deps --only-binary=:all: --python-version 3.12 \
        --platform manylinux_2_28_x86_64 --platform manylinux2014_x86_64 -d wheels WHEELS

where WHEELS is

    mlflow mlflow-skinny mlflow-tracing optuna alembic mako sqlalchemy greenlet colorlog sqlparse
    cachetools databricks-sdk google-auth importlib-metadata opentelemetry-api opentelemetry-sdk
    opentelemetry-proto opentelemetry-semantic-conventions pydantic pydantic-core annotated-types
    typing-inspection fastapi starlette cryptography cffi

(what a sweep was seen to import beyond the above; their newest versions do not fit together, those
of `constraints.txt` in the root of the checkout do). On the machine:

    pip install --no-index --no-deps --target /tmp/site wheels/*.whl
    PYTHONPATH=/tmp/site python benchmarks/gpu.py
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]  # a bare checkout is not installed

# Only the standard library: where a package is missing, the last line still comes.
import json
import math
import platform
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gpu_process import NoStartError, PartError, Parts, say

MODULE = "gpu_parts"
# Functions of that module, and seconds that each may take; what one leaves, the next ones have.
PARTS = {
    "losses": 40,
    "data_kept": 15,
    "memory": 25,
    "packed": 130,
    "stacked": 35,
    "killed_sweep": 60,
    "ranks": 45,
    "speed": 110,
}
LIMIT_S = 430.0  # no part begins after this
OVERTIME_S = 30.0  # after this a part is ended
END_S = 465.0  # ends any part
PATIENCE = 10.0  # in tiny all limits are longer by this: the CPU may be busy
INTERRUPTED = 128 + signal.SIGINT  # exit code, as a shell shows it


def measure(names: list[str], tiny: bool) -> tuple[dict[str, Any], int]:
    """The rows of each part or why it has none, and the exit code."""
    began, scale = time.monotonic(), PATIENCE if tiny else 1.0
    limit, end = began + LIMIT_S * scale, began + END_S * scale
    results: dict[str, Any] = {name: {"rows": [], "error": "not begun"} for name in names}
    machine: dict[str, Any] = {"python": platform.python_version()}
    ends_at, code, parts = began, 0, None
    try:
        for name in names:
            ends_at = min(ends_at + PARTS[name] * scale, limit)
            if time.monotonic() > limit:
                results[name]["error"] = "no time left"
                continue
            say(began, name)
            results[name]["error"] = "interrupted"
            try:
                parts = parts or Parts(MODULE, tiny, began, end)
                machine |= parts.machine
                for row in parts.rows(name, ends_at, min(ends_at + OVERTIME_S * scale, end)):
                    results[name]["rows"].append(row)
                    say(began, f"  {row}")
                del results[name]["error"]
            except PartError as error:  # the other parts are measured all the same
                say(began, f"  failed: {error}")
                results[name]["error"] = str(error)
                assert parts is not None
                parts.end()
                parts = None
    except NoStartError as error:
        code = 2
        for result in results.values():
            if "error" in result:
                result["error"] = str(error)
    except KeyboardInterrupt:
        code = INTERRUPTED
    finally:
        with _signals_ignored():
            if parts is not None:
                parts.end()
    seconds = round(time.monotonic() - began, 1)
    return {"machine": machine, "tiny": tiny, "parts": results, "seconds": seconds}, code


@contextmanager
def _signals_ignored() -> Iterator[None]:
    """In this context Ctrl-C and SIGTERM do nothing."""
    before = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


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
    before = signal.signal(signal.SIGTERM, _interrupt)
    found, code = measure(names, tiny)
    with _signals_ignored():
        print(as_markdown(found))
        print(json.dumps(plain(found)), flush=True)
    signal.signal(signal.SIGTERM, before)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
