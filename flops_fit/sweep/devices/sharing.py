"""A worker's place on a device: a trial runs on its share, or alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from accelerate.utils.memory import clear_device_cache

from flops_fit.records import Trial
from flops_fit.runtime.process_id import at_work
from flops_fit.runtime.signals import StopRequest
from flops_fit.sweep.devices.claims import claims_file, share_claimed
from flops_fit.sweep.devices.device import Device, Packing, device_here
from flops_fit.sweep.training.prepared_model import out_of_memory

_LOG = logging.getLogger("flops_fit")
_T = TypeVar("_T")


@dataclass(frozen=True)
class SharedDevice:
    """A device, as one of the workers that train on it sees it.

    Attributes:
        device: The device.
        packing: What trials take of it; None if each has it to itself.
        claims: The file of those that claim it.
        owner: Name of this worker.
        stop: Whether it was asked to stop.
    """

    device: Device
    packing: Packing | None
    claims: Path
    owner: str
    stop: StopRequest

    def run(self, trial: Trial, train: Callable[[bool], _T]) -> _T:
        """Train a trial on its share of the device; if memory runs out there, once more alone.

        Args:
            trial: The trial.
            train: Trains it; called with whether it is alone.
        """
        share = 1.0 if self.packing is None else self.packing.share(trial, self.device)
        try:
            with self._claimed(share):
                return train(share == 1)
        except Exception as error:
            if share == 1 or not out_of_memory(error):
                raise
            _LOG.warning("size %r: out of memory beside others; run alone", trial.size)
        # Only here is the error gone, whose traceback holds the tensors of the trial.
        clear_device_cache(garbage_collection=True)
        with self._claimed(1.0):
            return train(True)

    @contextmanager
    def _claimed(self, share: float) -> Iterator[None]:
        """Wait for a share of the device, and hold no more than that of its memory."""
        report = _waits if self.packing is None else _ignore
        with share_claimed(self.claims, self.owner, share, self._stop_if_asked, report):
            if self.packing is not None:
                self.device.set_limit(self.packing.limit(share, self.device))
            yield

    def _stop_if_asked(self) -> None:
        if self.stop:
            raise self.stop.exception()


def _waits(error: Exception) -> None:
    _LOG.warning("%s: waiting for it", error)


def _ignore(error: Exception) -> None:
    """A trial that waits for its share is nothing to report."""


@contextmanager
def device_to_itself(claims: Path) -> Iterator[None]:
    """Hold the whole of this process's device, if it has one.

    Args:
        claims: Folder of the claims.
    """
    device = device_here()
    if device is None:
        yield
        return
    file = claims_file(claims, device.name)
    with at_work() as owner, share_claimed(file, owner, 1.0, lambda: None, _waits):
        yield
