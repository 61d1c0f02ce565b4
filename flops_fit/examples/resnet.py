"""A small residual network for images, sized by its channels.

The layout of He et al. 2016, section 4.2, but of one width throughout: each parameter works at
hundreds of pixels, so that a forward and backward pass costs hundreds of times 6 N.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Residual(nn.Module):
    """Two normed convolutions beside a shortcut; a stride of 2 halves height and width."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.first = nn.Conv2d(width, width, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The block's output."""
        y = self.norms[1](self.second(F.relu(self.norms[0](self.first(x)))))
        return F.relu(y + (x if self.stride == 1 else F.avg_pool2d(x, self.stride)))


class ResNet(nn.Module):
    """An image classifier.

    Args:
        width: Channels of every layer: the size parameter.
        n_block: Residual blocks a stage.
        n_stage: Stages; each after the first halves height and width.
        channels: Numbers a pixel.
        num_classes: Classes.
    """

    def __init__(
        self,
        width: int,
        n_block: int = 1,
        n_stage: int = 2,
        channels: int = 3,
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        strides = [
            2 if stage and not block else 1 for stage in range(n_stage) for block in range(n_block)
        ]
        self.blocks = nn.Sequential(*(Residual(width, stride) for stride in strides))
        self.head = nn.Linear(width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits, shape (batch, classes), of images (batch, channels, height, width)."""
        x = self.blocks(F.relu(self.norm(self.stem(images))))
        return self.head(x.mean((2, 3)))

    def num_params(self) -> int:
        """All parameters."""
        return sum(p.numel() for p in self.parameters())
