"""Random state that depends on a seed alone, and leaves the caller's generators unchanged."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed Python's, NumPy's and torch's global generators in this context; restore them after."""
    before = rng_state()
    start_from(seed)
    try:
        yield
    finally:
        set_rng_state(before)


def start_from(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # NumPy takes 32 bits only
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        # The same numbers. `torch.manual_seed` also notes the whole call stack for the day on which
        # CUDA is initialised, which takes milliseconds.
        torch.default_generator.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """The state of Python's, NumPy's and torch's global generators, as plain values and tensors."""
    name, keys, *rest = np.random.get_state()
    # Checkpoints hold tensors and plain values only, so the keys become a tensor (of int64).
    return {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore the state that `rng_state` returned."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
