"""A feed-forward language model: the last bytes' embeddings in a row, one hidden layer, a softmax.

Bengio et al. 2003, "A Neural Probabilistic Language Model", section 2, with GELU in place of tanh.
It is nearly all matrix products and learns from the first step on, so that a sweep over a factor of
thirty takes minutes on a CPU. Shapes by suffix: B batch, T time, D width, R reach, V vocabulary.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class FeedForwardLM(nn.Module):
    """Predicts each token from the `reach` tokens before it.

    Args:
        d_model: Width of an embedding; the hidden layer has four times as many units.
        reach: How many tokens back it sees.
        vocab_size: Token values.
    """

    def __init__(self, d_model: int, reach: int = 16, vocab_size: int = 256) -> None:
        super().__init__()
        self.reach = reach
        self.tokens = nn.Embedding(vocab_size, d_model)
        self.hidden = nn.Linear(reach * d_model, 4 * d_model)
        self.head = nn.Linear(4 * d_model, vocab_size)
        # The first predictions are then close to uniform.
        nn.init.normal_(self.head.weight, std=0.5 * self.head.in_features**-0.5)

    def forward(self, tokens_BT: torch.Tensor) -> torch.Tensor:
        """Logits (B, T, V) of each next token."""
        x_BTD = self.tokens(tokens_BT)
        padded = F.pad(x_BTD, (0, 0, self.reach - 1, 0))  # zeros before the text begins
        seen_BTDR = padded.unfold(1, self.reach, 1)
        return self.head(F.gelu(self.hidden(seen_BTDR.flatten(2))))

    def num_params(self) -> int:
        """Parameters, with the token table."""
        return sum(p.numel() for p in self.parameters())
