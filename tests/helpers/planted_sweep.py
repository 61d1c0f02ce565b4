"""A driver without training: `planted_sweep.py <tracking_uri> <storage> <seconds> <sizes>`.

Losses of four budgets at so many sizes come from the law of `sweeps`, each after so many
seconds; trained trials are appended to `trained` in the working directory.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np
import sweeps

from flops_fit.sweep.execution import worker

BUDGETS = [1e10, 3e10, 1e11, 3e11]


class Slow(sweeps.Planted):
    """The planted trainer, slowed down, that notes what it has trained."""

    def __call__(self, task, source, trial, *others, **more):
        time.sleep(float(sys.argv[3]))
        outcome = super().__call__(task, source, trial, *others, **more)
        with open("trained", "a") as file:
            file.write(f"{os.getpid()} {trial.trial_id}\n")
        return outcome


def main() -> None:
    worker.train = Slow()
    sizes = np.geomspace(300, 9600, int(sys.argv[4])).astype(int).tolist()
    sweeps.sweep(Path(), BUDGETS, sizes=sizes, tracking_uri=sys.argv[1], storage=sys.argv[2])


if __name__ == "__main__":
    main()
