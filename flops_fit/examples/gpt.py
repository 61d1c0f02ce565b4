"""A small GPT: pre-norm, learned positions, tied or untied head, sized by width or by depth.

Radford et al. 2019 with fused attention. Shapes by suffix: B batch, T time, D width, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """Attention, then MLP, each on a normed residual stream."""

    def __init__(self, d_model: int, n_head: int, causal: bool = True) -> None:
        super().__init__()
        self.n_head, self.causal = n_head, causal
        self.norm_attention = nn.LayerNorm(d_model)
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.project = nn.Linear(d_model, d_model, bias=False)
        self.norm_mlp = nn.LayerNorm(d_model)
        self.up = nn.Linear(d_model, 4 * d_model, bias=False)
        self.down = nn.Linear(4 * d_model, d_model, bias=False)

    def attend(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """Self-attention, causal or not."""
        B, T, D = x_BTD.shape
        q, k, v = (
            part.view(B, T, self.n_head, D // self.n_head).transpose(1, 2)
            for part in self.qkv(x_BTD).split(D, dim=2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.project(y.transpose(1, 2).reshape(B, T, D))

    def forward(self, x_BTD: torch.Tensor) -> torch.Tensor:
        """The residual stream after this block."""
        x_BTD = x_BTD + self.attend(self.norm_attention(x_BTD))
        return x_BTD + self.down(F.gelu(self.up(self.norm_mlp(x_BTD))))


class GPT(nn.Module):
    """A causal language model.

    Args:
        d_model: Width; with `n_layer` fixed it is the natural size parameter.
        n_layer: Blocks.
        n_head: Attention heads; by default one for every `head_dim` of width, at least one.
        head_dim: Width of a head where `n_head` is derived.
        vocab_size: Token values.
        context: Longest sequence.
        tie_weights: Share the embedding with the output head.

    Raises:
        ValueError: If the width does not divide into the heads.
    """

    def __init__(
        self,
        d_model: int,
        n_layer: int = 2,
        n_head: int | None = None,
        head_dim: int = 16,
        vocab_size: int = 256,
        context: int = 128,
        tie_weights: bool = False,
    ) -> None:
        super().__init__()
        n_head = n_head or max(1, d_model // head_dim)
        if d_model < 1 or d_model % n_head:
            raise ValueError(f"d_model={d_model} does not divide into {n_head} heads")
        self.tokens = nn.Embedding(vocab_size, d_model)
        self.positions = nn.Embedding(context, d_model)
        self.blocks = nn.ModuleList(Block(d_model, n_head) for _ in range(n_layer))
        self.norm = nn.LayerNorm(d_model)
        self.head = nn.Linear(d_model, vocab_size, bias=False)
        self._initialise()
        if tie_weights:
            self.head.weight = self.tokens.weight

    def _initialise(self) -> None:
        """By fan-in, so that narrow models learn from the first step; blocks begin as identity.

        A fixed std of 0.02 starts widths of 8 to 64 near zero, where short runs lose much of
        their tokens to leaving it: that bends the law.
        """
        residual: list[torch.Tensor] = []
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.1)
            elif isinstance(module, Block):
                residual += [module.project.weight, module.down.weight]
        for weight in residual:
            nn.init.zeros_(weight)
        nn.init.normal_(self.head.weight, std=0.5 * self.head.in_features**-0.5)

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """Logits (B, T, V) of each next token."""
        positions_T = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
        x_BTD = self.tokens(tokens_BT) + self.positions(positions_T)
        for block in self.blocks:
            x_BTD = block(x_BTD)
        return self.head(self.norm(x_BTD))

    def num_params(self, embeddings: bool = True) -> int:
        """Parameters, tied ones once; without token and position tables if so asked."""
        total = sum(p.numel() for p in self.parameters())
        if embeddings:
            return total
        tied = self.head.weight is self.tokens.weight
        tables = self.positions.weight.numel() + (0 if tied else self.tokens.weight.numel())
        return total - tables


def next_token_loss(logits_BTV: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats a token."""
    return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())
