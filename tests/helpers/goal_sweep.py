"""A driver of a sweep with a goal, without training: `goal_sweep.py <folder> <seconds> <workers>`.

Losses follow the law of `sweeps` with noise that depends on the trial; each takes so many seconds.
Trials that were trained are appended to `trained` in the folder.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import sweeps

import flops_fit
from flops_fit.sweep.execution import worker

TARGET, UNTIL = 1e13, 1.15


class Noisy(sweeps.Planted):
    """The planted trainer with noise."""

    def __init__(self, folder: Path, seconds: float) -> None:
        super().__init__()
        self.folder, self.seconds = folder, seconds

    def __call__(self, task, source, trial, *others, **more):
        time.sleep(self.seconds)
        outcome = super().__call__(task, source, trial, *others, **more)
        noise = np.random.default_rng(int(trial.trial_id, 16)).standard_normal()
        loss = outcome.loss * float(np.exp(0.003 * noise))
        with (self.folder / "trained").open("a") as file:
            file.write(f"{os.getpid()} {trial.trial_id}\n")
        return replace(outcome, loss=loss)


def run(folder: Path, seconds: float = 0.0, **options: object) -> flops_fit.Result:
    """The sweep, to its end."""
    worker.train = Noisy(folder, seconds)
    return sweeps.sweep(
        folder, [1e10, 1e12], target=TARGET, until=UNTIL,
        recipe=flops_fit.Recipe(max_epochs=1e12, pilot=False), **options,
    )  # fmt: skip


def trained(folder: Path) -> list[str]:
    """Ids of the trials that were trained to their end, with repeats."""
    path = folder / "trained"
    lines = path.read_text().split("\n") if path.exists() else []
    return [line.split()[1] for line in lines if len(line.split()) == 2]


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the tests may run in the background
    os.chdir(sys.argv[1])
    run(Path(sys.argv[1]), float(sys.argv[2]))
