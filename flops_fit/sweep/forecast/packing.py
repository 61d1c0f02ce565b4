"""How many workers a GPU is worth, and what each trial takes of it.

A few trials are trained for some steps, one at a time, in a process of its own: the smallest, the
middle and the largest size, each at the smallest and the largest batch. Their peak of memory, and
their speed relative to large products of matrices, are interpolated to all others.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from flops_fit.errors import SweepError
from flops_fit.records import Trial
from flops_fit.runtime.announce import announce_if_slow
from flops_fit.runtime.sending import UnsendableError, size_to_send
from flops_fit.sweep.devices.claims import check_claims
from flops_fit.sweep.devices.device import Device, Need, Packing, count_devices
from flops_fit.sweep.execution.executors import count_workers
from flops_fit.sweep.execution.job import Job
from flops_fit.sweep.forecast.calibration import measured_apart
from flops_fit.sweep.forecast.estimate import interpolated, memory_of, places_of
from flops_fit.warn import warn_user

MOST_PER_DEVICE = 16  # workers on one GPU
SATURATED = 0.4  # a model at this share of the speed of plain products keeps a GPU busy


@dataclass(frozen=True)
class Measured:
    """What a trial takes of a device, from measurements at a few places of the grid.

    Attributes:
        table: One row per visit to a place, as `Calibration.table` has them, with `busy`.
    """

    table: pd.DataFrame

    def __call__(self, trial: Trial) -> Need:
        """What this trial takes."""
        busy = self.table.groupby(["flops_per_token", "batch_size"])["busy"].mean()
        return Need(
            float(memory_of(self.table, [trial])[0]),
            float(interpolated(busy, [trial], log=False)[0]),
        )


@dataclass(frozen=True)
class EqualParts:
    """A device shared by a number of trials, whatever they are."""

    number: int

    def __call__(self, trial: Trial) -> Need:
        """What any trial takes."""
        return Need(0.0, 1 / self.number)


@dataclass(frozen=True)
class Packer:
    """Decides how many workers a sweep has on each device of this machine.

    Attributes:
        trials: Trials like those that the sweep will train.
        tokens_per_example: Units of D in one example.
        workers: As the user gave them: their number, or "auto".
        per_device: How many of "auto" each device has, if the user says; else as many as can be
            of use.
    """

    trials: Sequence[Trial]
    tokens_per_example: float
    workers: int | str = "auto"
    per_device: int | None = None

    def __call__(self, job: Job) -> tuple[Job, int]:
        """The job with what its trials take of a device, and the number of workers."""
        devices, wanted = count_devices(), self._wanted()
        if devices:
            check_claims(job.claims_folder)
        if not devices or wanted == 1:
            return job, count_workers(self.workers)
        try:
            packing = self._measured(job, wanted)
        except (SweepError, UnsendableError) as error:
            if wanted is None:
                warn_user(
                    "one trial at a time is trained on each GPU: what trials take of it could not "
                    f"be measured ({error}); workers_per_device= sets how many share it"
                )
                return job, devices
            packing = Packing(EqualParts(wanted), wanted)
        if packing.per_device == 1:
            return job, devices
        count = devices * packing.per_device if self.workers == "auto" else int(self.workers)
        return replace(job, packing=packing), count

    def _wanted(self) -> int | None:
        """Workers on each device as the user wants them; None if that is to be found."""
        if self.workers == "auto":
            return self.per_device
        return -(-int(self.workers) // max(1, count_devices()))

    def _measured(self, job: Job, wanted: int | None) -> Packing:
        """Measure trials, and find how many of them fit on a device where that is not given."""
        size_to_send(job.task)  # says what of it cannot be sent
        with announce_if_slow("Measuring how much of a GPU the trials take"):
            table = measured_apart(
                job.task, places_of(self.trials), job.recipe, rounds=0, claims=job.claims_folder
            )
        flops = table["flops_per_token"] * table["batch_size"] * self.tokens_per_example
        busy = flops / table["seconds_per_step"] / table["fastest"] / SATURATED
        # A number that the user gives is kept to, as far as memory goes.
        need_of = Measured(table.assign(busy=0.0 if wanted else busy.clip(upper=1)))
        if wanted is not None:
            return Packing(need_of, wanted)
        most = max(1, min(MOST_PER_DEVICE, _count_cores() // count_devices()))
        device = Device("", float(table["device_bytes"].iloc[0]), lambda share: None)
        needs = [need_of(trial) for trial in self.trials]
        packings = [Packing(need_of, number) for number in range(most, 1, -1)]
        good = (packing for packing in packings if _is_of_use(packing, needs, device))
        return next(good, Packing(need_of, 1))


def _is_of_use(packing: Packing, needs: Sequence[Need], device: Device) -> bool:
    """Whether so many workers can be busy at once, and leave memory for the largest trial."""
    least = min(packing.share_of(need, device) for need in needs)
    most = max(need.memory_bytes for need in needs)
    return packing.per_device * least <= 1 + 1e-9 and most <= packing.available(device)


def _count_cores() -> int:
    return len(os.sched_getaffinity(0))
