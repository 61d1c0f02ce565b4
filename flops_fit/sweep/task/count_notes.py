"""What a count of FLOPs leaves out, or has twice: FFTs and activation checkpointing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

_FFTS = ("_fft_r2c", "_fft_c2r", "_fft_c2c")


def ffts_as_zero() -> tuple[dict[Any, Callable[..., int]], set[str]]:
    """A mapping for `FlopCounterMode`, which knows no FFTs, and the set of those that were met."""
    met: set[str] = set()

    def noting(name: str) -> Callable[..., int]:
        def flops(*args: Any, **kwargs: Any) -> int:
            met.add(name)
            return 0

        return flops

    return {getattr(torch.ops.aten, name): noting(name) for name in _FFTS}, met


@contextmanager
def modules_called() -> Iterator[list[None]]:
    """A list that is not empty if any module is called: in a backward pass, it is recomputed."""
    called: list[None] = []
    handle = register_module_forward_pre_hook(lambda module, args: called.append(None))
    try:
        yield called
    finally:
        handle.remove()


def count_notes(ffts: Iterable[str], *, recomputed: bool) -> list[str]:
    """What to say about a count.

    Args:
        ffts: FFT operations that took part.
        recomputed: Whether modules ran again in the backward pass.
    """
    notes = []
    if names := ", ".join(sorted(ffts)):
        notes.append(
            f"FLOPs: the FFTs of this model ({names}) are not counted in C; if they are a large "
            "part of its work, pass flops=, a function of the model that returns its FLOPs"
        )
    if recomputed:
        notes.append(
            "FLOPs: with activation checkpointing, what the backward pass computes again is "
            "counted in C as well; to leave it out, pass flops=, a function of the model that "
            "returns its FLOPs"
        )
    return notes
