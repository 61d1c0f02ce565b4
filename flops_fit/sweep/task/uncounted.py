"""Operations that take part in a training step and whose FLOPs `FlopCounterMode` counts as none."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from flops_fit.records import Size
from flops_fit.runtime.rng import seeded
from flops_fit.sweep.data.source import Source
from flops_fit.sweep.task.task import Task
from flops_fit.warn import warn_user

_PRODUCTS = ("mm", "bmm", "addmm", "baddbmm", "convolution")


class _Seen(TorchDispatchMode):
    """Notes FFTs, and products of complex tensors, which are counted as if they were real."""

    def __init__(self) -> None:
        super().__init__()
        self.transforms: set[str] = set()
        self.complex_products = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name.startswith("_fft_"):
            self.transforms.add(name.removeprefix("_fft_"))
        if name in _PRODUCTS and any(
            isinstance(value, torch.Tensor) and value.is_complex() for value in args
        ):
            self.complex_products = True
        return func(*args, **(kwargs or {}))


@seeded(0)
def warn_of_uncounted(task: Task, source: Source, size: Size) -> None:
    """Warn if a training step holds operations whose FLOPs are not counted.

    Args:
        task: Model and loss, which have been tried on a batch.
        source: The data.
        size: The size to try.
    """
    model = task.build(size).train()
    try:
        with _Seen() as seen:
            task.loss(model, source.sample).backward()
    except Exception:  # the step itself has been tried; only noting its operations fails
        return
    told = []
    if seen.transforms:
        told.append("Fourier transforms count as no FLOPs")
    if seen.complex_products:
        told.append("products of complex tensors count as if they were real, a quarter")
    if told:
        warn_user(
            f"FLOPs: {' and '.join(told)}; C is too small by what they take. Pass flops=, a "
            "function of the model that returns the FLOPs for one unit of D, to count them"
        )
