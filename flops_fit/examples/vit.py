"""A small vision transformer: patches as tokens, mean over them, sized by width or by depth.

Dosovitskiy et al. 2021 with the mean in place of a class token (Beyer et al. 2022). Shapes by
suffix: B batch, C channels, H height and width, T patches, D width, K classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from flops_fit.examples.gpt import Block


class ViT(nn.Module):
    """An image classifier.

    Args:
        d_model: Width; with `n_layer` fixed it is the natural size parameter.
        n_layer: Blocks.
        n_head: Attention heads; by default one for every `head_dim` of width, at least one.
        head_dim: Width of a head where `n_head` is derived.
        image_size: Height and width of an image, in pixels.
        patch_size: The same of a patch.
        channels: Numbers a pixel.
        num_classes: Classes.

    Raises:
        ValueError: If the width does not divide into the heads, or the image into patches.
    """

    def __init__(
        self,
        d_model: int,
        n_layer: int = 2,
        n_head: int | None = None,
        head_dim: int = 16,
        image_size: int = 32,
        patch_size: int = 4,
        channels: int = 3,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        n_head = n_head or max(1, d_model // head_dim)
        if d_model < 1 or d_model % n_head:
            raise ValueError(f"d_model={d_model} does not divide into {n_head} heads")
        if image_size % patch_size:
            raise ValueError(f"{image_size} pixels do not divide into patches of {patch_size}")
        self.patch_size = patch_size
        self.patches = nn.Linear(channels * patch_size**2, d_model)
        self.positions = nn.Parameter(torch.empty((image_size // patch_size) ** 2, d_model))
        self.blocks = nn.ModuleList(Block(d_model, n_head, causal=False) for _ in range(n_layer))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, num_classes)
        self._initialise()

    def _initialise(self) -> None:
        """By fan-in; blocks begin as identity, as the GPT's do."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
        for module in self.modules():
            if isinstance(module, Block):
                nn.init.zeros_(module.project.weight)
                nn.init.zeros_(module.down.weight)
        nn.init.normal_(self.positions, std=0.1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.patches.bias)
        nn.init.zeros_(self.head.bias)

    def forward(self, images_BCHH: torch.Tensor) -> torch.Tensor:
        """Logits (B, K)."""
        pixels_BTP = F.pixel_unshuffle(images_BCHH, self.patch_size).flatten(2).mT
        x_BTD = self.patches(pixels_BTP) + self.positions
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return self.head(self.norm(x_BTD).mean(1))

    def num_params(self, embeddings: bool = True) -> int:
        """Parameters; without patch and position embeddings if so asked."""
        total = sum(p.numel() for p in self.parameters())
        if embeddings:
            return total
        patches = sum(p.numel() for p in self.patches.parameters())
        return total - patches - self.positions.numel()
