"""Images with labels: CIFAR-10, and an endless stream of drawn shapes that needs no download."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset

from flops_fit.examples import hub

Example = tuple[torch.Tensor, int]

NUM_CLASSES = 10
CIFAR_MEAN, CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)
_HELD_OUT = 1 << 40  # no training run draws so many
_CHUNK = 256
# A shape is a radius over the angle: polygons of so many sides, and flowers of so many petals.
_SIDES, _PETALS = (0, 3, 4, 5, 6), (3, 4, 5, 6, 7)


class Shapes(IterableDataset[Example]):
    """Shapes of ten kinds, drawn without end: image k is a function of k alone.

    Kinds are a disc, four polygons and five flowers, bright on dark, of any colour, somewhat
    turned, moved and scaled, under noise.

    Args:
        split: "train" or "eval".
        size: Height and width H of an image, in pixels.
        noise: Standard deviation of the noise of a pixel, of a range of 2.

    Raises:
        ValueError: If `split` is neither of the two.
    """

    def __init__(self, split: str, size: int = 16, noise: float = 0.2) -> None:
        self.first = _require_split(split) and _HELD_OUT
        self.size, self.noise = size, noise

    def __iter__(self) -> Iterator[Example]:
        start = self.first
        while True:
            images, labels = self.draw(np.arange(start, start + _CHUNK))
            yield from zip(images, labels.tolist(), strict=True)
            start += _CHUNK

    def draw(self, indices: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """The images of these indices, shape (B, 3, H, H), and their labels, shape (B,)."""
        traits = _uniform(indices, 11 + self.size**2).astype(np.float32)
        labels = (traits[:, 0] * NUM_CLASSES).astype(np.int64)
        inside = self._inside(labels, *traits[:, 1:5].T[..., None, None])
        paint, ground = traits[:, 5:11].reshape(-1, 2, 3, 1, 1).swapaxes(0, 1)
        noise = (traits[:, 11:] - 0.5).reshape(-1, 1, self.size, self.size) * 12**0.5
        images = (paint + ground) * inside[:, None] - ground + self.noise * noise
        return torch.from_numpy(images), torch.from_numpy(labels)

    def _inside(
        self, labels: np.ndarray, turn: np.ndarray, across: np.ndarray, down: np.ndarray,
        scale: np.ndarray,
    ) -> np.ndarray:  # fmt: skip
        """How much of each pixel a shape covers, shape (B, H, H)."""
        grid = np.linspace(-1, 1, self.size, dtype=np.float32)
        radius = 0.5 + 0.4 * scale
        x = grid[None, None, :] - (2 * across - 1) * (1 - radius)
        y = grid[None, :, None] - (2 * down - 1) * (1 - radius)
        angle = np.arctan2(y, x) + np.pi / 4 * turn
        edge = np.ones_like(angle)
        for label, sides in enumerate(_SIDES[1:], 1):
            of = labels == label
            within = angle[of] % (2 * np.pi / sides) - np.pi / sides
            edge[of] = np.cos(np.pi / sides) / np.cos(within)
        for label, petals in enumerate(_PETALS, len(_SIDES)):
            of = labels == label
            edge[of] = 0.7 + 0.3 * np.cos(petals * angle[of])
        return np.clip((radius * edge - np.hypot(x, y)) * self.size / 2 + 0.5, 0, 1)


class Pictures(Dataset[Example]):
    """Images in memory, normalised when they are read.

    Args:
        pixels: Shape (count, H, W, 3), uint8.
        labels: Shape (count,).
    """

    def __init__(self, pixels: np.ndarray, labels: np.ndarray) -> None:
        self.size = pixels.shape[1]
        self.pixels = torch.from_numpy(pixels).permute(0, 3, 1, 2)
        self.labels = torch.from_numpy(labels)
        self.mean, self.std = (torch.tensor(v)[:, None, None] for v in (CIFAR_MEAN, CIFAR_STD))

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Example:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[Example]:
        """A batch at once rather than an image at a time."""
        images = (self.pixels[indices] / 255 - self.mean) / self.std
        return list(zip(images, self.labels[indices].tolist(), strict=True))


def cifar10(split: str, folder: str | Path | None = None) -> Pictures:
    """CIFAR-10 as `uoft-cs/cifar10` has it: parquet files with columns `img` (PNG) and `label`.

    Args:
        split: "train" or "eval".
        folder: Where those files lie; None to get them from the hub.

    Raises:
        HubError: If they cannot be had; says what to do.
    """
    from PIL import Image

    name = "test" if _require_split(split) else "train"
    rows = hub.load("uoft-cs/cifar10", name, ("img", "label"), folder)
    pngs = (row["bytes"] for row in hub.column(rows, "img"))
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) for png in pngs])
    return Pictures(pixels, np.asarray(rows["label"], np.int64))


def labelled_images(split: str, source: str | Path = "hub") -> Shapes | Pictures:
    """CIFAR-10, or shapes.

    Args:
        split: "train" or "eval".
        source: "synthetic" for shapes, "hub", or a folder of CIFAR-10's files.

    Raises:
        HubError: If CIFAR-10 cannot be had; says what to do.
    """
    if source == "synthetic":
        return Shapes(split)
    return cifar10(split, None if source == "hub" else source)


def accuracy(logits_BK: torch.Tensor, labels_B: torch.Tensor) -> torch.Tensor:
    """Share of the examples whose likeliest class is the right one."""
    return (logits_BK.argmax(1) == labels_B).float().mean()


def _require_split(split: str) -> bool:
    """Whether it is the held-out one."""
    if split not in ("train", "eval"):
        raise ValueError(f"split: expected 'train' or 'eval', got {split!r}")
    return split == "eval"


def _uniform(indices: np.ndarray, count: int) -> np.ndarray:
    """Numbers in [0, 1) that depend on the index and the place alone, shape (B, count): SplitMix64.

    Steele, Lea & Flood 2014, figure 17.
    """
    gamma = np.uint64(0x9E3779B97F4A7C15)
    x: Any = indices.astype(np.uint64)[:, None] * np.uint64(count)
    x = x + np.arange(count, dtype=np.uint64)
    x = (x + np.uint64(1)) * gamma
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    x = (x ^ (x >> np.uint64(31))) // np.uint64(1 << 40)
    return x * 2.0**-24
