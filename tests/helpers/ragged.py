"""Sequences of different lengths, with models and losses for them."""

import random

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

VOCAB = 11
_PAD = nn.utils.rnn.pad_sequence


def rows(count=200, shortest=3, longest=30, ordered=False):
    """Sequences of random labels; `ordered` sorts them by length."""
    draw, generator = random.Random(0), torch.Generator().manual_seed(0)
    lengths = [draw.randint(shortest, longest) for _ in range(count)]
    lengths = sorted(lengths) if ordered else lengths
    return [torch.randint(1, VOCAB, (length,), generator=generator) for length in lengths]


def keyed(examples):
    """Mapping batches, labels padded with -100."""
    return {
        "input_ids": _PAD(examples, batch_first=True),
        "labels": _PAD(examples, batch_first=True, padding_value=-100),
    }


def masked(examples):
    """Mapping batches with a mask; no label says that it does not count."""
    ids = _PAD(examples, batch_first=True)
    mask = _PAD([torch.ones_like(row) for row in examples], batch_first=True)
    return {"input_ids": ids, "attention_mask": mask, "labels": ids}


def paired(examples):
    """Pairs, padded with 0."""
    ids = _PAD(examples, batch_first=True)
    return ids, ids


def loader(collate=keyed, data=None, **options):
    return DataLoader(rows() if data is None else data, batch_size=8, collate_fn=collate, **options)


class LM(nn.Module):
    """Predicts each token from itself."""

    def __init__(self, width):
        super().__init__()
        self.embed, self.head = nn.Embedding(VOCAB, width), nn.Linear(width, VOCAB)

    def num_params(self):
        return sum(p.numel() for p in self.parameters())

    def forward(self, input_ids, labels=None, attention_mask=None):
        return self.head(self.embed(input_ids))


def _flat(outputs, labels, **options):
    return F.cross_entropy(outputs.reshape(-1, VOCAB), labels.reshape(-1), **options)


def label_mean(outputs, batch):
    return _flat(outputs, batch["labels"])


def next_label_mean(outputs, batch):
    return _flat(outputs[:, :-1], batch["labels"][:, 1:])


def mask_mean(outputs, batch):
    losses = _flat(outputs, batch["labels"], reduction="none")
    mask = batch["attention_mask"].reshape(-1).to(losses.dtype)
    return (losses * mask).sum() / mask.sum()


def zero_mean(outputs, targets):
    return _flat(outputs, targets, ignore_index=0)


def row_mean(outputs, batch):
    labels = batch["labels"]
    losses = _flat(outputs, labels, reduction="none").reshape(labels.shape)
    return (losses.sum(1) / (labels != -100).sum(1).clamp(min=1)).mean()


def sum_and_count(outputs, batch):
    return _flat(outputs, batch["labels"], reduction="sum"), (batch["labels"] != -100).sum()


def odd_mean(outputs, batch):
    """Not a mean of the losses of its parts."""
    return label_mean(outputs, batch) + outputs.flatten(0, 1).std(0).mean()
