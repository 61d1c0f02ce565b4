"""A small GPT: pre-norm, learned or rotary positions, tied or untied head, any width and depth.

Radford et al. 2019 with fused attention. Shapes by suffix: B batch, T time, D width, V vocabulary,
H heads, K width of a head.
"""

from __future__ import annotations

from typing import Literal

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

    def attend(self, x_BTD: torch.Tensor, turns_TK: torch.Tensor | None) -> torch.Tensor:
        """Self-attention, causal or not."""
        B, T, D = x_BTD.shape
        q, k, v = (
            part.view(B, T, self.n_head, D // self.n_head).transpose(1, 2)
            for part in self.qkv(x_BTD).split(D, dim=2)
        )
        if turns_TK is not None:
            q, k = rotate(q, turns_TK), rotate(k, turns_TK)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.project(y.transpose(1, 2).reshape(B, T, D))

    def forward(self, x_BTD: torch.Tensor, turns_TK: torch.Tensor | None = None) -> torch.Tensor:
        """The residual stream after this block."""
        x_BTD = x_BTD + self.attend(self.norm_attention(x_BTD), turns_TK)
        return x_BTD + self.down(F.gelu(self.up(self.norm_mlp(x_BTD))))


def rotate(x_BHTK: torch.Tensor, turns_TK: torch.Tensor) -> torch.Tensor:
    """Each pair of a query's or key's numbers turned by its angle (Su et al. 2021).

    Args:
        x_BHTK: Queries or keys.
        turns_TK: Angles in radians, shape (T, K / 2).
    """
    one, other = x_BHTK.float().chunk(2, dim=-1)
    cos, sin = turns_TK.cos(), turns_TK.sin()
    turned = torch.cat([one * cos - other * sin, one * sin + other * cos], dim=-1)
    return turned.type_as(x_BHTK)


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
        positions: "learned", or "rotary", which has no parameters.

    Raises:
        ValueError: If the width does not divide into the heads, or a head's into pairs to turn.
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
        positions: Literal["learned", "rotary"] = "learned",
    ) -> None:
        super().__init__()
        n_head = n_head or max(1, d_model // head_dim)
        if d_model < 1 or d_model % n_head:
            raise ValueError(f"d_model={d_model} does not divide into {n_head} heads")
        if positions not in ("learned", "rotary"):
            raise ValueError(f"positions: expected 'learned' or 'rotary', got {positions!r}")
        self.head_width, rotary = d_model // n_head, positions == "rotary"
        if rotary and self.head_width % 2:
            raise ValueError(f"heads of {self.head_width} do not divide into pairs to turn")
        self.tokens = nn.Embedding(vocab_size, d_model)
        self.positions = None if rotary else nn.Embedding(context, d_model)
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
        x_BTD, turns_TK = self.tokens(tokens_BT), None
        if self.positions is None:
            powers_K = torch.arange(0, self.head_width, 2, device=tokens_BT.device)
            turns_TK = positions_T[:, None] * 1e4 ** (-powers_K / self.head_width)
        else:
            x_BTD = x_BTD + self.positions(positions_T)
        for block in self.blocks:
            x_BTD = block(x_BTD, turns_TK)
        return self.head(self.norm(x_BTD))

    def num_params(self, embeddings: bool = True) -> int:
        """Parameters, tied ones once; without token and position tables if so asked."""
        total = sum(p.numel() for p in self.parameters())
        if embeddings:
            return total
        tied = self.head.weight is self.tokens.weight
        tables = [] if self.positions is None else [self.positions]
        tables += [] if tied else [self.tokens]
        return total - sum(table.weight.numel() for table in tables)


def next_token_loss(logits_BTV: torch.Tensor, targets_BT: torch.Tensor) -> torch.Tensor:
    """Mean cross-entropy in nats a token."""
    return F.cross_entropy(logits_BTV.flatten(0, 1), targets_BT.flatten())
