"""Real text that every machine has: the source of Python's own standard library, as bytes."""

from __future__ import annotations

import sysconfig
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset


class TextWindows(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Non-overlapping windows over a row of tokens: (inputs, the same one step on).

    Args:
        data: Tokens, shape (num_tokens,), of any whole-number type; may be memory-mapped.
        context: Length T of a window.
    """

    def __init__(self, data: np.ndarray, context: int = 128) -> None:
        self.context = context
        count = max(0, len(data) - 1) // context
        self._inputs = data[: count * context].reshape(count, context)
        self._targets = data[1 : count * context + 1].reshape(count, context)

    def __len__(self) -> int:
        return len(self._inputs)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        return _long(self._inputs[index]), _long(self._targets[index])

    def __getitems__(self, indices: list[int]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """A batch in two look-ups rather than two an example."""
        inputs_BT, targets_BT = _long(self._inputs[indices]), _long(self._targets[indices])
        return list(zip(inputs_BT, targets_BT, strict=True))


def _long(tokens: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(tokens.astype(np.int64))


@cache
def stdlib_bytes() -> np.ndarray:
    """All `.py` files of the standard library in path order, without site-packages and tests."""
    root = Path(sysconfig.get_paths()["stdlib"])
    left_out = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
    files = sorted(p for p in root.rglob("*.py") if not left_out & set(p.relative_to(root).parts))
    return np.frombuffer(b"\n".join(path.read_bytes() for path in files), dtype=np.uint8)


def stdlib_text(split: str, context: int = 128, held_out: float = 0.05) -> TextWindows:
    """The train or held-out windows of `stdlib_bytes`.

    Blocks of 64 kB are dealt to the two splits in turn, so that both hold every kind of module and
    no window straddles them.

    Args:
        split: "train" or "eval".
        context: Length of a window.
        held_out: Share of the bytes in "eval".

    Raises:
        ValueError: If `split` is neither of the two.
    """
    if split not in ("train", "eval"):
        raise ValueError(f"split: expected 'train' or 'eval', got {split!r}")
    data, block, every = stdlib_bytes(), 1 << 16, round(1 / held_out)
    blocks = [data[i : i + block] for i in range(0, len(data), block)]
    is_eval = split == "eval"
    return TextWindows(
        np.concatenate([b for i, b in enumerate(blocks) if (i % every == every - 1) == is_eval]),
        context,
    )
