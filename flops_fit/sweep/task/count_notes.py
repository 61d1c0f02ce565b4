"""What a count of FLOPs leaves out, or has twice: FFTs and activation checkpointing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from torch.nn.modules.module import register_module_forward_pre_hook
from torch.utils._python_dispatch import TorchDispatchMode

_PRODUCTS = frozenset(("mm", "bmm", "addmm", "baddbmm", "convolution"))


class Noted(TorchDispatchMode):
    """Notes the operations that `FlopCounterMode` does not count as they are.

    Attributes:
        ffts: Names of the FFT operations that took part.
        complex_products: Whether complex tensors were multiplied.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ffts: set[str] = set()
        self.complex_products = False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name.startswith("_fft_"):
            self.ffts.add(name)
        elif name in _PRODUCTS:
            self.complex_products |= any(isinstance(x, Tensor) and x.is_complex() for x in args)
        return func(*args, **(kwargs or {}))


@contextmanager
def modules_called() -> Iterator[list[None]]:
    """A list that is not empty if any module is called: in a backward pass, it is recomputed."""
    called: list[None] = []
    handle = register_module_forward_pre_hook(lambda module, args: called.append(None))
    try:
        yield called
    finally:
        handle.remove()


def count_notes(noted: Noted, *, recomputed: bool) -> list[str]:
    """What to say about a count.

    Args:
        noted: The operations that took part.
        recomputed: Whether modules ran again in the backward pass.
    """
    notes = []
    if names := ", ".join(sorted(noted.ffts)):
        notes.append(
            f"FLOPs: the FFTs of this model ({names}) are not counted in C; if they are a large "
            "part of its work, pass flops=, a function of the model that returns its FLOPs"
        )
    if noted.complex_products:
        notes.append(
            "FLOPs: products of complex tensors are counted in C as if they were real, a quarter; "
            "to count them in full, pass flops=, a function of the model that returns its FLOPs"
        )
    if recomputed:
        notes.append(
            "FLOPs: with activation checkpointing, what the backward pass computes again is "
            "counted in C as well; to leave it out, pass flops=, a function of the model that "
            "returns its FLOPs"
        )
    return notes
