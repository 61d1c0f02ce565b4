"""The accelerator that a worker trains on, and what share of it a trial takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from flops_fit.records import Trial
from flops_fit.sweep.data.device_cache import MAX_SHARE

SLACK = 1.25  # of memory: the allocator's fragments, and what a step of another batch takes more
CONTEXT_BYTES = 600 * 2**20  # that each process has on a device beside its tensors (CUDA, cuBLAS)
USABLE = 0.95  # of a device's memory; of this the training data may take `MAX_SHARE`
_LEAST = 0.1  # of a device so small that the processes alone would fill it


@dataclass(frozen=True)
class Need:
    """What a trial takes of a device.

    Attributes:
        memory_bytes: Most memory that its tensors hold.
        busy: Share of the device's arithmetic that it uses when it is alone, at most 1.
    """

    memory_bytes: float
    busy: float = 0.0


@dataclass(frozen=True)
class Device:
    """An accelerator, as one process sees it.

    Attributes:
        name: What it is called on this host, in every process.
        memory_bytes: All of its memory.
        set_limit: Lets this process hold at most a share of that memory.
    """

    name: str
    memory_bytes: float
    set_limit: Callable[[float], None]


@dataclass(frozen=True)
class Packing:
    """Several workers on each device, which train side by side what fits.

    Attributes:
        need_of: What a trial takes of a device.
        per_device: Workers on each device.
    """

    need_of: Callable[[Trial], Need]
    per_device: int

    def share(self, trial: Trial, device: Device) -> float:
        """Share of the device that a trial claims: 1 if it is to be alone."""
        return self.share_of(self.need_of(trial), device)

    def share_of(self, need: Need, device: Device) -> float:
        """Share of the device that a trial claims which takes so much."""
        return min(1.0, max(SLACK * need.memory_bytes / self.available(device), need.busy))

    def limit(self, share: float, device: Device) -> float:
        """Share of the device's memory that a process may hold whose trial claims a share."""
        if share == 1:
            return 1.0
        return share * self._usable(device) + MAX_SHARE / self.per_device

    def available(self, device: Device) -> float:
        """Bytes of a device that are left for trials, beside what each process holds."""
        return self._usable(device) * device.memory_bytes

    def among(self, workers: int, devices: int) -> Packing:
        """The same where no more than so many workers are on so many devices."""
        return replace(self, per_device=min(self.per_device, -(-workers // devices)))

    def _usable(self, device: Device) -> float:
        contexts = self.per_device * CONTEXT_BYTES / device.memory_bytes
        return max(_LEAST, USABLE - MAX_SHARE - contexts)


def device_here() -> Device | None:
    """The GPU of this process; None on a CPU, whose memory nobody shares out."""
    if not torch.cuda.is_available():
        return None
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    name = str(getattr(properties, "uuid", torch.cuda.current_device()))
    return Device(name, float(properties.total_memory), torch.cuda.set_per_process_memory_fraction)


def count_devices() -> int:
    """Number of GPUs that this process sees."""
    return torch.cuda.device_count()
